-- API keys. The key itself is not here. One that was revoked is deleted.
CREATE TABLE api_keys (
    product        TEXT   NOT NULL,
    id             TEXT   NOT NULL,  -- UUID v7
    account_id     TEXT   NOT NULL,
    hash           BYTEA  NOT NULL,  -- SHA-256 of the key
    name           TEXT   NOT NULL,
    scopes         TEXT   NOT NULL,  -- with spaces between
    last_four      TEXT   NOT NULL,  -- its last characters
    budget         BIGINT,           -- micro-credits; none: as many as the account has
    created_at     BIGINT NOT NULL,  -- ms since 1970
    expires_at     BIGINT,           -- ms since 1970; none: when it is revoked
    last_used_at   BIGINT,           -- ms since 1970, whole minutes
    last_token_id  TEXT,             -- the greatest `jti` of the access tokens that were given for it
    last_token_exp BIGINT,           -- when the last of them expires, s since 1970
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (product, hash);
CREATE INDEX api_keys_by_account ON api_keys (product, account_id, id);
-- Reports of use name nothing else.
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);
