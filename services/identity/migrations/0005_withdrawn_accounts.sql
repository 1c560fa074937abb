-- An entry may be an account, all of whose access tokens up to one are withdrawn at once: one row, however many they are.
ALTER TABLE revocations ADD COLUMN last_token_id TEXT;  -- their ids are UUID v7, so later ones are greater
