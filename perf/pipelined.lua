-- Always the same event, 64 requests per write.

local pipeline

function init()
  local one = wrk.format("GET", "/hakaru?name=open&value=0", { ["Host"] = "hakaru" })
  pipeline = string.rep(one, 64)
end

function request()
  return pipeline
end

function done(summary, _, _)
  print(string.format("answered %d", summary.requests))
end
