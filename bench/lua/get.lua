-- GET by a random key. Arguments: the file of keys, and optionally a header.
dofile("result.lua")

function init(args)
   request = keyed_get(args[1], args[2])
end
