-- For wrk: posts purchases, each by a user of its own. Arguments after `--`: the sale's id, and a tag that no
-- other run against the same store has used. With a third, `same`, each thread has one user, who comes again and again.
--
-- All user ids have the same length, so the request is made once and only the digits change: the generator
-- shares the processors with the server, and what it wastes is missing in the result.

local threads = 0

-- Once a thread, in the main state; `number` becomes a global of that thread.
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local digits = 9
local before, after
local sent, step = 0, 1

function init(args)
  local sale = assert(args[1], "usage: wrk … -s purchase.lua URL -- SALE TAG")
  local tag = assert(args[2], "usage: wrk … -s purchase.lua URL -- SALE TAG")
  step = args[3] == "same" and 0 or 1
  local gap = string.rep("#", digits)
  local body = string.format('{"saleId":"%s","userId":"%s-%d-%s"}', sale, tag, number, gap)
  wrk.headers["Content-Type"] = "application/json"
  local request = wrk.format("POST", "/api/v1/sale/purchase", nil, body)
  local first, last = string.find(request, gap, 1, true)
  before, after = string.sub(request, 1, first - 1), string.sub(request, last + 1)
end

function request()
  sent = sent + step
  return before .. string.format("%09d", sent) .. after
end
