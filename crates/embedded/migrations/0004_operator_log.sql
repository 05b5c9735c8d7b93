-- Who came to the console's door, and whether they were let in. Rare rows, and kept for ever.
CREATE TABLE operator_log (
    id      INTEGER PRIMARY KEY,
    at      TEXT    NOT NULL,
    event   TEXT    NOT NULL CHECK (event IN ('SIGNED_IN', 'SIGN_IN_REFUSED', 'SIGNED_OUT', 'LOCKED_OUT')),
    -- Whose connection it was: behind a proxy, the proxy's.
    address TEXT    NOT NULL
) STRICT;
