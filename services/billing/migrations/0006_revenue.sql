-- The marketplace's money. What Stripe is asked to do is written down before it is asked, so that a crash in between is
-- finished by the next call or by housekeeping: rows are `pending`, then `paid`, `done` or `failed`. `tries` is the part
-- of Stripe's idempotency key that changes once Stripe has answered with a failure that it remembers for the old key.

-- Who sells. The row is also the lock under which a developer's money moves.
CREATE TABLE developers (
    product      TEXT   NOT NULL,
    developer_id TEXT   NOT NULL,
    id           TEXT   NOT NULL,  -- what the account's idempotency key is made of
    account_id   TEXT,             -- Stripe's; none while nobody opened one
    moves        BIGINT NOT NULL,  -- the number of the last movement
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (product, developer_id)
);

-- One live row for each buyer and item; a sale that was paid back in full is no longer live.
CREATE TABLE sales (
    product        TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    buyer_id       TEXT    NOT NULL,
    developer_id   TEXT    NOT NULL,
    item_id        TEXT    NOT NULL,
    amount_minor   BIGINT  NOT NULL,
    currency       TEXT    NOT NULL,
    status         TEXT    NOT NULL,
    live           BOOLEAN NOT NULL,
    tries          BIGINT  NOT NULL,
    payment_intent TEXT,             -- Stripe's, known before it is confirmed: it charges at most once
    refunded_minor BIGINT  NOT NULL, -- all that Stripe reported so far
    disputed_minor BIGINT  NOT NULL, -- with the bank until it has decided
    lost_minor     BIGINT  NOT NULL, -- kept by the bank
    created_at     BIGINT  NOT NULL,
    touched_at     BIGINT  NOT NULL,
    PRIMARY KEY (product, id),
    CHECK (status IN ('pending', 'failed', 'paid')),
    CHECK (amount_minor BETWEEN 0 AND 1000000000),
    CHECK (refunded_minor >= 0 AND disputed_minor >= 0 AND lost_minor >= 0)
);
CREATE UNIQUE INDEX sales_live ON sales (product, buyer_id, item_id) WHERE live;
CREATE UNIQUE INDEX sales_payment_intent ON sales (product, payment_intent);
CREATE INDEX sales_pending ON sales (touched_at) WHERE status = 'pending';

CREATE TABLE sale_refunds (
    product      TEXT   NOT NULL,
    id           TEXT   NOT NULL,
    sale_id      TEXT   NOT NULL,
    request_key  TEXT   NOT NULL,  -- the caller's idempotency key
    request      BYTEA  NOT NULL,  -- SHA-256 of the request it came with
    amount_minor BIGINT NOT NULL,
    status       TEXT   NOT NULL,
    tries        BIGINT NOT NULL,
    refund_id    TEXT,             -- Stripe's
    created_at   BIGINT NOT NULL,
    touched_at   BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    UNIQUE (product, request_key),
    FOREIGN KEY (product, sale_id) REFERENCES sales (product, id),
    CHECK (status IN ('pending', 'done', 'failed')),
    CHECK (amount_minor > 0)
);
CREATE INDEX sale_refunds_sale ON sale_refunds (product, sale_id);
CREATE INDEX sale_refunds_pending ON sale_refunds (touched_at) WHERE status = 'pending';

-- `rank` orders what a dispute can be, so that late events change nothing.
CREATE TABLE sale_disputes (
    product      TEXT   NOT NULL,
    id           TEXT   NOT NULL,  -- Stripe's
    sale_id      TEXT   NOT NULL,
    amount_minor BIGINT NOT NULL,
    status       TEXT   NOT NULL,
    rank         BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, sale_id) REFERENCES sales (product, id),
    CHECK (status IN ('inquiry', 'open', 'won', 'lost'))
);
CREATE INDEX sale_disputes_sale ON sale_disputes (product, sale_id);

-- Every movement; append-only.
CREATE TABLE revenue_events (
    product         TEXT   NOT NULL,
    id              TEXT   NOT NULL,
    developer_id    TEXT   NOT NULL,
    sequence        BIGINT NOT NULL,  -- among the developer's
    kind            TEXT   NOT NULL,
    sale_id         TEXT   NOT NULL,
    buyer_id        TEXT   NOT NULL,
    item_id         TEXT   NOT NULL,
    amount_minor    BIGINT NOT NULL,
    developer_minor BIGINT NOT NULL,
    platform_minor  BIGINT NOT NULL,
    currency        TEXT   NOT NULL,
    period          TEXT   NOT NULL,  -- UTC month of the movement
    sales           BIGINT NOT NULL,  -- 1: a sale, -1: all of it is gone, 0: neither
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    UNIQUE (product, developer_id, sequence),
    FOREIGN KEY (product, sale_id) REFERENCES sales (product, id),
    CHECK (kind IN ('sale', 'refund', 'dispute', 'dispute_won')),
    CHECK (amount_minor = developer_minor + platform_minor)
);
CREATE INDEX revenue_events_sale ON revenue_events (product, sale_id);
CREATE INDEX revenue_events_by_time ON revenue_events (product, created_at);

-- The sums of the events and of the payouts by period.
CREATE TABLE earnings (
    product      TEXT   NOT NULL,
    developer_id TEXT   NOT NULL,
    currency     TEXT   NOT NULL,
    period       TEXT   NOT NULL,
    earned_minor BIGINT NOT NULL,
    paid_minor   BIGINT NOT NULL,  -- paid out, or about to be, less what was reversed or is about to be
    sales        BIGINT NOT NULL,
    PRIMARY KEY (product, developer_id, currency, period)
);

CREATE TABLE payouts (
    product        TEXT   NOT NULL,
    id             TEXT   NOT NULL,
    developer_id   TEXT   NOT NULL,
    period         TEXT   NOT NULL,
    currency       TEXT   NOT NULL,
    amount_minor   BIGINT NOT NULL,
    status         TEXT   NOT NULL,
    tries          BIGINT NOT NULL,
    transfer_id    TEXT,              -- Stripe's
    reversed_minor BIGINT NOT NULL,   -- reversed, or about to be
    created_at     BIGINT NOT NULL,
    touched_at     BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    UNIQUE (product, developer_id, period, currency),
    CHECK (status IN ('pending', 'paid', 'failed')),
    CHECK (amount_minor > 0),
    CHECK (reversed_minor BETWEEN 0 AND amount_minor)
);
CREATE INDEX payouts_pending ON payouts (touched_at) WHERE status = 'pending';

CREATE TABLE transfer_reversals (
    product      TEXT   NOT NULL,
    id           TEXT   NOT NULL,
    payout_id    TEXT   NOT NULL,
    amount_minor BIGINT NOT NULL,
    status       TEXT   NOT NULL,
    tries        BIGINT NOT NULL,
    reversal_id  TEXT,              -- Stripe's
    created_at   BIGINT NOT NULL,
    touched_at   BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, payout_id) REFERENCES payouts (product, id),
    CHECK (status IN ('pending', 'done', 'failed')),
    CHECK (amount_minor > 0)
);
CREATE INDEX transfer_reversals_payout ON transfer_reversals (product, payout_id);
CREATE INDEX transfer_reversals_pending ON transfer_reversals (touched_at) WHERE status = 'pending';

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
