-- PUT at a random key. Argument: the file of keys.
dofile("result.lua")

function init(args)
   request = keyed(args[1], "PUT /putpassenger/", " HTTP/1.1\r\n" .. HEADERS_OF_BODY .. BODY)
end
