-- Which sale a caller's idempotency key of `Charge` is for, kept with the sale: a late retry gets the same sale, also
-- one that was paid back since, and charges nobody again.
CREATE TABLE sale_keys (
    product     TEXT  NOT NULL,
    request_key TEXT  NOT NULL,
    request     BYTEA NOT NULL,  -- SHA-256 of what was asked
    sale_id     TEXT  NOT NULL,
    PRIMARY KEY (product, request_key),
    FOREIGN KEY (product, sale_id) REFERENCES sales (product, id)
);

-- What is forgotten.
CREATE INDEX holds_ended ON holds (expires_at) WHERE state <> 'open';
