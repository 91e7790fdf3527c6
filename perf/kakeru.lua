-- The traffic of an ad campaign: 90 % of the ads are only seen, 9 % sell one thing, 1 % sell eight.
-- With the argument `close` every request closes its connection.

local requests = {}
local at = 0

function init(args)
  local headers = { ["Host"] = "hakaru" }
  if args[1] == "close" then
    headers["Connection"] = "close"
  end
  local open = wrk.format("GET", "/hakaru?name=open&value=0", headers)
  local purchase = wrk.format("GET", "/hakaru?name=purchase&value=120", headers)
  local basket = wrk.format("GET", "/hakaru?name=purchase&value=960", headers)
  for i = 1, 100 do
    if i == 50 then
      requests[i] = basket
    elseif i % 11 == 0 then
      requests[i] = purchase
    else
      requests[i] = open
    end
  end
end

function request()
  at = at % 100 + 1
  return requests[at]
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format("answered %d", summary.requests))
  print(string.format("microseconds %d", summary.duration))
  print(string.format("not_2xx %d", errors.status))
  print(string.format("socket_errors %d", errors.connect + errors.read + errors.write + errors.timeout))
  print(string.format("p50_us %d", latency:percentile(50)))
  print(string.format("p99_us %d", latency:percentile(99)))
end
