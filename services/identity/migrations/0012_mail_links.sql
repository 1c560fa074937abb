-- Links in mails: to a new password, to prove an address, to an organisation. Each mail has a token of its own.
CREATE TABLE mail_links (
    product       TEXT   NOT NULL,
    hash          TEXT   NOT NULL,  -- id of the secret, dot, HMAC-SHA-256 of the token
    kind          TEXT   NOT NULL,  -- password_reset, email_proof, invitation
    account_id    TEXT,             -- whose password or address
    invitation_id TEXT,
    address       TEXT,             -- keyed hash of the address that is to be proven
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    sent_at       BIGINT,           -- when its mail was handed over
    PRIMARY KEY (product, hash),
    FOREIGN KEY (product, account_id) REFERENCES accounts (product, id) ON DELETE CASCADE,
    FOREIGN KEY (product, invitation_id) REFERENCES invitations (product, id) ON DELETE CASCADE
);
CREATE INDEX mail_links_by_account ON mail_links (product, account_id, kind, created_at);
CREATE INDEX mail_links_by_invitation ON mail_links (product, invitation_id);
CREATE INDEX mail_links_by_end ON mail_links (expires_at);

INSERT INTO mail_links (product, hash, kind, account_id, created_at, expires_at, sent_at)
    SELECT product, hash, 'password_reset', account_id, created_at, expires_at, sent_at FROM password_resets;
DROP TABLE password_resets;
