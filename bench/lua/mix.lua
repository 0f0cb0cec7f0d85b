-- Nine GETs by a random key to one POST. Argument: the file of keys.
dofile("result.lua")

function init(args)
   local key = read_keys(args[1])
   local create = with_body("POST", "/postpassenger", BODY)
   request = function()
      if math.random(10) == 1 then return create end
      return "GET /getpassenger/" .. key() .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
   end
end
