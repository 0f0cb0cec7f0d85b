-- Nine GETs by a random key for each POST. Argument: the file of keys.
dofile("result.lua")

function init(args)
   local get = keyed_get(args[1])
   request = function()
      if math.random(10) == 1 then return CREATE end
      return get()
   end
end
