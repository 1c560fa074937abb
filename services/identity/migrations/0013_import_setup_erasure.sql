-- What stands in for a password hash of a cost that is not our own, if accounts of the product brought such hashes along:
-- computed for wrong passwords, so that their time says nothing.
CREATE TABLE hash_shapes (
    product     TEXT   NOT NULL,
    shape       TEXT   NOT NULL,  -- a hash of nothing, of the same kind and cost
    imported_at BIGINT NOT NULL,  -- the last time somebody brought one along
    PRIMARY KEY (product, shape)
);
ALTER TABLE accounts ADD COLUMN hash_shape TEXT;  -- none: the hash is ours
CREATE INDEX accounts_by_shape ON accounts (product, hash_shape) WHERE hash_shape IS NOT NULL;

-- The link by which a product without an administrator gets its first one.
CREATE TABLE setup_links (
    product    TEXT   NOT NULL PRIMARY KEY,
    hash       TEXT   NOT NULL,  -- id of the secret, dot, HMAC-SHA-256 of the token
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
