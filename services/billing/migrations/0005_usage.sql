-- Every model call. Rows are added and never changed.
CREATE TABLE usage_logs (
    product           TEXT    NOT NULL,
    id                TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    session_id        TEXT    NOT NULL,
    agent_role        TEXT    NOT NULL,
    model_used        TEXT    NOT NULL,
    input_tokens      BIGINT  NOT NULL,
    output_tokens     BIGINT  NOT NULL,
    total_tokens      BIGINT  NOT NULL,
    cost_microdollars BIGINT  NOT NULL,
    priced            BOOLEAN NOT NULL,  -- the model was in the price table; if not, the cost is 0
    charged           BIGINT  NOT NULL,  -- micro-credits
    estimated         BOOLEAN NOT NULL,  -- the provider did not say how many tokens
    latency_ms        BIGINT  NOT NULL,
    failed            BOOLEAN NOT NULL,
    created_at        BIGINT  NOT NULL,
    PRIMARY KEY (product, id),
    CHECK (input_tokens >= 0 AND output_tokens >= 0 AND total_tokens = input_tokens + output_tokens),
    CHECK (cost_microdollars >= 0 AND (priced OR cost_microdollars = 0)),
    CHECK (charged >= 0 AND latency_ms >= 0)
);
CREATE INDEX usage_logs_by_user ON usage_logs (product, user_id, created_at, id);

-- usage_logs added up by UTC day, in the transaction of each call: what reports read.
CREATE TABLE usage_daily (
    product           TEXT   NOT NULL,
    user_id           TEXT   NOT NULL,
    day               BIGINT NOT NULL,  -- days since 1970
    model             TEXT   NOT NULL,
    agent_role        TEXT   NOT NULL,
    calls             BIGINT NOT NULL,
    input_tokens      BIGINT NOT NULL,
    output_tokens     BIGINT NOT NULL,
    cost_microdollars BIGINT NOT NULL,
    failed            BIGINT NOT NULL,
    latency_ms        BIGINT NOT NULL,
    PRIMARY KEY (product, user_id, day, model, agent_role)
);
CREATE INDEX usage_daily_by_day ON usage_daily (product, day);

-- What counts towards the limits of a UTC day. A new day is a new row, so nothing has to be set back at midnight.
CREATE TABLE daily_counters (
    product TEXT   NOT NULL,
    user_id TEXT   NOT NULL,
    day     BIGINT NOT NULL,  -- days since 1970
    name    TEXT   NOT NULL,  -- of the limit
    used    BIGINT NOT NULL,
    PRIMARY KEY (product, user_id, day, name),
    CHECK (used >= 0)
);

-- Calls that have begun and not ended. One that its caller forgot counts until it expires, and goes with the next of the
-- account that ends.
CREATE TABLE usage_reservations (
    product    TEXT   NOT NULL,
    user_id    TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    tokens     BIGINT NOT NULL,
    running    BIGINT NOT NULL,  -- tokens of the calls that were running when it began
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (product, user_id, id),
    CHECK (tokens > 0)
);

-- What happened in a product, by UTC day.
CREATE TABLE activity_daily (
    product TEXT   NOT NULL,
    user_id TEXT   NOT NULL,
    day     BIGINT NOT NULL,  -- days since 1970
    kind    TEXT   NOT NULL,
    events  BIGINT NOT NULL,
    PRIMARY KEY (product, user_id, day, kind),
    CHECK (events > 0)
);

-- Credits spent by UTC day: the ledger's movements `usage` and `spend` of a wallet up to the number in credits_rolled.
-- Brought forward when somebody reads them and many movements have come since. The ledger is append-only and a wallet's
-- movements have numbers without gaps, so nothing can come later under a number that was counted.
CREATE TABLE credits_daily (
    product TEXT   NOT NULL,
    user_id TEXT   NOT NULL,
    day     BIGINT NOT NULL,  -- days since 1970
    spent   BIGINT NOT NULL,  -- micro-credits; negative if more was given back than spent
    PRIMARY KEY (product, user_id, day)
);
CREATE TABLE credits_rolled (
    product TEXT   NOT NULL,
    user_id TEXT   NOT NULL,
    seq     BIGINT NOT NULL,  -- of the last movement that credits_daily has
    PRIMARY KEY (product, user_id)
);

-- For the revenue of the last days.
CREATE INDEX payments_by_time ON payments (product, created_at);
