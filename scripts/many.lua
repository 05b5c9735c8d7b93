-- For wrk: posts purchases, each by a user of its own, of many sales in turn. Arguments after `--`: how the ids of the sales
-- begin (`PREFIX-1`, `PREFIX-2`, …), how many sales there are, and a tag that no other run against the same store has used.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local prefix, sales, tag
local sent = 0

function init(args)
  local usage = "usage: wrk … -s many.lua URL -- PREFIX SALES TAG"
  prefix, sales, tag = assert(args[1], usage), assert(tonumber(args[2]), usage), assert(args[3], usage)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  sent = sent + 1
  local body = string.format('{"saleId":"%s-%d","userId":"%s-%d-%09d"}', prefix, sent % sales + 1, tag, number, sent)
  return wrk.format("POST", "/api/v1/sale/purchase", nil, body)
end
