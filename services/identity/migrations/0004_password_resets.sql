-- Each mail with a link has a token of its own. It is gone when it was used, and so are all others of the account.
CREATE TABLE password_resets (
    product    TEXT   NOT NULL,
    hash       TEXT   NOT NULL,  -- id of the secret, dot, HMAC-SHA-256 of the token
    account_id TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    sent_at    BIGINT,           -- when its mail was handed over
    PRIMARY KEY (product, hash),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE
);
CREATE INDEX password_resets_by_account ON password_resets (product, account_id, created_at);
CREATE INDEX password_resets_by_end ON password_resets (expires_at);
