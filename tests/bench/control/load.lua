-- wrk's side of `scripts/bench control`: one kind of request, each for another server, the answers counted.
-- Arguments: KIND SERVERS. The token comes in DORMOUSE_TOKEN.

local headers = {
  ["Authorization"] = "Bearer " .. os.getenv("DORMOUSE_TOKEN"),
  ["Content-Type"] = "application/json",
}
local kind, servers
local run = tostring(os.time()) .. "-" .. string.sub(tostring({}), 8)
local count = 0

-- As tests/bench/control/seed.rs names them: a hundred servers a tenant.
local function tenant(number) return string.format("t%04d", math.floor(number / 100)) end
local function name(number) return string.format("%s%%2Fs%02d", tenant(number), number % 100) end

function init(args)
  kind, servers = args[1], tonumber(args[2])
  math.randomseed(os.time())
end

function request()
  count = count + 1
  local server = math.random(0, servers - 1)
  if kind == "read" then
    return wrk.format("GET", "/v1/servers/" .. name(server), headers)
  elseif kind == "write" then
    headers["Idempotency-Key"] = run .. "-" .. count
    local body = string.format('{"memory_bytes":%d}', math.random(1, 2 ^ 32))
    return wrk.format("PATCH", "/v1/servers/" .. name(server), headers, body)
  elseif kind == "list" then
    -- In turn: a page of all from anywhere, a tenant's, a node's, and the few of one stage.
    local path
    if count % 4 == 0 then path = "cursor=" .. name(server)
    elseif count % 4 == 1 then path = "tenant=" .. tenant(server)
    elseif count % 4 == 2 then path = string.format("node=n%04d", math.floor(server / 50))
    else path = "stage=waking" end
    return wrk.format("GET", "/v1/servers?limit=50&" .. path, headers)
  elseif kind == "locate" then
    return wrk.format("GET", "/v1/locate/" .. name(server), headers)
  end
end

function done(summary, latency)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.status + summary.errors.timeout
  io.write(string.format('{"requests":%d,"seconds":%f,"failed":%d,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, failed, latency:percentile(99) / 1e3))
end
