-- What API keys of an account have spent, in micro-credits. It changes only with a hold that was made for the key, and so
-- with the account's wallet: who has the wallet's version knows it.
CREATE TABLE key_spending (
    product TEXT   NOT NULL,
    user_id TEXT   NOT NULL,
    key_id  TEXT   NOT NULL,
    spent   BIGINT NOT NULL,  -- what its holds were charged
    held    BIGINT NOT NULL,  -- what its open holds have set aside
    PRIMARY KEY (product, user_id, key_id),
    CHECK (spent >= 0),
    CHECK (held >= 0)
);

-- The API key that a hold was made for; empty: none.
ALTER TABLE holds ADD COLUMN key_id TEXT NOT NULL DEFAULT '';
