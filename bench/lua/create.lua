-- POST of a new passenger.
dofile("result.lua")

function init()
   local create = with_body("POST", "/postpassenger", BODY)
   request = function() return create end
end
