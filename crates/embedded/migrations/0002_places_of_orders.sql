-- Where a reservation stands in its sale's sequence; 0 where it was made before this was kept.
ALTER TABLE orders ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
