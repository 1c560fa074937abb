-- Organisations of a product, and who is in them.
CREATE TABLE organisations (
    product    TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    owner_id   TEXT   NOT NULL,  -- the account whose subscription pays for the seats; a member with the role owner
    created_at BIGINT NOT NULL,
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, owner_id) REFERENCES accounts (product, id)
);
CREATE INDEX organisations_by_owner ON organisations (product, owner_id);

-- Whoever changes anything about an organisation locks its row first.
CREATE TABLE memberships (
    product         TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    account_id      TEXT   NOT NULL,
    role            TEXT   NOT NULL,  -- owner, admin or member
    joined_at       BIGINT NOT NULL,
    PRIMARY KEY (product, organisation_id, account_id),
    FOREIGN KEY (product, organisation_id) REFERENCES organisations (product, id) ON DELETE CASCADE,
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX memberships_owner ON memberships (product, organisation_id) WHERE role = 'owner';
CREATE INDEX memberships_by_account ON memberships (product, account_id, organisation_id);
CREATE INDEX memberships_by_time ON memberships (product, organisation_id, joined_at, account_id);

CREATE TABLE invitations (
    product         TEXT   NOT NULL,
    id              TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    email           TEXT   NOT NULL,  -- as it was written
    email_folded    TEXT   NOT NULL,  -- in lower case
    role            TEXT   NOT NULL,  -- admin or member
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    ended_at        BIGINT,           -- accepted, withdrawn, or another one took its place
    accepted_by     TEXT,             -- account
    PRIMARY KEY (product, id),
    FOREIGN KEY (product, organisation_id) REFERENCES organisations (product, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX invitations_open ON invitations (product, organisation_id, email_folded) WHERE ended_at IS NULL;
CREATE INDEX invitations_by_address ON invitations (product, organisation_id, email_folded, created_at);
CREATE INDEX invitations_by_end ON invitations (expires_at);

-- Accounts that pay for seats of others. Whoever changes who should sit says here that it has to be looked at;
-- `generation` shows who looked whether something changed meanwhile.
CREATE TABLE seat_payers (
    product    TEXT   NOT NULL,
    payer_id   TEXT   NOT NULL,
    due_at     BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    failures   BIGINT NOT NULL,  -- since billing last answered
    PRIMARY KEY (product, payer_id)
);
CREATE INDEX seat_payers_due ON seat_payers (due_at);

-- Who is asking billing about a seat right now: to take it for somebody who is about to join, or to release it. What a
-- crash leaves runs out.
CREATE TABLE seat_intents (
    product    TEXT    NOT NULL,
    payer_id   TEXT    NOT NULL,
    account_id TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    releases   BOOLEAN NOT NULL,
    expires_at BIGINT  NOT NULL,
    PRIMARY KEY (product, payer_id, account_id, id)
);
