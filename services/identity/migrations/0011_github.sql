-- Connections to GitHub that have begun. The state is not here, nor what else belongs to it.
CREATE TABLE github_states (
    product      TEXT   NOT NULL,
    hash         TEXT   NOT NULL,  -- id of the secret, dot, keyed hash of the state
    account_id   TEXT   NOT NULL,
    redirect_uri TEXT   NOT NULL,
    expires_at   BIGINT NOT NULL,
    PRIMARY KEY (product, hash),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE
);
CREATE INDEX github_states_by_account ON github_states (product, account_id);
CREATE INDEX github_states_by_end ON github_states (expires_at);

-- The connection of an account, with its token, which is sealed for this row.
CREATE TABLE github_connections (
    product        TEXT   NOT NULL,
    account_id     TEXT   NOT NULL,
    login          TEXT   NOT NULL,  -- name of the GitHub account
    scopes         TEXT   NOT NULL,  -- with commas between, as GitHub sends them
    connected_at   BIGINT NOT NULL,
    token_id       TEXT   NOT NULL,  -- another one with every token
    key_id         TEXT   NOT NULL,  -- of the data key
    sealed         BYTEA  NOT NULL,
    expires_at     BIGINT,           -- none: the token does not expire
    renewing_until BIGINT,           -- whoever renews it has so long
    failures       BIGINT NOT NULL DEFAULT 0,  -- renewals that GitHub did not answer
    refused_at     BIGINT,           -- when GitHub took it no more
    PRIMARY KEY (product, account_id),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE
);
CREATE INDEX github_connections_by_key ON github_connections (key_id);
