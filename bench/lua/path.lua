-- GET of one path. Argument: the path.
dofile("result.lua")

function init(args)
   local get = "GET " .. args[1] .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
   request = function() return get end
end
