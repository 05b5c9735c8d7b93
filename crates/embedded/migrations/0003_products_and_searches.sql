-- What pages show of a sale beside its name. The price is a decimal in text, exact: SQLite has no decimal numbers.
ALTER TABLE sales ADD COLUMN description TEXT;
ALTER TABLE sales ADD COLUMN image_url TEXT;
ALTER TABLE sales ADD COLUMN price TEXT;
ALTER TABLE sales ADD COLUMN currency TEXT CHECK ((price IS NULL) = (currency IS NULL));

-- Orders that ended are found by their sale; while an order is live, this index knows nothing of it.
CREATE INDEX released_orders ON orders (sale_id, seq) WHERE released_at IS NOT NULL;
