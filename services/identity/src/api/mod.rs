//! The RPCs: decode, ask the domain, store, encode.
pub mod admin;
pub mod api_key;
pub mod audit;
pub mod auth;
pub mod email;
mod external;
pub mod github;
mod invitation;
mod join;
pub mod keys;
pub mod oidc;
pub mod organisation;
pub mod password;
pub mod personal;
pub mod profile;
mod refresh;
pub mod session;
pub mod setup;
pub mod sign_in;
pub mod sso;

use std::sync::Arc;

use prost::Message;
use tokio::sync::Notify;
use tonic::metadata::MetadataMap;
use weft_auth::{Caller, Entitlements, Refusal, Revocations, Signer};
use weft_core::{Clock, new_id};
use weft_db::{Db, DbError, Tx};
use weft_product::{Product, Products};
use weft_proto::Channel;
use weft_proto::billing::v1::account_service_client::AccountServiceClient;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::identity::v1::AuthTokens;

use crate::domain::account::Account;
use crate::domain::client::Client;
use crate::domain::session::{EndReason, Session};
use crate::domain::token::{Access, RefreshToken, SecretKeys};
use crate::error::Error;
use crate::github::Connections;
use crate::hashing::Hashing;
use crate::issuers::Issuers;
use crate::keepers::Keeper;
use crate::sign_on::SignOn;
use crate::store::revocation::{
    RevocationRow, revocation_insert, revocation_insert_account, revocation_insert_keys, revocation_insert_sessions,
};
use crate::store::session::{session_end_all, session_last_access, session_lock_all};
use crate::store::token::{NewToken, token_insert};
use crate::turns::Turns;

/// An entry of the list of ended sessions stays for this long at least, in ms: a stream may outlive the access token
/// that it began with, and still has to hear that its session is over. As long as the edge lets one last by default.
const STREAM_MS: i64 = 10 * 60 * 1000;

/// What every RPC works with.
pub struct Identity {
    /// Accounts, sessions, keys.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Who may sign in how, and for how long.
    pub products: Arc<Products>,
    /// Whose tokens sign people in.
    pub issuers: Issuers,
    /// Where passwords are hashed.
    pub hashing: Hashing,
    /// Told when a mail is to be sent.
    pub mail_due: Notify,
    /// Told when somebody's seats are to be looked at.
    pub seats_due: Notify,
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
    /// What logins at providers need.
    pub sign_on: SignOn,
    /// What connections to GitHub need.
    pub github: Connections,
    /// Plans, from billing.
    pub entitlements: Entitlements,
    /// Plans and usage for lists of accounts, from billing.
    pub accounts: AccountServiceClient<Channel>,
    /// What API keys have spent, from billing.
    pub wallets: WalletServiceClient<Channel>,
    /// The other services that keep data of accounts.
    pub keepers: Vec<Keeper>,
    /// Told when an account was erased here.
    pub erasure_due: Notify,
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

    /// Refuses here at once what a transaction has put on the list that everybody follows.
    fn refuse(&self, rows: Vec<RevocationRow>) {
        for row in rows {
            let refusal = if row.suspended { Refusal::Suspended } else { Refusal::Ended };
            let last_token_id = row.last_token_id.unwrap_or_default();
            self.revocations.insert_account(row.ended_id, last_token_id, refusal, row.expires_at);
        }
    }

    /// A session that begins now, not stored yet.
    fn session(&self, product: &Product, account: &Account, now_ms: i64) -> Session {
        Session {
            product: product.slug.clone(),
            id: new_id(),
            account_id: account.id.clone(),
            created_at: now_ms,
            expires_at: now_ms + product.identity.family_ttl_s * 1000,
            ended_at: None,
        }
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

/// Puts a session that was just ended on the list that everybody follows; says when the entry may be forgotten, in ms
/// since 1970.
async fn revoke(tx: &Tx, product: &str, session_id: &str, now_ms: i64) -> Result<i64, DbError> {
    let last_access_ms = session_last_access(tx, product, session_id).await?.unwrap_or(0) * 1000;
    let until_ms = last_access_ms.max(now_ms + STREAM_MS);
    revocation_insert(tx, session_id, until_ms).await?;
    Ok(until_ms)
}

/// Withdraws every access token of an account, whose lock the caller holds: whatever it says of roles or suspension is
/// old. Its sessions go on. The last thing a transaction does.
async fn withdraw_tokens(
    tx: &Tx,
    product: &str,
    account_id: &str,
    suspended: bool,
    now_ms: i64,
) -> Result<Vec<RevocationRow>, DbError> {
    session_lock_all(tx, product, account_id).await?;
    let until_ms = now_ms + STREAM_MS;
    // A token that has expired may have begun a stream that is still open.
    let since_s = (now_ms - STREAM_MS).div_euclid(1000);
    Ok(revocation_insert_account(tx, product, account_id, suspended, since_s, until_ms).await?.into_iter().collect())
}

/// Ends every session of an account, whose lock the caller holds, or all but `keep`; says how many. The last thing a
/// transaction does.
async fn end_sessions(
    tx: &Tx,
    product: &str,
    account_id: &str,
    keep: Option<&str>,
    reason: EndReason,
    now_ms: i64,
) -> Result<(u64, Vec<RevocationRow>), DbError> {
    let ended = session_end_all(tx, product, account_id, keep, reason, now_ms).await?;
    if ended == 0 {
        return Ok((0, Vec::new()));
    }
    let rows = revocation_insert_sessions(tx, product, account_id, now_ms, now_ms + STREAM_MS).await?;
    Ok((ended, rows))
}

/// Ends the sessions of an account's API keys, whose lock the caller holds, and which are about to be deleted.
async fn end_keys(tx: &Tx, product: &str, account_id: &str, now_ms: i64) -> Result<Vec<RevocationRow>, DbError> {
    let since_s = (now_ms - STREAM_MS).div_euclid(1000);
    revocation_insert_keys(tx, product, account_id, since_s, now_ms + STREAM_MS).await
}

/// What is kept of the client that sent a call: the edge says where it is.
fn client_of(metadata: &MetadataMap) -> Client {
    let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
    Client::new(text("x-forwarded-for"), text("user-agent"))
}
