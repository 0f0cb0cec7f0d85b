-- POST of a new passenger.
dofile("result.lua")

function init()
   request = function() return CREATE end
end
