-- Live orders by their unit, and ended ones by where they ended: a row each, as small as it can be, and one index less on the
-- way of a purchase. `orders` shows both as one, in words (ADR 0014).

DROP TRIGGER stock_stays_above_held_units;
ALTER TABLE orders RENAME TO orders_before;

-- Reservations and orders are one row: what is not confirmed is the outbox.
CREATE TABLE live_orders (
    -- The sale's number << 40 | the unit: two live orders cannot hold the same unit.
    key          INTEGER PRIMARY KEY,
    -- Where the reservation stands in its sale's sequence; 0 where it was made before this was kept.
    place        INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    confirmed    INTEGER NOT NULL CHECK (confirmed IN (0, 1)),
    -- Milliseconds since 1970-01-01T00:00:00Z.
    reserved_at  INTEGER NOT NULL,
    -- Until it is confirmed, when it was reserved: a row that does not grow stays in its page.
    confirmed_at INTEGER NOT NULL,
    -- The 16 bytes of a UUID. Unchecked: to call a function, SQLite would keep a journal of each statement.
    id           BLOB    NOT NULL UNIQUE,
    user_id      TEXT    NOT NULL CHECK (user_id <> '')
) STRICT;

-- Orders that ended without a purchase.
CREATE TABLE ended_orders (
    -- The sale's number << 40 | the place at which it ended.
    key          INTEGER PRIMARY KEY,
    unit         INTEGER NOT NULL,
    place        INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    status       TEXT    NOT NULL CHECK (status = 'EXPIRED' OR status = 'CANCELLED'),
    reserved_at  INTEGER NOT NULL,
    confirmed_at INTEGER,
    released_at  INTEGER NOT NULL,
    id           BLOB    NOT NULL UNIQUE,
    user_id      TEXT    NOT NULL
) STRICT;

INSERT INTO live_orders
SELECT (sales.no << 40) | unit, place, orders_before.epoch, status = 'CONFIRMED',
    unixepoch(reserved_at) * 1000 + substr(reserved_at, 21, 3),
    unixepoch(coalesce(confirmed_at, reserved_at)) * 1000 + substr(coalesce(confirmed_at, reserved_at), 21, 3),
    unhex(orders_before.id, '-'), user_id
FROM orders_before JOIN sales ON sales.id = sale_id WHERE released_at IS NULL ORDER BY 1;

INSERT INTO ended_orders
SELECT trail.key, orders_before.unit, place, orders_before.epoch, status,
    unixepoch(reserved_at) * 1000 + substr(reserved_at, 21, 3),
    unixepoch(confirmed_at) * 1000 + substr(confirmed_at, 21, 3),
    unixepoch(released_at) * 1000 + substr(released_at, 21, 3),
    unhex(orders_before.id, '-'), orders_before.user_id
FROM trail JOIN orders_before ON orders_before.id = trail.order_id
WHERE trail.kind IN (6, 7) AND released_at IS NOT NULL ORDER BY 1;

DROP TABLE orders_before;

-- The user comes first, because that is what tells rows apart.
CREATE UNIQUE INDEX one_live_order_a_user ON live_orders (user_id, key >> 40);

-- The database itself refuses to oversell, and refuses what belongs to another epoch. The transaction ends
-- with the refusal, so that SQLite need not be able to undo each statement alone: that halves its work.
CREATE TRIGGER orders_stay_within_the_stock BEFORE INSERT ON live_orders
BEGIN
    SELECT RAISE(ROLLBACK, 'the unit is none of the stock, or the order is of another epoch')
    WHERE NOT EXISTS (
        SELECT 1 FROM sales
        WHERE no = NEW.key >> 40 AND epoch = NEW.epoch AND NEW.key & 0xFFFFFFFFFF BETWEEN 1 AND total_stock
    );
END;

CREATE TRIGGER orders_keep_their_unit BEFORE UPDATE OF key, id, epoch, user_id ON live_orders
BEGIN
    SELECT RAISE(ROLLBACK, 'an order keeps its sale, epoch, unit and user');
END;

CREATE TRIGGER stock_stays_above_held_units BEFORE UPDATE OF total_stock ON sales
WHEN NEW.total_stock < OLD.total_stock
BEGIN
    SELECT RAISE(ROLLBACK, 'a unit above the new stock is held')
    WHERE EXISTS (
        SELECT 1 FROM live_orders
        WHERE key > (NEW.no << 40) + max(NEW.total_stock, 0) AND key < (NEW.no + 1) << 40
    );
END;

-- All orders as people ask for them, to be read only. The range of keys lets one sale be read alone.
CREATE VIEW orders AS
SELECT lower(substr(hex(live.id), 1, 8) || '-' || substr(hex(live.id), 9, 4) || '-' || substr(hex(live.id), 13, 4) || '-'
           || substr(hex(live.id), 17, 4) || '-' || substr(hex(live.id), 21)) AS id,
       sales.id AS sale_id,
       live.epoch AS epoch,
       live.key & 0xFFFFFFFFFF AS unit,
       live.user_id AS user_id,
       CASE live.confirmed WHEN 1 THEN 'CONFIRMED' ELSE 'RESERVED' END AS status,
       strftime('%Y-%m-%dT%H:%M:%S', reserved_at / 1000, 'unixepoch') || printf('.%03dZ', reserved_at % 1000) AS reserved_at,
       strftime('%Y-%m-%dT%H:%M:%S', reserved_at / 1000, 'unixepoch') || printf('.%03dZ', reserved_at % 1000) AS created_at,
       CASE live.confirmed WHEN 1 THEN
           strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000)
       END AS confirmed_at,
       NULL AS released_at,
       live.place AS place
FROM sales CROSS JOIN live_orders AS live ON live.key > (sales.no << 40) AND live.key < ((sales.no + 1) << 40)
UNION ALL
SELECT lower(substr(hex(ended.id), 1, 8) || '-' || substr(hex(ended.id), 9, 4) || '-' || substr(hex(ended.id), 13, 4) || '-'
           || substr(hex(ended.id), 17, 4) || '-' || substr(hex(ended.id), 21)),
       sales.id,
       ended.epoch,
       ended.unit,
       ended.user_id,
       ended.status,
       strftime('%Y-%m-%dT%H:%M:%S', reserved_at / 1000, 'unixepoch') || printf('.%03dZ', reserved_at % 1000),
       strftime('%Y-%m-%dT%H:%M:%S', reserved_at / 1000, 'unixepoch') || printf('.%03dZ', reserved_at % 1000),
       strftime('%Y-%m-%dT%H:%M:%S', confirmed_at / 1000, 'unixepoch') || printf('.%03dZ', confirmed_at % 1000),
       strftime('%Y-%m-%dT%H:%M:%S', released_at / 1000, 'unixepoch') || printf('.%03dZ', released_at % 1000),
       ended.place
FROM sales CROSS JOIN ended_orders AS ended ON ended.key > (sales.no << 40) AND ended.key < ((sales.no + 1) << 40);
