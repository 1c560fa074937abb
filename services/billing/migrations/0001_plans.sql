-- Plans of every product, seeded from the manifests at each start. A plan that its manifest no longer has is
-- retired and stays: somebody may be on it.
CREATE TABLE plans (
    product     TEXT    NOT NULL,
    slug        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    seeded_name TEXT    NOT NULL,  -- the name that a manifest gave; another one in `name` is an administrator's
    manifest    TEXT    NOT NULL,  -- SHA-256 of the last manifest that had the plan
    retired     BOOLEAN NOT NULL,
    PRIMARY KEY (product, slug)
);

-- One row a number, so that each remembers for itself what it was seeded with. Where `value` is not `seeded` an
-- administrator has set it, and no manifest changes it again; setting it back to `seeded` undoes that.
CREATE TABLE plan_values (
    product TEXT NOT NULL,
    plan    TEXT NOT NULL,
    kind    TEXT NOT NULL,  -- feature: 1 if the plan has it, else 0; limit; rate; credits: micro-credits
    name    TEXT NOT NULL,
    value   BIGINT,         -- null: unlimited
    seeded  BIGINT,
    PRIMARY KEY (product, plan, kind, name),
    FOREIGN KEY (product, plan) REFERENCES plans (product, slug),
    CHECK (kind IN ('feature', 'limit', 'rate', 'credits')),
    CHECK (value >= 0),
    CHECK (value IS NOT NULL OR kind IN ('limit', 'rate')),
    CHECK (kind <> 'feature' OR value <= 1)
);

-- The plan of each account that is not on its product's default plan, or once was not.
CREATE TABLE accounts (
    product TEXT NOT NULL,
    user_id TEXT NOT NULL,
    plan    TEXT NOT NULL,
    PRIMARY KEY (product, user_id),
    FOREIGN KEY (product, plan) REFERENCES plans (product, slug)
);
