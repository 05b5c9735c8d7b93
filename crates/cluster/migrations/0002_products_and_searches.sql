-- What pages show of a sale beside its name.
ALTER TABLE sales
    ADD COLUMN description text,
    ADD COLUMN image_url   text,
    ADD COLUMN price       numeric,
    ADD COLUMN currency    text,
    ADD CONSTRAINT a_price_has_a_currency CHECK ((price IS NULL) = (currency IS NULL));

-- Orders that ended are found by their sale; while an order is live, this index knows nothing of it.
CREATE INDEX released_orders ON orders (sale_id, seq) WHERE released_at IS NOT NULL;
