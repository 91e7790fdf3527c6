-- One event per millisecond and connection, or per as many milliseconds as the argument says.

local period = 1

function init(arguments)
  period = tonumber(arguments[1]) or period
  request_bytes = wrk.format("GET", "/hakaru?name=open&value=0", { ["Host"] = "hakaru" })
end

function request()
  return request_bytes
end

function delay()
  return period
end

function done(summary, latency, _)
  print(string.format("answered %d", summary.requests))
  print(string.format("microseconds %d", summary.duration))
  print(string.format("not_2xx %d", summary.errors.status))
  print(string.format("p50_us %d", latency:percentile(50)))
  print(string.format("p99_us %d", latency:percentile(99)))
end
