-- The identity provider of an organisation.
CREATE TABLE sso_connections (
    product         TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    issuer          TEXT   NOT NULL,
    client_id       TEXT   NOT NULL,
    key_id          TEXT   NOT NULL,  -- the data key that `sealed` is under
    sealed          BYTEA  NOT NULL,  -- the client secret
    updated_at      BIGINT NOT NULL,
    PRIMARY KEY (product, organisation_id),
    FOREIGN KEY (product, organisation_id) REFERENCES organisations (product, id) ON DELETE CASCADE
);
CREATE INDEX sso_connections_by_key ON sso_connections (key_id);

-- Domains that an organisation says are its own. Several may say it of one.
CREATE TABLE sso_domains (
    product         TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    domain          TEXT   NOT NULL,  -- in lower case
    PRIMARY KEY (product, organisation_id, domain),
    FOREIGN KEY (product, organisation_id) REFERENCES sso_connections (product, organisation_id) ON DELETE CASCADE
);

-- Those of them that are proven: only these let anybody in. The key lets one organisation have a domain.
CREATE TABLE sso_proven_domains (
    product         TEXT   NOT NULL,
    domain          TEXT   NOT NULL,
    organisation_id TEXT   NOT NULL,
    proven_at       BIGINT NOT NULL,
    PRIMARY KEY (product, domain),
    FOREIGN KEY (product, organisation_id, domain) REFERENCES sso_domains (product, organisation_id, domain)
        ON DELETE CASCADE
);
CREATE INDEX sso_proven_domains_by_organisation ON sso_proven_domains (product, organisation_id, domain);

-- Logins that have begun at a provider. PKCE verifier and nonce are not here: only the state itself, together with the
-- identity secret, gives them.
CREATE TABLE login_states (
    product         TEXT   NOT NULL,
    hash            TEXT   NOT NULL,  -- id of the secret, dot, HMAC-SHA-256 of the state
    organisation_id TEXT   NOT NULL,  -- empty: the product's own provider
    issuer          TEXT   NOT NULL,
    client_id       TEXT   NOT NULL,
    redirect_uri    TEXT   NOT NULL,
    expires_at      BIGINT NOT NULL,
    PRIMARY KEY (product, hash)
);
CREATE INDEX login_states_by_end ON login_states (expires_at);
