-- Mails are counted by address, whoever has it: an account that is erased and made anew is sent no more of them.
CREATE INDEX mail_links_by_address ON mail_links (product, address, kind, created_at);

-- Who invited: when they run the organisation no more, their invitations are void. None: by an older version.
ALTER TABLE invitations ADD COLUMN invited_by TEXT;
CREATE INDEX invitations_by_inviter ON invitations (product, organisation_id, invited_by);
