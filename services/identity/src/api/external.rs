//! Logins and exchanges with tokens of external issuers.
use tokio::sync::MutexGuard;
use weft_auth::{Caller, claimed, is_api_key};
use weft_core::new_id;
use weft_db::Tx;
use weft_product::{CredentialKind, Product};
use weft_proto::identity::v1::{AccessToken, AuthTokens, ExchangeTokenRequest, LoginRequest};

use super::{Identity, STREAM_MS};
use crate::domain::account::{Account, Email};
use crate::domain::client::Client;
use crate::domain::external::{ExternalIdentity, ExternalToken};
use crate::domain::role::{Role, Roles};
use crate::domain::session::Session;
use crate::domain::token::Access;
use crate::error::Error;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::external::{
    ExternalRow, account_by_verified_email, external_account_insert, external_find, external_insert,
    external_session_find, external_session_set, external_session_touch, external_sign_in,
};
use crate::store::session::session_insert;
use crate::store::token::{NewToken, token_insert};

impl Identity {
    /// Begins a session for who brings a token of an issuer: of the kind that its field names, or of the only one that
    /// the product has.
    pub(super) async fn login_with_token(
        &self,
        caller: &Caller,
        client: &Client,
        product: &Product,
        request: LoginRequest,
    ) -> Result<AuthTokens, Error> {
        let (kind, token) = credential(product, request)?;
        let (identity, _) = self.issuers.of_kind(product, kind)?.verify(&token).await?;
        self.begin_external(caller, client, product, &identity).await
    }

    /// An access token of ours for a token of an issuer, or for an API key.
    pub(super) async fn exchange_token(
        &self,
        caller: &Caller,
        client: &Client,
        request: ExchangeTokenRequest,
    ) -> Result<AccessToken, Error> {
        let product = self.product(caller)?;
        if is_api_key(&request.token) {
            return self.exchange_key(product, &request.token).await;
        }
        let claimed = claimed(&request.token).ok_or(Error::InvalidToken)?;
        let trusted = self.issuers.named(product, &claimed.issuer).ok_or(Error::InvalidToken)?;
        let (identity, token) = trusted.verify(&request.token).await?;
        self.exchange_external(caller, client, product, &identity, &token).await
    }

    /// Begins a session for who proved to be `identity`. The first time makes their account; whoever else comes first
    /// at the same time, there is one.
    ///
    /// Errors: [`Error::AccountSuspended`]; the database's.
    pub(super) async fn begin_external(
        &self,
        caller: &Caller,
        client: &Client,
        product: &Product,
        identity: &ExternalIdentity,
    ) -> Result<AuthTokens, Error> {
        let now_ms = self.clock.now_ms();
        let _turn = self.turn_of(product, identity).await;
        self.db
            .write("login with a token", async |tx: Tx| {
                let account = external_account(&tx, caller, product, identity, now_ms).await?;
                let session = self.session(product, &account, now_ms);
                session_insert(&tx, &session, client).await?;
                let issued = self.issue(product, &account, &session, now_ms)?;
                issued.insert(&tx, &session, now_ms).await?;
                if identity.admin {
                    let admin_until = Some(issued.access.expires * 1000);
                    external_session_touch(&tx, &product.slug, &session.id, admin_until, now_ms).await?;
                }
                Ok(issued.answer)
            })
            .await
    }

    /// Calls of one identity come one after the other: each locks its account, and a client that begins with many at once
    /// would hold every connection while they wait.
    async fn turn_of(&self, product: &Product, identity: &ExternalIdentity) -> Option<MutexGuard<'_, ()>> {
        self.turns.take(&format!("{} {} {}", product.slug, identity.issuer, identity.subject)).await
    }

    /// The account of who proved to be `identity`, made if there is none; no session yet.
    ///
    /// Errors: [`Error::AccountSuspended`]; the database's.
    pub(super) async fn external_account_id(
        &self,
        caller: &Caller,
        product: &Product,
        identity: &ExternalIdentity,
    ) -> Result<String, Error> {
        let now_ms = self.clock.now_ms();
        let _turn = self.turn_of(product, identity).await;
        let account = self.db.write("account of an identity", async |tx: Tx| {
            external_account(&tx, caller, product, identity, now_ms).await
        });
        Ok(account.await?.id)
    }

    /// An access token for who proved to be `identity` with `token`, in the session that all tokens of one session at the
    /// issuer share.
    ///
    /// Errors: [`Error::InvalidAccessToken`] if that session was ended here; as for [`Identity::begin_external`].
    pub(super) async fn exchange_external(
        &self,
        caller: &Caller,
        client: &Client,
        product: &Product,
        identity: &ExternalIdentity,
        token: &ExternalToken,
    ) -> Result<AccessToken, Error> {
        let now_ms = self.clock.now_ms();
        let _turn = self.turn_of(product, identity).await;
        self.db
            .write("exchange a token", async |tx: Tx| {
                let account = external_account(&tx, caller, product, identity, now_ms).await?;
                let known = known_session(&tx, &account, identity, token, now_ms).await?;
                let session = match known {
                    Some(session) => session,
                    None => {
                        let session = self.session(product, &account, now_ms);
                        session_insert(&tx, &session, client).await?;
                        external_session_set(&tx, identity, token, &session).await?;
                        session
                    }
                };
                let mut access = Access::new(now_ms, product.identity.access_ttl_s, &session);
                access.expires = access.expires.min(token.expires);
                let admin_until = identity.admin.then_some(access.expires * 1000);
                if !external_session_touch(&tx, &product.slug, &session.id, admin_until, now_ms).await? {
                    return Err(Error::InvalidAccessToken);
                }
                let row = NewToken {
                    product: &product.slug,
                    // Of no refresh token: whatever somebody presents, its hash has another form.
                    hash: &format!("exchanged {}", access.id),
                    session_id: &session.id,
                    issued_at: now_ms,
                    // A stream that it began may outlive it, and is found by this row.
                    expires_at: access.expires * 1000 + STREAM_MS,
                    access: &access,
                };
                token_insert(&tx, &row).await?;
                let access_token = self.signer.mint(&access.claims(&account, &session));
                Ok(AccessToken { access_token, expires_at: access.expires * 1000 })
            })
            .await
    }
}

/// The session here for the token's session at the issuer, if there is one that goes on. The account is locked.
async fn known_session(
    tx: &Tx,
    account: &Account,
    identity: &ExternalIdentity,
    token: &ExternalToken,
    now_ms: i64,
) -> Result<Option<Session>, Error> {
    let Some(row) = external_session_find(tx, &account.product, identity, &token.session).await? else {
        return Ok(None);
    };
    let session = Session {
        product: account.product.clone(),
        id: row.id,
        account_id: account.id.clone(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        ended_at: row.ended_at,
    };
    if session.is_alive(now_ms) {
        return Ok(Some(session));
    }
    if may_begin_again(&session, token) { Ok(None) } else { Err(Error::InvalidAccessToken) }
}

/// The one token of a login and its kind.
fn credential(product: &Product, request: LoginRequest) -> Result<(CredentialKind, String), Error> {
    let LoginRequest { email, password, firebase_token, clerk_token, supabase_token, oidc_token, token } = request;
    let mut given = vec![
        (CredentialKind::Firebase, firebase_token),
        (CredentialKind::Clerk, clerk_token),
        (CredentialKind::Supabase, supabase_token),
        (CredentialKind::Oidc, oidc_token),
    ];
    if !token.is_empty() {
        let kinds = &product.identity.credentials;
        let mut external = kinds.iter().filter(|kind| **kind != CredentialKind::Password);
        let (Some(kind), None) = (external.next(), external.next()) else { return Err(Error::ProviderNotEnabled) };
        given.push((*kind, token));
    }
    given.retain(|(_, token)| !token.is_empty());
    match (given.pop(), given.is_empty(), email.is_empty() && password.is_empty()) {
        (Some(credential), true, true) => Ok(credential),
        _ => Err(Error::ProviderNotEnabled),
    }
}

/// Whether a token may begin a new session here though the one for its session at the issuer is over. One that was ended
/// here stays so: who signed out everywhere is not signed in again by a token of the same sign-in. An issuer that names no
/// sessions is taken at the time of the token.
fn may_begin_again(session: &Session, token: &ExternalToken) -> bool {
    match session.ended_at {
        None => true,
        Some(ended_at) => token.session.is_empty() && token.issued.saturating_mul(1000) > ended_at,
    }
}

/// The account of an identity, locked, with the roles that count now; made if there is none.
async fn external_account(
    tx: &Tx,
    caller: &Caller,
    product: &Product,
    identity: &ExternalIdentity,
    now_ms: i64,
) -> Result<Account, Error> {
    let slug = product.slug.as_str();
    let email = identity.email.as_deref().and_then(|text| Email::parse(text).ok());
    let verified = identity.email_verified && email.is_some();
    let (account_id, is_new) = match external_find(tx, slug, identity).await? {
        Some(account_id) => (account_id, false),
        None => first_seen(tx, caller, product, identity, email.as_ref().filter(|_| verified), now_ms).await?,
    };
    let row = external_sign_in(tx, slug, &account_id, email.as_ref(), verified, now_ms).await?;
    let row = match row {
        Some(row) => row,
        // Erased since it was found, and its identity with it: nobody could sign in to what would be made here.
        None if !is_new => return Err(Error::Raced),
        None => {
            let verified_at = verified.then_some(now_ms);
            let account = Account {
                product: product.slug.clone(),
                id: account_id,
                email: email.as_ref().map(|email| email.shown.clone()).unwrap_or_default(),
                created_at: now_ms,
                roles: Roles::default(),
                suspended: false,
            };
            external_account_insert(tx, &account, email.as_ref(), verified_at).await?;
            note(tx, caller, AuditKind::Register, &account.id, slug, identity, now_ms).await?;
            let Account { id, email, created_at, .. } = account;
            ExternalRow { id, email, created_at, roles: String::new(), suspended_at: None }
        }
    };
    if row.suspended_at.is_some() {
        return Err(Error::AccountSuspended);
    }
    let stored = Roles::stored(&row.roles);
    let roles = if identity.admin { stored.with(Role::Admin, true) } else { stored };
    Ok(Account {
        product: product.slug.clone(),
        id: row.id,
        email: row.email,
        created_at: row.created_at,
        roles,
        suspended: false,
    })
}

/// Says whose account an identity is that was never seen: one that exists, if it may be linked, else a new one, whose id
/// is given and whose row is yet to be written. Whether it is new, too.
async fn first_seen(
    tx: &Tx,
    caller: &Caller,
    product: &Product,
    identity: &ExternalIdentity,
    verified: Option<&Email>,
    now_ms: i64,
) -> Result<(String, bool), Error> {
    let slug = product.slug.as_str();
    let linked = match verified.filter(|_| identity.link_by_email) {
        Some(email) => account_by_verified_email(tx, slug, email).await?,
        None => None,
    };
    let account_id = linked.clone().unwrap_or_else(new_id);
    if !external_insert(tx, slug, identity, &account_id, now_ms).await? {
        return Ok((external_find(tx, slug, identity).await?.ok_or(Error::Raced)?, false));
    }
    if linked.is_some() {
        note(tx, caller, AuditKind::IdentityLinked, &account_id, slug, identity, now_ms).await?;
    }
    Ok((account_id, linked.is_none()))
}

async fn note(
    tx: &Tx,
    caller: &Caller,
    kind: AuditKind,
    account_id: &str,
    product: &str,
    identity: &ExternalIdentity,
    now_ms: i64,
) -> Result<(), Error> {
    let event = AuditEvent {
        detail: Some(&identity.issuer),
        ..AuditEvent::of(product, kind, account_id, &caller.request_id, now_ms)
    };
    Ok(audit_insert(tx, &event).await?)
}
