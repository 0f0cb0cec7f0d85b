-- Converts the log lines of nginx, the server, supervisord, PostgreSQL and Redis to one schema (schema.json), for fluent-bit.conf.
-- Fluent Bit passes a line of JSON as its fields, and any other line as the field `log`.

local MONTHS = {Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12}
local LEVELS = {
    trace = "debug", warn = "warning", crit = "fatal", alert = "fatal", emerg = "fatal", panic = "fatal", log = "info",
    debug = "debug", info = "info", notice = "notice", warning = "warning", error = "error", fatal = "fatal",
}

local function level(word)
    return LEVELS[string.lower(word or "info"):gsub("%d$", "")] or "info"
end

local function trace_of(text, pattern)
    return text and string.match(text, pattern)
end

local function now(timestamp)
    return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(type(timestamp) == "table" and timestamp.sec or timestamp))
end

local function nginx(record)
    return {
        timestamp = record.time, service = "nginx", level = "info", message = "request", method = record.method, uri = record.uri,
        status = record.status, bytes = record.bytes_sent, duration_ms = record.duration_s and record.duration_s * 1000,
        client = record.client, user_agent = record.user_agent, request_id = record.request_id, principal = record.principal,
        trace_id = trace_of(record.traceparent, "^%x%x%-(%x+)%-"), fields = record,
    }
end

local function server(record)
    local line = {
        timestamp = record.timestamp, service = "server", level = level(record.level), message = record.message,
        request_id = record.request_id, trace_id = record.trace_id, fields = record,
    }
    if record.target == "access" then
        line.method, line.route, line.status = record["http.method"], record["http.route"], record["http.status"]
        line.bytes, line.duration_ms, line.principal = record["http.response.bytes"], record.duration_ms, record.principal
    end
    return line
end

local function postgres(record)
    return {
        timestamp = record.timestamp:gsub("^(%S+) (%S+) UTC$", "%1T%2Z"), service = "postgres", level = level(record.error_severity),
        message = record.message, trace_id = trace_of(record.statement, "traceparent='%x%x%-(%x+)%-"), fields = record,
    }
end

local function redis(text, timestamp)
    local day, month, year, time, sign, message = text:match("^%d+:%a (%d+) (%a+) (%d+) ([%d:.]+) ([.*#-]) (.*)$")
    return {
        timestamp = day and string.format("%s-%02d-%sT%sZ", year, MONTHS[month], day, time) or now(timestamp),
        service = "redis", level = sign == "#" and "warning" or sign == "*" and "notice" or "debug", message = message or text,
    }
end

local function plain(text, timestamp)
    if text:match("^%d%d%d%d/%d%d/%d%d ") then
        return {
            timestamp = now(timestamp), service = "nginx", level = level(text:match("%[(%a+)%]")), message = text:match("%] (.*)$") or text,
        }
    end
    local bad = text:match(" CRIT ") or text:match(" ERRO")
    return {
        timestamp = now(timestamp), service = "supervisor", message = text,
        level = bad and "error" or text:match(" WARN ") and "warning" or "info",
    }
end

function shape(tag, timestamp, record)
    local line
    if record.log and tag == "redis" then
        line = redis(record.log, timestamp)
    elseif record.log and not record.time then
        line = plain(record.log, timestamp)
    elseif tag == "postgres" then
        line = postgres(record)
    elseif record.log == "nginx.access" then
        line = nginx(record)
    else
        line = server(record)
    end
    return 2, timestamp, line
end
