-- Live orders without an index of their ids: it cost a tenth of what SQLite does for a purchase, and served a search that goes
-- through the orders of one sale as well (ADR 0014). SQLite cannot drop what a column's UNIQUE made, so the table is written anew.

DROP VIEW orders;
DROP TRIGGER stock_stays_above_held_units;
ALTER TABLE live_orders RENAME TO live_orders_before;

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
    id           BLOB    NOT NULL,
    user_id      TEXT    NOT NULL CHECK (user_id <> '')
) STRICT;

INSERT INTO live_orders
SELECT key, place, epoch, confirmed, reserved_at, confirmed_at, id, user_id FROM live_orders_before ORDER BY key;

-- With its index and its triggers.
DROP TABLE live_orders_before;

CREATE UNIQUE INDEX one_live_order_a_user ON live_orders (user_id, key >> 40);

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
