-- Who came to the console's door, and whether they were let in. Rare rows, and kept for ever.
CREATE TABLE operator_log (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    event   text        NOT NULL CHECK (event IN ('SIGNED_IN', 'SIGN_IN_REFUSED', 'SIGNED_OUT', 'LOCKED_OUT')),
    -- Whose connection it was: behind a load balancer, the balancer's.
    address inet        NOT NULL
);
