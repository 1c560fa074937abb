-- What an account may do and what became of it. `roles` are names in alphabetical order with a space between them;
-- everybody is a `user`, so that one is not written down.
ALTER TABLE accounts ADD COLUMN roles TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN signed_in_at BIGINT;
ALTER TABLE accounts ADD COLUMN suspended_at BIGINT;
ALTER TABLE accounts ADD COLUMN suspend_reason TEXT;

-- What its owner says of themselves.
ALTER TABLE accounts ADD COLUMN display_name TEXT;
ALTER TABLE accounts ADD COLUMN locale TEXT;      -- BCP 47
ALTER TABLE accounts ADD COLUMN time_zone TEXT;   -- name of the IANA database
ALTER TABLE accounts ADD COLUMN avatar_url TEXT;

-- From where somebody signed in: enough for its owner to recognise it, no more.
ALTER TABLE sessions ADD COLUMN client_address TEXT;  -- a network, not an address
ALTER TABLE sessions ADD COLUMN user_agent TEXT;      -- its first 120 bytes
CREATE INDEX sessions_by_account ON sessions (product, account_id, id);

-- Whether the tokens are refused because their account is suspended. A later entry of the same id counts.
ALTER TABLE revocations ADD COLUMN suspended BOOLEAN NOT NULL DEFAULT FALSE;

-- Who did it to somebody else's account: an account id, or `operator` at the command line; and which role it was.
ALTER TABLE audit_events ADD COLUMN actor_id TEXT;
ALTER TABLE audit_events ADD COLUMN detail TEXT;
