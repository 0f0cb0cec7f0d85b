-- What every script shares: a number for each thread, and the result as one line of JSON.

local threads = 0

function setup(thread)
   thread:set("seed", threads)
   threads = threads + 1
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'RESULT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "bytes": %d, "bad_status": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), summary.bytes,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end

-- Keys are lines of 36 characters; the file stays one string, because a million of them cost Lua seconds and memory.
local KEY_BYTES = 37

function read_keys(path)
   local file = assert(io.open(path, "rb"))
   local keys = file:read("*a")
   file:close()
   local count = #keys / KEY_BYTES
   math.randomseed(os.time() * 1000 + seed)
   return function()
      local start = math.random(0, count - 1) * KEY_BYTES + 1
      return keys:sub(start, start + KEY_BYTES - 2)
   end
end

function with_body(method, path, body)
   return method .. " " .. path .. " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
      .. #body .. "\r\n\r\n" .. body
end

BODY = '{"survived":true,"passengerClass":2,"name":"Bench, Mr. Post Put","sex":"male","age":27.5,'
   .. '"siblingsOrSpousesAboard":1,"parentsOrChildrenAboard":0,"fare":13.25}'
