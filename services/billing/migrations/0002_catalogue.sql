-- Plans get versions: whoever has subscribed to one stays on it. A plan's prices belong to a version and never change
-- in it; its numbers and models do. `version` is the current one: of new subscribers, and of everybody who is on the
-- plan without a subscription.
ALTER TABLE plans ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

CREATE TABLE plan_versions (
    product       TEXT   NOT NULL,
    plan          TEXT   NOT NULL,
    version       BIGINT NOT NULL,
    seeded_prices TEXT,             -- the prices of the manifest that it was seeded with; other rows in `prices` are an administrator's
    created_at    BIGINT NOT NULL,  -- ms since 1970; 0: before there were versions
    PRIMARY KEY (product, plan, version),
    FOREIGN KEY (product, plan) REFERENCES plans (product, slug),
    CHECK (version >= 1)
);

INSERT INTO plan_versions (product, plan, version, seeded_prices, created_at)
SELECT product, slug, 1, NULL, 0 FROM plans;

CREATE TABLE prices (
    product       TEXT    NOT NULL,
    plan          TEXT    NOT NULL,
    version       BIGINT  NOT NULL,
    id            TEXT    NOT NULL,  -- under which a client buys it; another plan does not have it
    position      BIGINT  NOT NULL,  -- place in the manifest
    amount_minor  BIGINT  NOT NULL,
    currency      TEXT    NOT NULL,
    period        TEXT    NOT NULL,  -- month, year
    per_seat      BOOLEAN NOT NULL,
    bonus_credits BIGINT  NOT NULL,  -- micro-credits with each paid invoice
    PRIMARY KEY (product, plan, version, id),
    FOREIGN KEY (product, plan, version) REFERENCES plan_versions (product, plan, version),
    CHECK (amount_minor >= 1),
    CHECK (bonus_credits >= 0),
    CHECK (period IN ('month', 'year'))
);

CREATE INDEX prices_by_id ON prices (product, id);

-- One row a number, so that each remembers for itself what it was seeded with. Where `value` is not `seeded` an
-- administrator has set it, and no manifest changes it again; setting it back to `seeded` undoes that.
ALTER TABLE plan_values RENAME TO plan_values_of_the_first_version;

CREATE TABLE plan_values (
    product TEXT   NOT NULL,
    plan    TEXT   NOT NULL,
    version BIGINT NOT NULL,
    kind    TEXT   NOT NULL,  -- feature: 1 if the plan has it, else 0; limit; rate; credits: micro-credits
    name    TEXT   NOT NULL,
    value   BIGINT,           -- null: unlimited
    seeded  BIGINT,
    PRIMARY KEY (product, plan, version, kind, name),
    FOREIGN KEY (product, plan, version) REFERENCES plan_versions (product, plan, version),
    CHECK (kind IN ('feature', 'limit', 'rate', 'credits')),
    CHECK (value >= 0),
    CHECK (value IS NOT NULL OR kind IN ('limit', 'rate')),
    CHECK (kind <> 'feature' OR value <= 1)
);

INSERT INTO plan_values (product, plan, version, kind, name, value, seeded)
SELECT product, plan, 1, kind, name, value, seeded FROM plan_values_of_the_first_version;

DROP TABLE plan_values_of_the_first_version;

-- Models of a version, by the same rule: each remembers what it was seeded with.
CREATE TABLE plan_models (
    product TEXT   NOT NULL,
    plan    TEXT   NOT NULL,
    version BIGINT NOT NULL,
    kind    TEXT   NOT NULL,  -- default: the model of a role; allowed: what users may choose, one alias a line
    name    TEXT   NOT NULL,  -- the role; '' for allowed
    value   TEXT,             -- null: the plan has none for the role
    seeded  TEXT,
    PRIMARY KEY (product, plan, version, kind, name),
    FOREIGN KEY (product, plan, version) REFERENCES plan_versions (product, plan, version),
    CHECK (kind IN ('default', 'allowed'))
);

-- Credits that can be bought once. A retired one is no longer in its manifest.
CREATE TABLE credit_packages (
    product             TEXT    NOT NULL,
    id                  TEXT    NOT NULL,
    position            BIGINT  NOT NULL,  -- place in the manifest
    credits             BIGINT  NOT NULL,  -- micro-credits
    seeded_credits      BIGINT  NOT NULL,
    amount_minor        BIGINT  NOT NULL,
    seeded_amount_minor BIGINT  NOT NULL,
    currency            TEXT    NOT NULL,
    seeded_currency     TEXT    NOT NULL,
    label               TEXT    NOT NULL,
    seeded_label        TEXT    NOT NULL,
    manifest            TEXT    NOT NULL,  -- SHA-256 of the last manifest that had it
    retired             BOOLEAN NOT NULL,
    PRIMARY KEY (product, id),
    CHECK (credits >= 1),
    CHECK (amount_minor >= 1)
);

-- What billing knows of an account, which may also be an organisation's. The plan that counts is the assigned one, else
-- the subscribed one while its status is active, trialing or past_due, else the subscribed one of the payer whose seat
-- the account has, else the product's default.
ALTER TABLE accounts RENAME TO accounts_of_the_first_version;

CREATE TABLE accounts (
    product             TEXT   NOT NULL,
    user_id             TEXT   NOT NULL,
    assigned_plan       TEXT,                        -- given by an administrator
    subscribed_plan     TEXT,
    subscribed_version  BIGINT,
    subscription_status TEXT   NOT NULL DEFAULT '',  -- as the payment provider names it
    seats               BIGINT NOT NULL DEFAULT 0,   -- paid for
    payer_id            TEXT,                        -- whose seat it has
    created_at          BIGINT NOT NULL DEFAULT 0,   -- when it first asked for anything, ms since 1970; 0: never
    active_day          BIGINT NOT NULL DEFAULT 0,   -- the last UTC day on which it asked, days since 1970
    PRIMARY KEY (product, user_id),
    FOREIGN KEY (product, assigned_plan) REFERENCES plans (product, slug),
    FOREIGN KEY (product, subscribed_plan, subscribed_version) REFERENCES plan_versions (product, plan, version),
    CHECK ((subscribed_plan IS NULL) = (subscribed_version IS NULL)),
    CHECK ((subscribed_plan IS NULL) = (subscription_status = '')),
    CHECK (seats >= 0)
);

INSERT INTO accounts (product, user_id, assigned_plan)
SELECT product, user_id, plan FROM accounts_of_the_first_version;

DROP TABLE accounts_of_the_first_version;

CREATE INDEX accounts_by_payer ON accounts (product, payer_id);
CREATE INDEX accounts_by_subscription ON accounts (product, subscribed_plan, user_id);
CREATE INDEX accounts_by_creation ON accounts (product, created_at);
CREATE INDEX accounts_by_activity ON accounts (product, active_day);

-- What an administrator has set for one account; it stands above the plan.
CREATE TABLE account_overrides (
    product TEXT NOT NULL,
    user_id TEXT NOT NULL,
    kind    TEXT NOT NULL,  -- limit, rate, model
    name    TEXT NOT NULL,  -- the limit; requests_per_minute; the role
    value   BIGINT,         -- null: unlimited
    model   TEXT,           -- alias
    PRIMARY KEY (product, user_id, kind, name),
    CHECK (kind IN ('limit', 'rate', 'model')),
    CHECK (value >= 0),
    CHECK ((kind = 'model') = (model IS NOT NULL)),
    CHECK (kind <> 'model' OR value IS NULL)
);
