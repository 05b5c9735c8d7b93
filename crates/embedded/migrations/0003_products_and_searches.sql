-- What pages show of a sale beside its name. The price is a decimal in text, exact: SQLite has no decimal numbers.
ALTER TABLE sales ADD COLUMN description TEXT;
ALTER TABLE sales ADD COLUMN image_url TEXT;
ALTER TABLE sales ADD COLUMN price TEXT;
ALTER TABLE sales ADD COLUMN currency TEXT CHECK ((price IS NULL) = (currency IS NULL));

-- Orders that ended are found by their sale; while an order is live, this index knows nothing of it.
CREATE INDEX released_orders ON orders (sale_id, seq) WHERE released_at IS NOT NULL;

-- The events of all trails by their key, so that a page of them is one range of keys. Through the view below SQLite would
-- take the sale's first key as the start, and go through all that lies before the page.
DROP VIEW order_audit_trail;
CREATE VIEW trail_events AS
SELECT 2 * trail.key + halves.half AS id,
       trail.user_id AS user_id,
       CASE halves.half WHEN 0 THEN 'ATTEMPTED' ELSE trail_kinds.event_type END AS event_type,
       json_patch(
           json_object('epoch', trail.epoch, 'place', trail.key & 0xFFFFFFFFFF),
           CASE halves.half WHEN 0 THEN '{}' ELSE json_patch(
               json_object('unit', trail.unit, 'orderId', trail.order_id), coalesce(trail.detail, '{}')) END
       ) AS metadata,
       strftime('%Y-%m-%dT%H:%M:%S', trail.at / 1000, 'unixepoch') || printf('.%03dZ', trail.at % 1000)
           AS created_at,
       trail.key AS key
FROM trail
CROSS JOIN trail_kinds ON trail_kinds.kind = trail.kind
CROSS JOIN (SELECT 0 AS half UNION ALL SELECT 1) AS halves
WHERE halves.half + trail_kinds.events >= 2;

-- The trail as the events that people ask for: ATTEMPTED and the outcome for every attempt, one for the rest.
CREATE VIEW order_audit_trail AS
SELECT trail_events.id AS id, numbered.id AS sale_id, user_id, event_type, metadata, created_at, key
FROM (SELECT no, id FROM sales UNION ALL SELECT no, id FROM retired_sales) AS numbered
CROSS JOIN trail_events ON key > (numbered.no << 40) AND key < ((numbered.no + 1) << 40);
