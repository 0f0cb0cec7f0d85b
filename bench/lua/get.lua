-- GET by a uniformly random key. Argument: the file of keys.
dofile("result.lua")

function init(args)
   local key = read_keys(args[1])
   request = function()
      return "GET /getpassenger/" .. key() .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
   end
end
