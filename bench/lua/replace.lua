-- PUT at a uniformly random key. Argument: the file of keys.
dofile("result.lua")

function init(args)
   local key = read_keys(args[1])
   request = function() return with_body("PUT", "/putpassenger/" .. key(), BODY) end
end
