-- GET by a random key. Argument: the file of keys.
dofile("result.lua")

function init(args)
   request = keyed_get(args[1])
end
