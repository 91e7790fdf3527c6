-- Events with ids. The argument is `none` for events without, `ordered` for ids that grow, or `random`.

local kind
local first
local count = 0

function init(args)
  kind = args[1]
  first = os.time()
  math.randomseed(first + tonumber(args[2]))
end

function request()
  count = count + 1
  local id = ""
  if kind == "ordered" then
    id = string.format("&id=%08x-%023x", first, count)
  elseif kind == "random" then
    local random = math.random
    id = string.format(
      "&id=%06x%06x-%06x%06x%07x",
      random(0, 0xffffff), random(0, 0xffffff), random(0, 0xffffff), random(0, 0xffffff), count
    )
  end
  return "GET /hakaru?name=open&value=0" .. id .. " HTTP/1.1\r\nHost: hakaru\r\n\r\n"
end

function done(summary, _, _)
  local errors = summary.errors
  print(string.format("answered %d", summary.requests))
  print(string.format("not_2xx %d", errors.status))
  print(string.format("socket_errors %d", errors.connect + errors.read + errors.write + errors.timeout))
end
