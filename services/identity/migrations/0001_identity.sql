-- Accounts belong to a product; so does everything that hangs on them. Times are UTC in ms since 1970
-- unless a name says otherwise.

CREATE TABLE accounts (
    product       TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    email         TEXT   NOT NULL,  -- as registered
    email_folded  TEXT   NOT NULL,  -- in lower case
    password_hash TEXT   NOT NULL,  -- PHC string
    created_at    BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    UNIQUE (product, email_folded)
);

-- One row a login. Whoever changes anything about a session's tokens updates its row first, and so holds its lock.
CREATE TABLE sessions (
    product      TEXT   NOT NULL,
    id           TEXT   NOT NULL,  -- the claim sid
    account_id   TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    refreshed_at BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,  -- absolute: refreshing does not move it
    ended_at     BIGINT,
    end_reason   TEXT,             -- logout, replay
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id)
);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- One row a pair of tokens.
CREATE TABLE refresh_tokens (
    product        TEXT   NOT NULL,
    hash           TEXT   NOT NULL,  -- id of the secret, dot, HMAC-SHA-256 of the token
    session_id     TEXT   NOT NULL,
    issued_at      BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    access_id      TEXT   NOT NULL,  -- the claim jti of the pair's access token
    access_exp     BIGINT NOT NULL,  -- the claim exp, in s
    access_seen_at BIGINT,           -- when a use of that access token was first reported
    consumed_at    BIGINT,           -- when it was exchanged
    successor      TEXT,             -- hash of the token it was exchanged for
    sealed         BYTEA,            -- the successor pair, for ten seconds, under a key made of this token
    revoked_at     BIGINT,           -- withdrawn: the answer that carried it seemed lost
    PRIMARY KEY (product, hash),
    FOREIGN KEY (product, session_id) REFERENCES sessions (product, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX refresh_tokens_by_access ON refresh_tokens (access_id);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (product, session_id, access_exp);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_at);
CREATE INDEX refresh_tokens_sealed ON refresh_tokens (consumed_at) WHERE sealed IS NOT NULL;

-- Ed25519 seeds, sealed under the identity secret. `number` decides which of several first starts made the key.
CREATE TABLE signing_keys (
    number     BIGINT NOT NULL PRIMARY KEY,
    kid        TEXT   NOT NULL UNIQUE,
    sealed     BYTEA  NOT NULL,
    created_at BIGINT NOT NULL
);

-- Sessions that ended, and access tokens that were withdrawn, while the tokens were still valid.
CREATE TABLE revocations (
    position   BIGINT NOT NULL PRIMARY KEY,
    ended_id   TEXT   NOT NULL,  -- the claim sid or jti
    expires_at BIGINT NOT NULL
);
CREATE INDEX revocations_by_end ON revocations (expires_at);

-- The last position given out. Its row stays locked until the transaction that took a position ends, so
-- positions become visible in their order and a reader who has seen one has seen all before it.
CREATE TABLE revocation_position (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    position BIGINT NOT NULL
);
INSERT INTO revocation_position (id, position) VALUES (1, 0);

-- Logins that failed within the last minutes: too many of one address, and its logins are refused for a while. An
-- address that nobody has counts like any other.
CREATE TABLE login_failures (
    product TEXT   NOT NULL,
    address TEXT   NOT NULL,  -- HMAC-SHA-256 of the address in lower case: it may be a mistyped password
    at      BIGINT NOT NULL,
    id      TEXT   NOT NULL,
    PRIMARY KEY (product, address, at, id)
);
CREATE INDEX login_failures_by_time ON login_failures (at);

-- What happened to accounts. No address, no token, no password.
CREATE TABLE audit_events (
    id         TEXT   NOT NULL PRIMARY KEY,
    product    TEXT   NOT NULL,
    kind       TEXT   NOT NULL,  -- register, login_failed, logout, refresh_replay
    account_id TEXT,             -- none: nobody has the address that was tried
    session_id TEXT,
    request_id TEXT   NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX audit_events_by_account ON audit_events (product, account_id, at);
CREATE INDEX audit_events_by_time ON audit_events (at);
