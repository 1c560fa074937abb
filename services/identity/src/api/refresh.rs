//! Refresh: one transaction that holds the session's lock from its first statement to its commit.
use prost::Message;
use weft_auth::{Caller, Refusal};
use weft_db::Tx;
use weft_product::Product;
use weft_proto::identity::v1::{AuthTokens, RefreshRequest};

use super::{Identity, Issued, revoke};
use crate::domain::session::{EndReason, Session, Successor, Verdict, judge};
use crate::domain::token::RefreshToken;
use crate::error::Error;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::revocation::revocation_insert;
use crate::store::session::{session_end, session_lock_by_token};
use crate::store::token::{Exchange, Found, token_consume, token_exchange_again, token_find, token_withdraw};

/// One presented token.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    product: &'a Product,
    token: &'a RefreshToken,
    hash: &'a str,
    now_ms: i64,
    request_id: &'a str,
}

/// What the transaction came to. A replay is an outcome and no error: its session must end, so it must commit.
enum Outcome {
    Tokens(AuthTokens),
    Reissued { tokens: AuthTokens, withdrawn: String, until_ms: i64 },
    Replayed { session_id: String, until_ms: i64 },
}

impl Identity {
    /// Exchanges a refresh token for the next pair.
    pub(super) async fn refresh(&self, caller: &Caller, request: RefreshRequest) -> Result<AuthTokens, Error> {
        let product = self.product(caller)?;
        let token = RefreshToken::parse(&request.refresh_token).ok_or(Error::InvalidRefreshToken)?;
        let hash = self.secrets.refresh_hash(&token);
        let _turn = self.turns.take(&hash).await;
        let now_ms = self.clock.now_ms();
        let attempt = Attempt { product, token: &token, hash: &hash, now_ms, request_id: &caller.request_id };
        if let Some(tokens) = self.repeated(&attempt).await? {
            return Ok(tokens);
        }
        match self.db.write("refresh", async |tx: Tx| self.refresh_in(&tx, &attempt).await).await? {
            Outcome::Tokens(tokens) => Ok(tokens),
            Outcome::Reissued { tokens, withdrawn, until_ms } => {
                self.revocations.insert(withdrawn, Refusal::Ended, until_ms);
                Ok(tokens)
            }
            Outcome::Replayed { session_id, until_ms } => {
                tracing::warn!(session_id, "a refresh token was used twice, its session was ended");
                self.revocations.insert(session_id, Refusal::Ended, until_ms);
                Err(Error::RefreshReused)
            }
        }
    }

    /// The outcomes that change nothing, without a transaction: there may be many of them. If the session is
    /// ended at this very moment, the pair that is given again is worth nothing.
    async fn repeated(&self, attempt: &Attempt<'_>) -> Result<Option<AuthTokens>, Error> {
        let found = token_find(&self.db, &attempt.product.slug, attempt.hash).await?;
        let found = found.ok_or(Error::InvalidRefreshToken)?;
        match judge(&found.session, &found.presented, attempt.now_ms) {
            Verdict::Refuse => Err(Error::InvalidRefreshToken),
            Verdict::Replay => Ok(None),
            _ if found.account.suspended => Err(Error::AccountSuspended),
            Verdict::Repeat => repeat(attempt, &found).map(Some),
            Verdict::Rotate | Verdict::Reissue { .. } | Verdict::Gone => Ok(None),
        }
    }

    async fn refresh_in(&self, tx: &Tx, attempt: &Attempt<'_>) -> Result<Outcome, Error> {
        let (product, hash) = (attempt.product.slug.as_str(), attempt.hash);
        if !session_lock_by_token(tx, product, hash, attempt.now_ms).await? {
            return Err(Error::InvalidRefreshToken);
        }
        // Who waited long for the lock is judged by the time at which they got it.
        let attempt = &Attempt { now_ms: self.clock.now_ms(), ..*attempt };
        let found = token_find(tx, product, hash).await?.ok_or(Error::InvalidRefreshToken)?;
        match judge(&found.session, &found.presented, attempt.now_ms) {
            Verdict::Refuse => Err(Error::InvalidRefreshToken),
            Verdict::Replay => replay(tx, attempt, &found.session).await,
            // The token stays as it is, for when the account is restored.
            _ if found.account.suspended => Err(Error::AccountSuspended),
            Verdict::Repeat => repeat(attempt, &found).map(Outcome::Tokens),
            Verdict::Rotate => self.rotate(tx, attempt, &found).await,
            Verdict::Reissue { lost } => self.reissue(tx, attempt, &found, &lost).await,
            Verdict::Gone => Err(Error::SuccessorGone),
        }
    }

    async fn rotate(&self, tx: &Tx, attempt: &Attempt<'_>, found: &Found) -> Result<Outcome, Error> {
        let (issued, sealed) = self.successor(tx, attempt, found).await?;
        let exchange = Exchange { successor: &issued.hash, sealed: &sealed, at: attempt.now_ms };
        if !token_consume(tx, &attempt.product.slug, attempt.hash, &exchange).await? {
            return Err(Error::Raced);
        }
        Ok(Outcome::Tokens(issued.answer))
    }

    /// The answer to the exchange was lost: in its place a new pair. If the lost pair turns out to be used after
    /// all (its access token was reported while we decided), it is a replay.
    async fn reissue(&self, tx: &Tx, attempt: &Attempt<'_>, found: &Found, lost: &Successor) -> Result<Outcome, Error> {
        let slug = attempt.product.slug.as_str();
        if !token_withdraw(tx, slug, &lost.hash, attempt.now_ms).await? {
            return replay(tx, attempt, &found.session).await;
        }
        let (issued, sealed) = self.successor(tx, attempt, found).await?;
        let exchange = Exchange { successor: &issued.hash, sealed: &sealed, at: attempt.now_ms };
        if !token_exchange_again(tx, slug, attempt.hash, &lost.hash, &exchange).await? {
            return Err(Error::Raced);
        }
        let until_ms = lost.access_exp * 1000;
        revocation_insert(tx, &lost.access_id, until_ms).await?;
        Ok(Outcome::Reissued { tokens: issued.answer, withdrawn: lost.access_id.clone(), until_ms })
    }

    /// Issues and stores the next pair, and seals it for who presents the same token again.
    async fn successor(&self, tx: &Tx, attempt: &Attempt<'_>, found: &Found) -> Result<(Issued, Vec<u8>), Error> {
        let Found { account, session, .. } = found;
        let issued = self.issue(attempt.product, account, session, attempt.now_ms)?;
        issued.insert(tx, session, attempt.now_ms).await?;
        let sealed = attempt.token.seal(&session.id, &issued.bytes())?;
        Ok((issued, sealed))
    }
}

/// The same successor again.
fn repeat(attempt: &Attempt<'_>, found: &Found) -> Result<AuthTokens, Error> {
    let sealed = found.sealed.as_deref();
    let opened = sealed.and_then(|sealed| attempt.token.open(&found.session.id, sealed)).ok_or(Error::Seal)?;
    AuthTokens::decode(opened.as_slice()).map_err(|_| Error::Seal)
}

/// Ends the session, everywhere.
async fn replay(tx: &Tx, attempt: &Attempt<'_>, session: &Session) -> Result<Outcome, Error> {
    if !session_end(tx, &session.product, &session.id, EndReason::Replay, attempt.now_ms).await? {
        return Err(Error::Raced);
    }
    let event = AuditEvent {
        session_id: Some(&session.id),
        ..AuditEvent::of(
            &session.product,
            AuditKind::RefreshReplay,
            &session.account_id,
            attempt.request_id,
            attempt.now_ms,
        )
    };
    audit_insert(tx, &event).await?;
    let until_ms = revoke(tx, &session.product, &session.id, attempt.now_ms).await?;
    Ok(Outcome::Replayed { session_id: session.id.clone(), until_ms })
}
