-- GET by a random key. Arguments: the file of keys, and a header if there is one to send.
dofile("result.lua")

function init(args)
   request = keyed_get(args[1], args[2])
end
