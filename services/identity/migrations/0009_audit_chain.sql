-- The events of a product become a chain: each has the next number, and a hash over itself and the one before it.
ALTER TABLE audit_events ADD COLUMN number BIGINT;  -- from 1 without gaps; none: an older version wrote it
ALTER TABLE audit_events ADD COLUMN hash BYTEA;     -- SHA-256 over the hash before, the number and the row's own digest
CREATE UNIQUE INDEX audit_events_by_number ON audit_events (product, number);
CREATE INDEX audit_events_without_number ON audit_events (at, id) WHERE number IS NULL;
DROP INDEX audit_events_by_account;
DROP INDEX audit_events_by_time;
CREATE INDEX audit_events_of_account ON audit_events (product, account_id, number);
CREATE INDEX audit_events_of_kind ON audit_events (product, kind, number);

-- The last event of each product. Who adds one holds this row's lock from there to the commit, and takes it last.
CREATE TABLE audit_heads (
    product TEXT   NOT NULL PRIMARY KEY,
    number  BIGINT NOT NULL,
    hash    BYTEA  NOT NULL
);

-- How far the log is vouched for, under a key that is not in the database. Who changes it holds its lock.
CREATE TABLE audit_seals (
    product       TEXT   NOT NULL PRIMARY KEY,
    pruned_number BIGINT NOT NULL,  -- the last event that was too old and is gone, or 0
    pruned_hash   BYTEA  NOT NULL,  -- its hash, on which the first that is kept stands
    number        BIGINT NOT NULL,  -- the last event that was checked, or 0
    hash          BYTEA  NOT NULL,  -- its hash
    mac           BYTEA  NOT NULL   -- HMAC-SHA-256 over the row
);
