-- Who pays: one customer of Stripe's for an account. Whoever applies an event of an account locks its row first, so
-- that facts which belong together and arrive at once see each other.
CREATE TABLE customers (
    product     TEXT   NOT NULL,
    user_id     TEXT   NOT NULL,  -- a user's or an organisation's
    customer_id TEXT,             -- null: an account that events named before it had a customer
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (product, user_id),
    UNIQUE (product, customer_id)
);

-- Subscriptions as Stripe last told of them. What counts for an account is derived from these rows and noted in
-- `accounts` in the same transaction.
CREATE TABLE subscriptions (
    product              TEXT    NOT NULL,
    id                   TEXT    NOT NULL,  -- Stripe's
    user_id              TEXT    NOT NULL,
    item_id              TEXT    NOT NULL,  -- Stripe's id of its one item; empty until Stripe has told it
    plan                 TEXT    NOT NULL,
    plan_version         BIGINT  NOT NULL,
    price_id             TEXT    NOT NULL,
    status               TEXT    NOT NULL,
    seats                BIGINT  NOT NULL,
    period_end           BIGINT  NOT NULL,  -- ms
    cancel_at_period_end BOOLEAN NOT NULL,
    created_at           BIGINT  NOT NULL,  -- ms, Stripe's
    -- The evidence behind the row. Greater evidence replaces all of it, so the order of arrival does not matter.
    evidence             BIGINT  NOT NULL,  -- 0: inferred from a payment, 1: told by Stripe, 2: ended
    event_created        BIGINT  NOT NULL,  -- s
    event_rank           BIGINT  NOT NULL,
    event_id             TEXT    NOT NULL,
    PRIMARY KEY (product, id),
    CHECK (seats >= 1),
    CHECK (evidence BETWEEN 0 AND 2)
);
CREATE INDEX subscriptions_of_account ON subscriptions (product, user_id);
CREATE INDEX subscriptions_of_plan ON subscriptions (product, plan, plan_version);
CREATE INDEX subscriptions_due ON subscriptions (product, period_end);

-- Money that came in.
CREATE TABLE payments (
    product        TEXT   NOT NULL,
    id             TEXT   NOT NULL,  -- made from Stripe's id of `source`
    user_id        TEXT   NOT NULL,
    kind           TEXT   NOT NULL,
    item           TEXT   NOT NULL,  -- id of the package or price
    source         TEXT   NOT NULL,  -- Stripe's id of the checkout session or invoice
    amount_minor   BIGINT NOT NULL,
    currency       TEXT   NOT NULL,
    credits        BIGINT NOT NULL,  -- what it brought, in micro-credits
    refunded_minor BIGINT NOT NULL,
    disputed_minor BIGINT NOT NULL,  -- what the payer's bank holds or has kept
    clawed         BIGINT NOT NULL,  -- what was ever taken back of the credits
    restored       BIGINT NOT NULL,  -- what of that was given back
    created_at     BIGINT NOT NULL,  -- ms, Stripe's
    PRIMARY KEY (product, id),
    UNIQUE (product, source),
    CHECK (kind IN ('package', 'invoice')),
    CHECK (amount_minor >= 0 AND credits >= 0 AND refunded_minor >= 0 AND disputed_minor >= 0),
    CHECK (restored >= 0 AND restored <= clawed)
);
CREATE INDEX payments_of_account ON payments (product, user_id, created_at, id);

-- Which payment intent or charge paid what. Refunds and disputes name these, and may come before the payment.
CREATE TABLE payment_links (
    product TEXT NOT NULL,
    paid_by TEXT NOT NULL,  -- Stripe's id of a payment intent or charge
    source  TEXT NOT NULL,
    PRIMARY KEY (product, paid_by)
);
CREATE INDEX payment_links_of_source ON payment_links (product, source);

-- What went back of a charge; only ever more.
CREATE TABLE refunded_charges (
    product        TEXT   NOT NULL,
    charge_id      TEXT   NOT NULL,
    payment_intent TEXT   NOT NULL,  -- empty: none
    user_id        TEXT   NOT NULL,
    currency       TEXT   NOT NULL,
    refunded_minor BIGINT NOT NULL,
    PRIMARY KEY (product, charge_id)
);
CREATE INDEX refunded_charges_of_account ON refunded_charges (product, user_id);

-- Disputes: the bank takes the money, and may give it back once.
CREATE TABLE disputes (
    product        TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    charge_id      TEXT    NOT NULL,
    payment_intent TEXT    NOT NULL,  -- empty: none
    user_id        TEXT    NOT NULL,
    amount_minor   BIGINT  NOT NULL,
    taken          BOOLEAN NOT NULL,
    returned       BOOLEAN NOT NULL,
    PRIMARY KEY (product, id)
);
CREATE INDEX disputes_of_account ON disputes (product, user_id);

-- Every event that was ours, with what became of it. Stripe's ids are unique among all products.
CREATE TABLE stripe_events (
    product     TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    outcome     TEXT   NOT NULL,
    created     BIGINT NOT NULL,  -- s, Stripe's
    received_at BIGINT NOT NULL,  -- ms
    PRIMARY KEY (product, id),
    UNIQUE (id),
    CHECK (outcome IN ('applied', 'stale'))
);
CREATE INDEX stripe_events_by_age ON stripe_events (received_at);

-- Up to when the events that Stripe lists have been compared with the inbox.
CREATE TABLE stripe_syncs (
    product TEXT   NOT NULL,
    synced  BIGINT NOT NULL,  -- s
    PRIMARY KEY (product)
);

-- Who sat down before whom: with fewer seats than people, the first ones sit.
ALTER TABLE accounts ADD COLUMN seat_order BIGINT NOT NULL DEFAULT 0;
CREATE INDEX accounts_seated ON accounts (product, payer_id, seat_order, user_id);

-- Refunds that an administrator asked for, written down before Stripe is asked.
CREATE TABLE payment_refunds (
    product      TEXT   NOT NULL,
    id           TEXT   NOT NULL,
    payment_id   TEXT   NOT NULL,
    admin_id     TEXT   NOT NULL,
    request_key  TEXT   NOT NULL,  -- the administrator's idempotency key
    request      BYTEA  NOT NULL,  -- SHA-256 of the request it came with
    amount_minor BIGINT NOT NULL,
    status       TEXT   NOT NULL,
    tries        BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    UNIQUE (product, admin_id, request_key),
    FOREIGN KEY (product, payment_id) REFERENCES payments (product, id),
    CHECK (status IN ('pending', 'done', 'failed')),
    CHECK (amount_minor > 0)
);
CREATE INDEX payment_refunds_of_payment ON payment_refunds (product, payment_id);
