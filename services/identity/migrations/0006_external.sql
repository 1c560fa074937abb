-- Who somebody is at an issuer that the product trusts. The subject is unique at its issuer only, so both are the key.
-- Which of several first logins makes the account is decided here, before the account is written.
CREATE TABLE external_identities (
    product    TEXT   NOT NULL,
    issuer     TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    account_id TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (product, issuer, subject),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX external_identities_by_account ON external_identities (product, account_id);

-- Our session for a session at the issuer, whose tokens are exchanged without a login. Empty: the issuer names none.
CREATE TABLE external_sessions (
    product        TEXT NOT NULL,
    issuer         TEXT NOT NULL,
    subject        TEXT NOT NULL,
    issuer_session TEXT NOT NULL,
    session_id     TEXT NOT NULL,
    PRIMARY KEY (product, issuer, subject, issuer_session),
    FOREIGN KEY (product, session_id) REFERENCES sessions (product, id) ON DELETE CASCADE
);
CREATE INDEX external_sessions_by_session ON external_sessions (product, session_id);

-- The address that an issuer tells, in lower case, for lists; `email_folded` of such an account holds what no address
-- can be, so that it takes no address from anybody. None: the account has registered its address here.
ALTER TABLE accounts ADD COLUMN external_email TEXT;
-- When it was last shown that mail to the address reaches the account's owner; none: it was not.
ALTER TABLE accounts ADD COLUMN email_verified_at BIGINT;

-- Until when, in ms, the issuer's word that the session's account is an administrator counts: as long as the access token
-- that was given for it.
ALTER TABLE sessions ADD COLUMN admin_until BIGINT;
