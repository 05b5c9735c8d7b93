#!lua name=flashsale_1

-- The decisions of the cluster profile: one sale's stock, purchasers and sequence, in one Redis.
--
-- This is `core::inventory` once more, input by input; the conformance suite and the model test drive both with
-- the same histories. Each function is atomic, so a reservation and its outbox entry are one thing.
--
-- KEYS, all of one sale and of one slot:
--   1 meta      hash    generation, gate, epoch, no, name, product, total, starts, ends, paused, next, place, changed,
--                       confirmed
--   2 stock     string  units that can still be had (the seed's key)
--   3 users     set     who holds one (the seed's key)
--   4 orders    hash    user → state unit:place:time:order, where the state is R (reserved) or C (confirmed)
--   5 outbox    stream  reservations whose orders are not stored yet; an entry a call
--   6 returned  zset    units below `next` that are free again
-- ARGV 1 is always the installation, so that two of them may share a server.
--
-- Times are milliseconds since 1970 by this server's clock. `place` and `changed` are counts within the generation; a
-- holding names its place in full (generation * 2^32 + count), since it outlives its generation.
-- The first element of a reply is `ok`, or why there is none: `missing`, `unarmed`, `inconsistent`, `closed`.

-- Which sales of which installation were loaded into this very server process. No AOF, snapshot or replica carries
-- it over: after a restart, a failover or a new load of this library nothing is decided until somebody recovers.
local armed = {}

-- The generation below which nothing is loaded any more, by installation: whoever lost the lock of a recovery while he
-- slept must not load what he had read before.
local floor = {}

local META, STOCK, USERS, ORDERS, OUTBOX, RETURNED = 1, 2, 3, 4, 5, 6
local CHANGES = 'flashsale:changes'
-- Lua hands at most about 8,000 values to a call; whoever calls sends less than this.
local FIELDS = { 'generation', 'gate', 'epoch', 'no', 'total', 'starts', 'ends', 'paused', 'next', 'place', 'changed', 'confirmed' }

local function text(number)
  return string.format('%.0f', number)
end

local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function mark(keys, installation)
  return installation .. ' ' .. keys[META]
end

-- The sale's meta as a table, or nil and why nothing can be said of it.
local function read(keys, installation)
  local values = redis.call('HMGET', keys[META], unpack(FIELDS))
  if not values[1] then return nil, 'missing' end
  local meta = {}
  for i, field in ipairs(FIELDS) do
    if not values[i] then return nil, 'inconsistent' end
    meta[field] = (field == 'gate') and values[i] or tonumber(values[i])
  end
  if armed[mark(keys, installation)] ~= meta.generation then return nil, 'unarmed' end
  -- Fails where it is no stream: a function that failed later would have taken units by then.
  redis.call('XLEN', keys[OUTBOX])
  local stock = redis.call('GET', keys[STOCK])
  local users = redis.call('SCARD', keys[USERS])
  meta.returned = redis.call('ZCARD', keys[RETURNED])
  if not stock or tonumber(stock) + users ~= meta.total or redis.call('HLEN', keys[ORDERS]) ~= users
    or meta.next - 1 - meta.returned ~= users then
    return nil, 'inconsistent'
  end
  meta.stock = tonumber(stock)
  return meta, nil
end

local function open(keys, installation)
  local meta, why = read(keys, installation)
  if meta and meta.gate ~= '' then
    -- For how long, so that whoever asks can tell a change from a gate that somebody left closed.
    return nil, 'closed', text(clock() - tonumber(redis.call('HGET', keys[META], 'closed_at') or 0))
  end
  return meta, why
end

-- The lowest free unit. It is taken.
local function take(keys, meta)
  if meta.returned > 0 then
    meta.returned = meta.returned - 1
    return tonumber(redis.call('ZPOPMIN', keys[RETURNED])[1])
  end
  local unit = meta.next
  meta.next = unit + 1
  return unit
end

-- ARGV: installation, then user and order id of each attempt.
local function decide(keys, args)
  local meta, why, closed_for = open(keys, args[1])
  if not meta then return { why, closed_for } end
  local now = clock()
  local answers = {}
  local entry = ''
  if meta.paused == 1 or now < meta.starts or now >= meta.ends then
    for _ = 2, #args, 2 do answers[#answers + 1] = 'N' end
  else
    local users = {}
    for i = 2, #args, 2 do users[#users + 1] = args[i] end
    local held = redis.call('HMGET', keys[ORDERS], unpack(users))
    local mine, rows, lines = {}, {}, {}
    local first = meta.place + 1
    for i, user in ipairs(users) do
      local holding = held[i] or mine[user]
      if holding then
        answers[i] = 'A' .. holding
      elseif meta.stock > 0 then
        local unit, order = take(keys, meta), args[2 * i + 1]
        meta.stock = meta.stock - 1
        meta.place = meta.place + 1
        mine[user] = 'R' .. text(unit) .. ':' .. text(meta.generation * 4294967296 + meta.place) .. ':' .. text(now) .. ':' .. order
        rows[#rows + 1] = user
        rows[#rows + 1] = mine[user]
        lines[#lines + 1] = text(unit) .. ' ' .. order .. ' ' .. user
        answers[i] = mine[user]
      else
        answers[i] = 'S'
      end
    end
    if #lines > 0 then
      local buyers = {}
      for i = 1, #rows, 2 do buyers[#buyers + 1] = rows[i] end
      redis.call('HSET', keys[ORDERS], unpack(rows))
      redis.call('SADD', keys[USERS], unpack(buyers))
      redis.call('DECRBY', keys[STOCK], #buyers)
      meta.changed = meta.place
      redis.call('HSET', keys[META], 'next', text(meta.next), 'place', text(meta.place), 'changed', text(meta.changed))
      entry = redis.call('XADD', keys[OUTBOX], '*', 'g', text(meta.generation), 'e', text(meta.epoch), 't', text(now),
        'p', text(first), 'r', table.concat(lines, '\n'))
    end
  end
  return { 'ok', text(meta.generation), text(meta.epoch), text(now), text(meta.changed), text(meta.no), entry, answers }
end

-- Everything that is known of the sale but its purchasers.
local function state(keys, meta)
  local shown = redis.call('HMGET', keys[META], 'name', 'product')
  if not shown[1] or not shown[2] then return { 'inconsistent' } end
  return { 'ok', text(meta.generation), text(meta.epoch), text(clock()), text(meta.changed), text(meta.no),
    text(meta.stock), text(meta.confirmed), text(meta.total), text(meta.starts), text(meta.ends), text(meta.paused),
    text(meta.next), text(meta.place), meta.gate, shown[1], shown[2] }
end

local function status(keys, args)
  local meta, why = read(keys, args[1])
  if not meta then return { why } end
  return state(keys, meta)
end

-- ARGV: installation, user.
local function purchase(keys, args)
  local meta, why = read(keys, args[1])
  if not meta then return { why } end
  return { 'ok', text(meta.generation), text(meta.epoch), redis.call('HGET', keys[ORDERS], args[2]) or '' }
end

-- ARGV: installation, epoch, then user and order id of each order that is stored now. A closed gate does not matter:
-- what is confirmed is no change of the stock.
local function confirm(keys, args)
  local meta, why = read(keys, args[1])
  if not meta then return { why } end
  if tonumber(args[2]) ~= meta.epoch then return { 'ok', '0' } end
  local users = {}
  for i = 3, #args, 2 do users[#users + 1] = args[i] end
  local held = redis.call('HMGET', keys[ORDERS], unpack(users))
  local rows, seen = {}, {}
  for i, user in ipairs(users) do
    local order = args[2 * i + 2]
    if held[i] and not seen[user] and held[i]:sub(1, 1) == 'R' and held[i]:match('[^:]+$') == order then
      seen[user] = true
      rows[#rows + 1] = user
      rows[#rows + 1] = 'C' .. held[i]:sub(2)
    end
  end
  if #rows > 0 then
    redis.call('HSET', keys[ORDERS], unpack(rows))
    redis.call('HINCRBY', keys[META], 'confirmed', #rows / 2)
  end
  return { 'ok', text(#rows / 2) }
end

-- ARGV: installation, token. Stops decisions, so that PostgreSQL and Redis can be changed as one.
local function close(keys, args)
  local meta, why, closed_for = open(keys, args[1])
  if not meta then return { why, closed_for } end
  redis.call('HSET', keys[META], 'gate', args[2], 'closed_at', text(clock()))
  meta.gate = args[2]
  return state(keys, meta)
end

local function give_back(keys, meta, user)
  local holding = redis.call('HGET', keys[ORDERS], user)
  if not holding then return end
  local unit = tonumber(holding:match('^%u(%d+):'))
  redis.call('HDEL', keys[ORDERS], user)
  redis.call('SREM', keys[USERS], user)
  redis.call('INCR', keys[STOCK])
  if holding:sub(1, 1) == 'C' then meta.confirmed = meta.confirmed - 1 end
  redis.call('ZADD', keys[RETURNED], unit, text(unit))
  -- The same set of free units has one form only, whatever history led to it.
  while redis.call('ZREM', keys[RETURNED], text(meta.next - 1)) == 1 do meta.next = meta.next - 1 end
end

local function empty(keys)
  redis.call('UNLINK', keys[USERS], keys[ORDERS], keys[OUTBOX], keys[RETURNED])
end

-- ARGV: installation, token, what, … Opens the gate that the token closed, with what has changed meanwhile:
--   same
--   change name product total starts ends paused
--   reset epoch
--   release user
--   delete
local function reopen(keys, args)
  local meta, why = read(keys, args[1])
  if not meta then return { why } end
  if meta.gate ~= args[2] then return { 'closed' } end
  local what = args[3]
  if what == 'delete' then
    empty(keys)
    redis.call('UNLINK', keys[META], keys[STOCK])
    armed[mark(keys, args[1])] = nil
    redis.pcall('PUBLISH', CHANGES, keys[META])
    return { 'ok' }
  end
  if what ~= 'same' then meta.place = meta.place + 1 end
  if what == 'change' then
    local total = tonumber(args[6])
    redis.call('INCRBY', keys[STOCK], text(total - meta.total))
    redis.call('HSET', keys[META], 'name', args[4], 'product', args[5], 'total', args[6], 'starts', args[7],
      'ends', args[8], 'paused', args[9])
  elseif what == 'reset' then
    empty(keys)
    redis.call('SET', keys[STOCK], text(meta.total))
    redis.call('HSET', keys[META], 'epoch', args[4])
    meta.next, meta.confirmed = 1, 0
  elseif what == 'release' then
    give_back(keys, meta, args[4])
  end
  if what ~= 'same' then meta.changed = meta.place end
  redis.call('HSET', keys[META], 'gate', '', 'next', text(meta.next), 'place', text(meta.place),
    'changed', text(meta.changed), 'confirmed', text(meta.confirmed))
  redis.pcall('PUBLISH', CHANGES, keys[META])
  return status(keys, args)
end

-- ARGV: installation, token, generation, epoch, no, name, product, total, starts, ends, paused, place. Forgets the sale, and
-- begins to load it: nothing is decided, and nothing said of it, before it is armed.
local function load_begin(keys, args)
  if tonumber(args[3]) < (floor[args[1]] or 0) then return { 'superseded' } end
  armed[mark(keys, args[1])] = nil
  empty(keys)
  redis.call('UNLINK', keys[META], keys[STOCK])
  redis.call('HSET', keys[META], 'gate', args[2], 'generation', args[3], 'epoch', args[4], 'no', args[5], 'name', args[6],
    'product', args[7], 'total', args[8], 'starts', args[9], 'ends', args[10], 'paused', args[11], 'place', args[12],
    'changed', args[12], 'next', '1', 'confirmed', '0', 'closed_at', text(clock()))
  return { 'ok' }
end

-- ARGV: installation, token, then user and holding of each live order.
local function load_rows(keys, args)
  if redis.call('HGET', keys[META], 'gate') ~= args[2] then return { 'closed' } end
  local rows, users = {}, {}
  for i = 3, #args, 2 do
    users[#users + 1] = args[i]
    rows[#rows + 1] = args[i]
    rows[#rows + 1] = args[i + 1]
  end
  redis.call('HSET', keys[ORDERS], unpack(rows))
  redis.call('SADD', keys[USERS], unpack(users))
  return { 'ok' }
end

-- ARGV: installation, token, then units below the next one that are free.
local function load_returned(keys, args)
  if redis.call('HGET', keys[META], 'gate') ~= args[2] then return { 'closed' } end
  local units = {}
  for i = 3, #args do
    units[#units + 1] = args[i]
    units[#units + 1] = args[i]
  end
  redis.call('ZADD', keys[RETURNED], unpack(units))
  return { 'ok' }
end

-- ARGV: installation, token, next unit, confirmed. Arms the sale and opens its gate.
local function load_end(keys, args)
  if redis.call('HGET', keys[META], 'gate') ~= args[2] then return { 'closed' } end
  local generation = tonumber(redis.call('HGET', keys[META], 'generation'))
  if generation < (floor[args[1]] or 0) then return { 'superseded' } end
  local total = tonumber(redis.call('HGET', keys[META], 'total'))
  local users = redis.call('SCARD', keys[USERS])
  local returned = redis.call('ZCARD', keys[RETURNED])
  if tonumber(args[3]) - 1 - returned ~= users or users > total then return { 'inconsistent' } end
  redis.call('SET', keys[STOCK], text(total - users))
  redis.call('HSET', keys[META], 'gate', '', 'next', args[3], 'confirmed', args[4])
  armed[mark(keys, args[1])] = generation
  redis.pcall('PUBLISH', CHANGES, keys[META])
  return status(keys, args)
end

-- KEYS: index. ARGV: installation, generation. Begins the list of all sales anew.
local function index_begin(keys, args)
  if tonumber(args[2]) < (floor[args[1]] or 0) then return { 'superseded' } end
  redis.call('UNLINK', keys[1])
  -- What is no sale's id: the generation, and whose list it is.
  redis.call('HSET', keys[1], '', args[2], '#', args[1])
  return { 'ok' }
end

-- KEYS: index. ARGV: installation, generation, then id and number of each sale.
local function index_rows(keys, args)
  if redis.call('HGET', keys[1], '') ~= args[2] then return { 'superseded' } end
  redis.call('HSET', keys[1], unpack(args, 3))
  return { 'ok' }
end

-- KEYS: index. ARGV: installation, generation. Arms the list, which is complete.
local function index_end(keys, args)
  local generation = tonumber(args[2])
  if redis.call('HGET', keys[1], '') ~= args[2] or generation < (floor[args[1]] or 0) then return { 'superseded' } end
  armed[mark(keys, args[1])] = generation
  return { 'ok' }
end

-- KEYS: index. ARGV: installation.
local function list(keys, args)
  local generation = redis.call('HGET', keys[1], '')
  if not generation then return { 'missing' } end
  if armed[mark(keys, args[1])] ~= tonumber(generation) then return { 'unarmed' } end
  return { 'ok', generation, redis.call('HGETALL', keys[1]) }
end

-- KEYS: index. ARGV: installation, id. Whether there is such a sale.
local function known(keys, args)
  local generation = redis.call('HGET', keys[1], '')
  if not generation then return { 'missing' } end
  if armed[mark(keys, args[1])] ~= tonumber(generation) then return { 'unarmed' } end
  return { 'ok', text(redis.call('HEXISTS', keys[1], args[2])) }
end

-- ARGV: installation, the generation that will be loaded. Stops all decisions of the installation on this server.
local function disarm(_, args)
  local prefix = args[1] .. ' '
  for key in pairs(armed) do
    if key:sub(1, #prefix) == prefix then armed[key] = nil end
  end
  floor[args[1]] = math.max(floor[args[1]] or 0, tonumber(args[2]))
  return { 'ok' }
end

local function write(name, callback)
  redis.register_function('flashsale_1_' .. name, callback)
end

-- What is to be done also when the memory is full: it frees some of it, or takes hardly any.
local function always(name, callback)
  redis.register_function { function_name = 'flashsale_1_' .. name, callback = callback, flags = { 'allow-oom' } }
end

local function look(name, callback)
  redis.register_function { function_name = 'flashsale_1_' .. name, callback = callback, flags = { 'no-writes' } }
end

write('decide', decide)
always('confirm', confirm)
always('close', close)
always('reopen', reopen)
always('load_begin', load_begin)
always('load_rows', load_rows)
always('load_returned', load_returned)
always('load_end', load_end)
always('index_begin', index_begin)
always('index_rows', index_rows)
always('index_end', index_end)
always('disarm', disarm)
look('status', status)
look('purchase', purchase)
look('list', list)
look('known', known)
