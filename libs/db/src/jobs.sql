CREATE TABLE jobs (
    product    TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    payload    TEXT   NOT NULL,
    -- Due from here on, ms since 1970. While it is claimed: the end of the lease.
    run_at     BIGINT NOT NULL,
    attempts   BIGINT NOT NULL DEFAULT 0,
    -- Names the claim that holds it.
    lease      TEXT,
    last_error TEXT,
    PRIMARY KEY (product, id)
);
CREATE INDEX jobs_due ON jobs (kind, run_at);
