//! The RPCs: decode, ask the domain, store, encode.
pub mod auth;
pub mod keys;
mod refresh;
pub mod sign_in;

use std::sync::Arc;

use prost::Message;
use weft_auth::{Caller, Entitlements, Revocations, Signer};
use weft_core::Clock;
use weft_db::{Db, DbError, Tx};
use weft_product::{Product, Products};
use weft_proto::identity::v1::AuthTokens;

use crate::domain::account::Account;
use crate::domain::session::Session;
use crate::domain::token::{Access, RefreshToken, SecretKeys};
use crate::error::Error;
use crate::hashing::Hashing;
use crate::store::revocation::revocation_insert;
use crate::store::session::session_last_access;
use crate::store::token::{NewToken, token_insert};
use crate::turns::Turns;

/// What every RPC works with.
pub struct Identity {
    /// Accounts, sessions, keys.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Who may sign in how, and for how long.
    pub products: Arc<Products>,
    /// Where passwords are hashed.
    pub hashing: Hashing,
    /// Where refreshes of one token wait for each other.
    pub turns: Turns,
    /// Failed logins of one address after which the next is refused.
    pub login_failures: u32,
    /// What is derived from the identity secret.
    pub secrets: SecretKeys,
    /// Signs access tokens.
    pub signer: Signer,
    /// The ended sessions and withdrawn tokens that our own guard refuses.
    pub revocations: Revocations,
    /// Plans, from billing.
    pub entitlements: Entitlements,
}

/// A new pair of tokens, not stored yet.
struct Issued {
    hash: String,
    expires_at: i64,
    access: Access,
    answer: AuthTokens,
}

impl Identity {
    /// The product that the call is for.
    fn product(&self, caller: &Caller) -> Result<&Product, Error> {
        let slug: &str = &caller.product;
        self.products.get(slug).map(Arc::as_ref).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))
    }

    /// Makes a pair.
    fn issue(&self, product: &Product, account: &Account, session: &Session, now_ms: i64) -> Result<Issued, Error> {
        let refresh = RefreshToken::generate()?;
        let access = Access::new(now_ms, product.identity.access_ttl_s, session);
        let answer = AuthTokens {
            access_token: self.signer.mint(&access.claims(account, session)),
            refresh_token: refresh.text().to_owned(),
            expires_at: access.expires * 1000,
        };
        let expires_at = session.expires_at.min(now_ms + product.identity.refresh_ttl_s * 1000);
        Ok(Issued { hash: self.secrets.refresh_hash(&refresh), expires_at, access, answer })
    }
}

impl Issued {
    /// Stores it as a pair of `session`.
    async fn insert(&self, tx: &Tx, session: &Session, now_ms: i64) -> Result<(), DbError> {
        let token = NewToken {
            product: &session.product,
            hash: &self.hash,
            session_id: &session.id,
            issued_at: now_ms,
            expires_at: self.expires_at,
            access: &self.access,
        };
        token_insert(tx, &token).await
    }

    /// The whole answer, for [`RefreshToken::seal`].
    fn bytes(&self) -> Vec<u8> {
        self.answer.encode_to_vec()
    }
}

/// Puts a session that was just ended on the list that everybody follows; says when its last access token
/// expires, in ms since 1970.
async fn revoke(tx: &Tx, product: &str, session_id: &str) -> Result<i64, DbError> {
    let until_ms = session_last_access(tx, product, session_id).await?.unwrap_or(0) * 1000;
    revocation_insert(tx, session_id, until_ms).await?;
    Ok(until_ms)
}
