-- The ledger of the embedded profile. One writer; anybody may read it with `sqlite3` while sales run.

-- The sales as they are set up, with what the ledger knows of each sequence.
CREATE TABLE sales (
    -- The sale's number: the upper part of the keys of its trail.
    no          INTEGER PRIMARY KEY CHECK (no BETWEEN 1 AND 1000000),
    id          TEXT    NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 64),
    name        TEXT    NOT NULL,
    total_stock INTEGER NOT NULL CHECK (total_stock BETWEEN 1 AND 10000000),
    starts_at   TEXT    NOT NULL,
    ends_at     TEXT    NOT NULL,
    epoch       INTEGER NOT NULL CHECK (epoch >= 1),
    paused      INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    -- The last place of the sale's sequence that is on record.
    last_place  INTEGER NOT NULL DEFAULT 0,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL,
    CHECK (starts_at < ends_at)
) STRICT;

-- Deleted sales: their trail stays, and should the id come again, its epochs and its sequence go on.
CREATE TABLE retired_sales (
    no         INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    epoch      INTEGER NOT NULL,
    last_place INTEGER NOT NULL,
    deleted_at TEXT    NOT NULL
) STRICT;

-- Reservations and orders are one row: what is RESERVED is the outbox, in the order of `seq`.
CREATE TABLE orders (
    seq          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    sale_id      TEXT    NOT NULL,
    epoch        INTEGER NOT NULL,
    unit         INTEGER NOT NULL CHECK (unit >= 1),
    user_id      TEXT    NOT NULL CHECK (user_id <> ''),
    status       TEXT    NOT NULL CHECK (status IN ('RESERVED', 'CONFIRMED', 'EXPIRED', 'CANCELLED')),
    reserved_at  TEXT    NOT NULL,
    created_at   TEXT    NOT NULL,
    confirmed_at TEXT,
    -- Set when the order ended without a purchase. The unique indexes hang on it, and not on the status, so
    -- that confirming an order touches no index.
    released_at  TEXT,
    CHECK ((released_at IS NULL) = (status IN ('RESERVED', 'CONFIRMED')))
) STRICT;

CREATE UNIQUE INDEX one_live_order_a_user ON orders (sale_id, epoch, user_id) WHERE released_at IS NULL;
CREATE UNIQUE INDEX one_live_order_a_unit ON orders (sale_id, epoch, unit) WHERE released_at IS NULL;

-- The database itself refuses to oversell, and refuses what belongs to another epoch. The transaction ends
-- with the refusal, so that SQLite need not be able to undo each statement alone: that halves its work.
CREATE TRIGGER orders_stay_within_the_stock BEFORE INSERT ON orders
BEGIN
    SELECT RAISE(ROLLBACK, 'the unit is none of the stock, or the order is of another epoch')
    WHERE NOT EXISTS (
        SELECT 1 FROM sales
        WHERE id = NEW.sale_id AND epoch = NEW.epoch AND NEW.unit BETWEEN 1 AND total_stock
    );
END;

CREATE TRIGGER orders_keep_their_unit BEFORE UPDATE OF sale_id, epoch, unit, user_id ON orders
BEGIN
    SELECT RAISE(ROLLBACK, 'an order keeps its sale, epoch, unit and user');
END;

CREATE TRIGGER stock_stays_above_held_units BEFORE UPDATE OF total_stock ON sales
WHEN NEW.total_stock < OLD.total_stock
BEGIN
    SELECT RAISE(ROLLBACK, 'a unit above the new stock is held')
    WHERE EXISTS (
        SELECT 1 FROM orders
        WHERE sale_id = NEW.id AND epoch = NEW.epoch AND released_at IS NULL AND unit > NEW.total_stock
    );
END;

-- One row for each place of a sale's sequence: every attempt with its outcome, and every change.
CREATE TABLE trail (
    -- The sale's number << 40 | the place. Two decisions cannot share a place, and a gap shows.
    key      INTEGER PRIMARY KEY,
    -- See `trail_kinds`.
    kind     INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    -- Milliseconds since 1970-01-01T00:00:00Z.
    at       INTEGER NOT NULL,
    user_id  TEXT    NOT NULL,
    unit     INTEGER,
    order_id TEXT,
    detail   TEXT
) STRICT;

CREATE TABLE trail_kinds (
    kind       INTEGER PRIMARY KEY,
    event_type TEXT    NOT NULL UNIQUE,
    -- As how many events it shows: two for an attempt (ATTEMPTED and the outcome); none for the making of a
    -- sale, which is before all attempts, so that a trail counts what happened to the sale.
    events     INTEGER NOT NULL CHECK (events IN (0, 1, 2))
) STRICT;
INSERT INTO trail_kinds (kind, event_type, events) VALUES
    (1, 'RESERVED', 2),
    (2, 'REJECTED_SOLD_OUT', 2),
    (3, 'REJECTED_DUPLICATE', 2),
    (4, 'REJECTED_NOT_ACTIVE', 2),
    (5, 'CONFIRMED', 1),
    (6, 'EXPIRED', 1),
    (7, 'CANCELLED', 1),
    (8, 'FAILED_DB', 1),
    (9, 'ADMIN_CREATED', 0),
    (10, 'ADMIN_CHANGED', 1),
    (11, 'ADMIN_RESET', 1),
    (12, 'ADMIN_DELETED', 1);

-- The trail as the events that people ask for: ATTEMPTED and the outcome for every attempt, one for the rest.
CREATE VIEW order_audit_trail AS
WITH numbered (no, id) AS (SELECT no, id FROM sales UNION ALL SELECT no, id FROM retired_sales),
     halves (half) AS (VALUES (0), (1))
SELECT 2 * trail.key + half AS id,
       numbered.id AS sale_id,
       trail.user_id AS user_id,
       CASE half WHEN 0 THEN 'ATTEMPTED' ELSE trail_kinds.event_type END AS event_type,
       json_patch(
           json_object('epoch', trail.epoch, 'place', trail.key & 0xFFFFFFFFFF),
           CASE half WHEN 0 THEN '{}' ELSE json_patch(
               json_object('unit', trail.unit, 'orderId', trail.order_id), coalesce(trail.detail, '{}')) END
       ) AS metadata,
       strftime('%Y-%m-%dT%H:%M:%S', trail.at / 1000, 'unixepoch') || printf('.%03dZ', trail.at % 1000)
           AS created_at,
       trail.key AS key
FROM numbered
CROSS JOIN trail ON trail.key > (numbered.no << 40) AND trail.key < ((numbered.no + 1) << 40)
CROSS JOIN trail_kinds ON trail_kinds.kind = trail.kind
CROSS JOIN halves
WHERE half + trail_kinds.events >= 2;
