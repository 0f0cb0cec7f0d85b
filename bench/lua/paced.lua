-- An open loop: mix.lua's requests are due at a rate, whether or not earlier ones were answered. Each is sent by the first connection that is
-- free, late if none was. Arguments: the file of keys, and requests a second of each thread.
dofile("mix.lua")

local ffi = require("ffi")
ffi.cdef([[
   typedef struct { long seconds, nanoseconds; } instant;
   int clock_gettime(int clock, instant *now);
]])
local MONOTONIC = 1
local now = ffi.new("instant")
local begin, turns, rate

local function seconds()
   ffi.C.clock_gettime(MONOTONIC, now)
   return tonumber(now.seconds) + tonumber(now.nanoseconds) / 1e9
end

local init_mix = init
function init(args)
   init_mix(args)
   begin, turns, rate = seconds(), 0, tonumber(args[2])
end

-- wrk asks before each request for how many milliseconds it shall wait.
function delay()
   turns = turns + 1
   return math.max(0, (begin + turns / rate - seconds()) * 1000)
end
