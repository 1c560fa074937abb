-- The keys that other rows are sealed under; each is sealed itself, under the service's secret.
CREATE TABLE data_keys (
    number     BIGINT NOT NULL PRIMARY KEY,  -- ascending; the highest is the one to seal with
    id         TEXT   NOT NULL UNIQUE,       -- what sealed rows name it by
    sealed     BYTEA  NOT NULL,
    created_at BIGINT NOT NULL
);
