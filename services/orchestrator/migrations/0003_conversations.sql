-- Who has conversations; its row is what those who begin one wait for, so that what is counted stays counted.
CREATE TABLE chat_session_owners (
    product    TEXT   NOT NULL,
    account_id TEXT   NOT NULL,
    changes    BIGINT NOT NULL,
    PRIMARY KEY (product, account_id)
);
-- Conversations of products that keep them until they are deleted. No other product's are here.
CREATE TABLE chat_sessions (
    product       TEXT   NOT NULL,
    id            TEXT   NOT NULL,
    account_id    TEXT   NOT NULL,
    title         TEXT   NOT NULL,
    metadata      TEXT   NOT NULL,  -- JSON; empty: none
    message_count BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    PRIMARY KEY (product, id)
);
CREATE INDEX chat_sessions_by_account ON chat_sessions (product, account_id, updated_at, id);
CREATE INDEX chat_sessions_by_id ON chat_sessions (product, account_id, id);
CREATE INDEX chat_sessions_by_age ON chat_sessions (updated_at);
CREATE INDEX chat_sessions_empty ON chat_sessions (updated_at) WHERE message_count = 0;
-- What was said in them, in order.
CREATE TABLE chat_messages (
    product    TEXT    NOT NULL,
    session_id TEXT    NOT NULL,
    position   BIGINT  NOT NULL,
    id         TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    content    TEXT    NOT NULL,
    agent      TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    created_at BIGINT  NOT NULL,
    incomplete BOOLEAN NOT NULL,
    PRIMARY KEY (product, session_id, position)
);
CREATE UNIQUE INDEX chat_messages_by_id ON chat_messages (product, session_id, id);
