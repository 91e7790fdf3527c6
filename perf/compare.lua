-- Always the same request. The argument is `keep` for kept connections, `close` for one connection per request, the
-- number of requests per write, or `body` with the file of a body, its media type, and its coding if it has one.

local bytes

function init(args)
  local headers = { ["Host"] = "hakaru" }
  if args[1] == "close" then
    headers["Connection"] = "close"
  end
  if args[1] == "body" then
    headers["Content-Type"] = args[3]
    headers["Content-Encoding"] = args[4]
    bytes = wrk.format("POST", "/hakaru", headers, io.open(args[2], "rb"):read("*a"))
    return
  end
  local one = wrk.format("GET", "/hakaru?name=open&value=0", headers)
  bytes = string.rep(one, tonumber(args[1]) or 1)
end

function request()
  return bytes
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format("answered %d", summary.requests))
  print(string.format("microseconds %d", summary.duration))
  print(string.format("refused %d", errors.status))
  print(string.format("errors %d", errors.connect + errors.read + errors.write + errors.timeout))
  print(string.format("p50_us %d", latency:percentile(50)))
  print(string.format("p99_us %d", latency:percentile(99)))
end
