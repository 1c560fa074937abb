-- What an account has in each bucket, in micro-credits. The buckets include what is held of them. `version` grows with
-- every change of the row or of one of its holds: who has the version knows all of it.
CREATE TABLE wallets (
    product        TEXT   NOT NULL,
    user_id        TEXT   NOT NULL,
    version        BIGINT NOT NULL,  -- 0: made by the transaction that is about to use it for the first time
    seq            BIGINT NOT NULL,  -- number of the last row of its ledger
    head           BYTEA  NOT NULL,  -- hash of that row; zeros before the first
    daily          BIGINT NOT NULL,
    bonus          BIGINT NOT NULL,
    purchased      BIGINT NOT NULL,
    daily_held     BIGINT NOT NULL,
    bonus_held     BIGINT NOT NULL,
    purchased_held BIGINT NOT NULL,
    debt           BIGINT NOT NULL,
    day            BIGINT NOT NULL,  -- UTC day of the daily bucket, days since 1970
    daily_granted  BIGINT NOT NULL,  -- what the plan gave for that day
    updated_at     BIGINT NOT NULL,  -- ms since 1970; no row of its ledger is younger
    PRIMARY KEY (product, user_id),
    CHECK (daily_held BETWEEN 0 AND daily),
    CHECK (bonus_held BETWEEN 0 AND bonus),
    CHECK (purchased_held BETWEEN 0 AND purchased),
    CHECK (debt >= 0)
);

-- Every movement, never changed: `amount` came into a bucket from an account, or left it to there.
CREATE TABLE ledger_entries (
    product       TEXT   NOT NULL,
    user_id       TEXT   NOT NULL,
    seq           BIGINT NOT NULL,  -- from 1, without gaps
    id            TEXT   NOT NULL,
    bucket        TEXT   NOT NULL,
    kind          TEXT   NOT NULL,
    account       TEXT   NOT NULL,
    amount        BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    reference     TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,  -- ms since 1970; never before the row before it
    hash          BYTEA  NOT NULL,  -- of the hash of the row before it and of every column
    PRIMARY KEY (product, user_id, seq),
    CHECK (amount <> 0)
);

-- The other side of the movements: with the buckets of all wallets it adds up to 0 at every commit. In parts, so that
-- processes do not wait for each other.
CREATE TABLE ledger_totals (
    product TEXT   NOT NULL,
    account TEXT   NOT NULL,
    shard   BIGINT NOT NULL,
    balance BIGINT NOT NULL,
    PRIMARY KEY (product, account, shard),
    -- SQLite would go on with a rounded number.
    CHECK (balance BETWEEN -9000000000000000000 AND 9000000000000000000)
);

-- Credits set aside for a call.
CREATE TABLE holds (
    product    TEXT    NOT NULL,
    user_id    TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    state      TEXT    NOT NULL,  -- open, settled, voided, expired
    daily      BIGINT  NOT NULL,  -- what it took of each bucket
    bonus      BIGINT  NOT NULL,
    purchased  BIGINT  NOT NULL,
    day        BIGINT  NOT NULL,  -- whose daily bucket it took from
    charged    BIGINT  NOT NULL,
    progress   BIGINT  NOT NULL,
    reported   BIGINT  NOT NULL,  -- what the call has cost, also if the hold does not cover it
    capped     BOOLEAN NOT NULL,
    ttl_ms     BIGINT  NOT NULL,
    created_at BIGINT  NOT NULL,
    expires_at BIGINT  NOT NULL,
    reference  TEXT    NOT NULL,
    PRIMARY KEY (product, user_id, id),
    CHECK (state IN ('open', 'settled', 'voided', 'expired')),
    CHECK (charged BETWEEN 0 AND daily + bonus + purchased),
    CHECK (progress BETWEEN 0 AND daily + bonus + purchased)
);

-- What the sweeper looks for.
CREATE INDEX holds_open ON holds (expires_at) WHERE state = 'open';

-- What is forgotten.
CREATE INDEX holds_ended ON holds (expires_at) WHERE state <> 'open';

-- The answers of calls that must not happen twice.
CREATE TABLE idempotency_keys (
    product    TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    method     TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    request    BYTEA  NOT NULL,  -- SHA-256 of what was asked
    answer     BYTEA  NOT NULL,
    created_at BIGINT NOT NULL,  -- ms since 1970
    PRIMARY KEY (product, user_id, method, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
