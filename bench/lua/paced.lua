-- An open loop: mix.lua's requests are due at a fixed rate whether or not earlier ones were answered. Each is sent by the first free
-- connection, late if none is free. Arguments: the file of keys, and requests per second of each thread.
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

-- wrk calls this before each request for the number of milliseconds to wait.
function delay()
   turns = turns + 1
   return math.max(0, (begin + turns / rate - seconds()) * 1000)
end
