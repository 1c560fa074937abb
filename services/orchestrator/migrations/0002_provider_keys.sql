-- Who has keys; its row is what changes of one account wait for, so that what is counted stays counted.
CREATE TABLE provider_key_owners (
    product    TEXT   NOT NULL,
    account_id TEXT   NOT NULL,
    changes    BIGINT NOT NULL,
    PRIMARY KEY (product, account_id)
);
-- Users' own keys of providers. The key itself is sealed, bound to its row.
CREATE TABLE provider_keys (
    product    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    account_id TEXT    NOT NULL,
    provider   TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    last_four  TEXT    NOT NULL,
    active     BOOLEAN NOT NULL,
    base_url   TEXT    NOT NULL,  -- empty: the provider's own
    key_id     TEXT    NOT NULL,  -- the data key
    sealed     BYTEA   NOT NULL,
    created_at BIGINT  NOT NULL,
    used_at    BIGINT,
    PRIMARY KEY (product, id)
);
CREATE INDEX provider_keys_by_account ON provider_keys (product, account_id, id);
CREATE INDEX provider_keys_by_data_key ON provider_keys (key_id);
-- Calls over them: numbers and names, no text of anybody.
CREATE TABLE provider_key_uses (
    product           TEXT   NOT NULL,
    id                TEXT   NOT NULL,
    provider_key_id   TEXT   NOT NULL,
    account_id        TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    prompt_tokens     BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    outcome           TEXT   NOT NULL,
    created_at        BIGINT NOT NULL,
    PRIMARY KEY (product, id)
);
CREATE INDEX provider_key_uses_by_key ON provider_key_uses (product, account_id, provider_key_id, id);
CREATE INDEX provider_key_uses_by_age ON provider_key_uses (created_at);
