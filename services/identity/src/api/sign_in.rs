//! Register and Login.
use std::time::Duration;

use weft_auth::Caller;
use weft_core::new_id;
use weft_db::{On, Tx};
use weft_product::{CredentialKind, Product};
use weft_proto::identity::v1::{AuthTokens, LoginRequest, RegisterRequest};

use super::Identity;
use crate::domain::account::{Account, Email};
use crate::domain::client::Client;
use crate::domain::password;
use crate::domain::role::Roles;
use crate::error::Error;
use crate::import::MOST_SHAPES;
use crate::store::account::{CredentialRow, account_by_email, account_insert, account_set_password, account_sign_in};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::failure::{failure_find, failure_insert};
use crate::store::import::shape_list;
use crate::store::session::session_insert;

/// How long a failed login counts, in ms.
pub const FAILURES_WITHIN_MS: i64 = 10 * 60 * 1000;

/// Where failed logins wait for each other.
const FAILURES: &str = "failed logins";

impl Identity {
    /// Creates an account and its first session.
    pub(super) async fn register(
        &self,
        caller: &Caller,
        client: &Client,
        request: RegisterRequest,
    ) -> Result<AuthTokens, Error> {
        let product = self.password_product(caller)?;
        let email = Email::parse(&request.email)?;
        password::check(&request.password)?;
        let password_hash = self.hashing.place()?.hash(request.password.into()).await?;
        let now_ms = self.clock.now_ms();
        let account = Account {
            product: product.slug.clone(),
            id: new_id(),
            email: email.shown.clone(),
            created_at: now_ms,
            roles: Roles::default(),
            suspended: false,
        };
        let event = AuditEvent::of(&product.slug, AuditKind::Register, &account.id, &caller.request_id, now_ms);
        self.db
            .write("register", async |tx: Tx| {
                if !account_insert(&tx, &account, &email, &password_hash).await? {
                    return Err(Error::EmailTaken);
                }
                audit_insert(&tx, &event).await?;
                self.begin_session(&tx, product, &account, client, now_ms).await
            })
            .await
    }

    /// Begins a session for who knows the password or brings a token, one of the two.
    pub(super) async fn login(
        &self,
        caller: &Caller,
        client: &Client,
        request: LoginRequest,
    ) -> Result<AuthTokens, Error> {
        let LoginRequest { firebase_token, clerk_token, supabase_token, oidc_token, token, .. } = &request;
        let tokens = [firebase_token, clerk_token, supabase_token, oidc_token, token];
        if tokens.into_iter().all(String::is_empty) {
            if request.email.is_empty() && request.password.is_empty() {
                return Err(Error::ProviderNotEnabled);
            }
            return self.login_with_password(caller, client, request).await;
        }
        let product = self.product(caller)?;
        self.login_with_token(caller, client, product, request).await
    }

    /// Begins a session for who knows the password. An address that nobody has and one that cannot be an address
    /// take the same way as a wrong password, with the same work.
    async fn login_with_password(
        &self,
        caller: &Caller,
        client: &Client,
        request: LoginRequest,
    ) -> Result<AuthTokens, Error> {
        let product = self.password_product(caller)?;
        if request.email.is_empty() {
            return Err(Error::Missing("email"));
        }
        if request.password.is_empty() {
            return Err(Error::Missing("password"));
        }
        let place = self.hashing.place()?;
        let address = self.secrets.address_hash(&request.email);
        self.check_failures(&self.db, product, &address).await?;
        let found = match Email::parse(&request.email) {
            Ok(email) => account_by_email(&self.db, &product.slug, &email).await?,
            Err(_) => None,
        };
        let stored = found.as_ref().map(|row| row.password_hash.clone());
        let shapes = shape_list(&self.db, &product.slug, MOST_SHAPES).await?;
        let checked = place.verify(request.password.into(), stored, shapes).await?;
        let now_ms = self.clock.now_ms();
        match found {
            Some(row) if checked.right => {
                self.db
                    .write("login", async |tx: Tx| {
                        // Again: of many guesses at once, those that are hashed after the limit learn nothing.
                        self.check_failures(&tx, product, &address).await?;
                        let account = signed_in(&tx, product, &row, now_ms).await?;
                        if let Some(better) = &checked.better {
                            let from = Some(row.password_hash.as_str());
                            account_set_password(&tx, &product.slug, &row.id, from, better).await?;
                        }
                        self.begin_session(&tx, product, &account, client, now_ms).await
                    })
                    .await
            }
            found => {
                let event = AuditEvent {
                    product: &product.slug,
                    kind: AuditKind::LoginFailed,
                    account_id: found.as_ref().map(|row| row.id.as_str()),
                    session_id: None,
                    request_id: &caller.request_id,
                    at: now_ms,
                    actor_id: None,
                    detail: None,
                };
                self.note_failure(product, &address, &event).await?;
                Err(Error::InvalidCredentials)
            }
        }
    }

    /// Refuses an address of which too many logins failed. Whether anybody has it makes no difference, nor whether the
    /// password is right: it is a limit, and ends by itself.
    pub(super) async fn check_failures(&self, on: &impl On, product: &Product, address: &str) -> Result<(), Error> {
        self.check_below(on, product, address, self.login_failures).await
    }

    /// Writes a wrong guess down. Whoever is over the limit by now, because of other guesses at once, is told that, as with
    /// the right password, and not that this guess was wrong.
    pub(super) async fn note_failure(
        &self,
        product: &Product,
        address: &str,
        event: &AuditEvent<'_>,
    ) -> Result<(), Error> {
        self.check_failures(&self.db, product, address).await?;
        {
            // One at a time, so that however many guess, whoever else adds to the log waits for one of them at most.
            let _turn = self.turns.take(FAILURES).await;
            self.db
                .write("login failed", async |tx: Tx| {
                    failure_insert(&tx, &product.slug, address, event.at).await?;
                    audit_insert(&tx, event).await
                })
                .await?;
        }
        // One more than the limit, because this one is among them.
        self.check_below(&self.db, product, address, self.login_failures.saturating_add(1)).await
    }

    async fn check_below(&self, on: &impl On, product: &Product, address: &str, most: u32) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        match failure_find(on, &product.slug, address, now_ms - FAILURES_WITHIN_MS, most).await? {
            None => Ok(()),
            Some(at) => {
                let left_ms = at + FAILURES_WITHIN_MS - now_ms;
                Err(Error::TooManyFailures(Duration::from_millis(left_ms.max(1).unsigned_abs())))
            }
        }
    }

    /// The product of the call, if its people sign in by password.
    pub(super) fn password_product(&self, caller: &Caller) -> Result<&Product, Error> {
        let product = self.product(caller)?;
        let passwords = product.identity.credentials.contains(&CredentialKind::Password);
        if passwords { Ok(product) } else { Err(Error::PasswordsNotEnabled) }
    }

    pub(super) async fn begin_session(
        &self,
        tx: &Tx,
        product: &Product,
        account: &Account,
        client: &Client,
        now_ms: i64,
    ) -> Result<AuthTokens, Error> {
        let session = self.session(product, account, now_ms);
        session_insert(tx, &session, client).await?;
        let issued = self.issue(product, account, &session, now_ms)?;
        issued.insert(tx, &session, now_ms).await?;
        Ok(issued.answer)
    }
}

/// The account that signs in, as it is under its lock.
async fn signed_in(tx: &Tx, product: &Product, row: &CredentialRow, now_ms: i64) -> Result<Account, Error> {
    let found = account_sign_in(tx, &product.slug, &row.id, &row.password_hash, now_ms).await?;
    let found = found.ok_or(Error::InvalidCredentials)?;
    if found.suspended_at.is_some() {
        return Err(Error::AccountSuspended);
    }
    Ok(Account {
        product: product.slug.clone(),
        id: row.id.clone(),
        email: row.email.clone(),
        created_at: row.created_at,
        roles: Roles::stored(&found.roles),
        suspended: false,
    })
}
