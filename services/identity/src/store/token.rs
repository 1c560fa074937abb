//! Pairs of tokens, known by the keyed hash of their refresh token. Whatever exchanges or withdraws one holds the
//! lock of its session.
use weft_db::{Db, DbError, On, Tx, record, sql};

use crate::domain::account::Account;
use crate::domain::role::Roles;
use crate::domain::session::{Presented, Session, Successor};
use crate::domain::token::Access;
use crate::store::PRUNE_ROWS;

/// A pair to store.
pub struct NewToken<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// The refresh token's keyed hash.
    pub hash: &'a str,
    /// Its session.
    pub session_id: &'a str,
    /// In ms since 1970.
    pub issued_at: i64,
    /// When the refresh token expires, in ms since 1970.
    pub expires_at: i64,
    /// The access token.
    pub access: &'a Access,
}

/// What a consumed token was exchanged for.
pub struct Exchange<'a> {
    /// The successor's keyed hash.
    pub successor: &'a str,
    /// The successor pair, sealed.
    pub sealed: &'a [u8],
    /// In ms since 1970.
    pub at: i64,
}

/// A refresh token with all that hangs on it.
pub struct Found {
    /// Whose it is.
    pub account: Account,
    /// Its session.
    pub session: Session,
    /// The token itself.
    pub presented: Presented,
    /// The sealed successor pair.
    pub sealed: Option<Vec<u8>>,
}

record! {
    struct FoundRow {
        account_id: String,
        email: String,
        account_created_at: i64,
        roles: String,
        suspended_at: Option<i64>,
        session_id: String,
        session_created_at: i64,
        session_expires_at: i64,
        ended_at: Option<i64>,
        expires_at: i64,
        consumed_at: Option<i64>,
        revoked_at: Option<i64>,
        sealed: Option<Vec<u8>>,
        next_hash: Option<String>,
        next_access_id: Option<String>,
        next_exp: Option<i64>,
        next_seen_at: Option<i64>,
        next_consumed_at: Option<i64>,
    }
}

/// Adds a pair.
pub async fn token_insert(tx: &Tx, token: &NewToken<'_>) -> Result<(), DbError> {
    sql("INSERT INTO refresh_tokens (product, hash, session_id, issued_at, expires_at, access_id, access_exp) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(token.product)
    .bind(token.hash)
    .bind(token.session_id)
    .bind(token.issued_at)
    .bind(token.expires_at)
    .bind(&token.access.id)
    .bind(token.access.expires)
    .run(tx)
    .await
    .map(drop)
}

/// A token with its account, its session and its successor.
pub async fn token_find(on: &impl On, product: &str, hash: &str) -> Result<Option<Found>, DbError> {
    let row: Option<FoundRow> = sql("SELECT a.id AS account_id, a.email, a.created_at AS account_created_at, \
         a.roles, a.suspended_at, \
         s.id AS session_id, s.created_at AS session_created_at, s.expires_at AS session_expires_at, s.ended_at, \
         t.expires_at, t.consumed_at, t.revoked_at, t.sealed, \
         n.hash AS next_hash, n.access_id AS next_access_id, n.access_exp AS next_exp, \
         n.access_seen_at AS next_seen_at, n.consumed_at AS next_consumed_at \
         FROM refresh_tokens t \
         JOIN sessions s ON s.product = t.product AND s.id = t.session_id \
         JOIN accounts a ON a.product = s.product AND a.id = s.account_id \
         LEFT JOIN refresh_tokens n ON n.product = t.product AND n.hash = t.successor \
         WHERE t.product = $1 AND t.hash = $2")
    .bind(product)
    .bind(hash)
    .opt(on)
    .await?;
    Ok(row.map(|row| row.found(product)))
}

impl FoundRow {
    fn found(self, product: &str) -> Found {
        let used = self.next_seen_at.is_some() || self.next_consumed_at.is_some();
        let successor = match (self.next_hash, self.next_access_id, self.next_exp) {
            (Some(hash), Some(access_id), Some(access_exp)) => Some(Successor { hash, access_id, access_exp, used }),
            _ => None,
        };
        Found {
            account: Account {
                product: product.to_owned(),
                id: self.account_id.clone(),
                email: self.email,
                created_at: self.account_created_at,
                roles: Roles::stored(&self.roles),
                suspended: self.suspended_at.is_some(),
            },
            session: Session {
                product: product.to_owned(),
                id: self.session_id,
                account_id: self.account_id,
                created_at: self.session_created_at,
                expires_at: self.session_expires_at,
                ended_at: self.ended_at,
            },
            presented: Presented {
                expires_at: self.expires_at,
                consumed_at: self.consumed_at,
                revoked: self.revoked_at.is_some(),
                sealed: self.sealed.is_some(),
                successor,
            },
            sealed: self.sealed,
        }
    }
}

/// Consumes a token and names its successor, if it is unused, in force and its session alive: the one statement
/// that decides which of several exchanges happens. False: it was none of them.
pub async fn token_consume(tx: &Tx, product: &str, hash: &str, exchange: &Exchange<'_>) -> Result<bool, DbError> {
    let rows = sql("UPDATE refresh_tokens SET consumed_at = $3, successor = $4, sealed = $5 \
         WHERE product = $1 AND hash = $2 AND consumed_at IS NULL AND revoked_at IS NULL AND expires_at > $3 \
         AND EXISTS (SELECT 1 FROM sessions s WHERE s.product = refresh_tokens.product \
             AND s.id = refresh_tokens.session_id AND s.ended_at IS NULL AND s.expires_at > $3)")
    .bind(product)
    .bind(hash)
    .bind(exchange.at)
    .bind(exchange.successor)
    .bind(exchange.sealed)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Withdraws a pair that nobody has used; false if somebody has.
pub async fn token_withdraw(tx: &Tx, product: &str, hash: &str, now_ms: i64) -> Result<bool, DbError> {
    let rows = sql("UPDATE refresh_tokens SET revoked_at = $3 WHERE product = $1 AND hash = $2 \
         AND consumed_at IS NULL AND access_seen_at IS NULL AND revoked_at IS NULL")
    .bind(product)
    .bind(hash)
    .bind(now_ms)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Exchanges a consumed token again, in the place of the successor `lost`; false if that is not its successor.
pub async fn token_exchange_again(
    tx: &Tx,
    product: &str,
    hash: &str,
    lost: &str,
    exchange: &Exchange<'_>,
) -> Result<bool, DbError> {
    let rows = sql("UPDATE refresh_tokens SET consumed_at = $3, successor = $4, sealed = $5 \
         WHERE product = $1 AND hash = $2 AND successor = $6")
    .bind(product)
    .bind(hash)
    .bind(exchange.at)
    .bind(exchange.successor)
    .bind(exchange.sealed)
    .bind(lost)
    .run(tx)
    .await?;
    Ok(rows == 1)
}

/// Notes that these access tokens were used, where it is not known yet: one statement. `access_ids` is a JSON array of
/// text; ids of no pair, and of a withdrawn one, are ignored.
pub async fn token_mark_seen(tx: &Tx, access_ids: &str, now_ms: i64) -> Result<u64, DbError> {
    sql("UPDATE refresh_tokens SET access_seen_at = $1 WHERE access_seen_at IS NULL AND revoked_at IS NULL \
         AND access_id IN (SELECT value FROM json_each($2))")
    // In one order, so that two reports of the same tokens wait for each other and not crosswise.
    .on_postgres(
        "UPDATE refresh_tokens SET access_seen_at = $1 WHERE access_seen_at IS NULL AND revoked_at IS NULL \
         AND access_id IN (SELECT access_id FROM refresh_tokens WHERE access_seen_at IS NULL AND revoked_at IS NULL \
             AND access_id = ANY(ARRAY(SELECT jsonb_array_elements_text($2::jsonb))) ORDER BY access_id FOR UPDATE)",
    )
    .bind(now_ms)
    .bind(access_ids)
    .run(tx)
    .await
}

/// Forgets successor pairs that were sealed at or before `before_ms`.
pub async fn token_forget_sealed(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    // The time is asked twice: a pair that is sealed again meanwhile is kept.
    sql("UPDATE refresh_tokens SET sealed = NULL WHERE consumed_at <= $1 AND (product, hash) IN \
         (SELECT product, hash FROM refresh_tokens WHERE sealed IS NOT NULL AND consumed_at <= $1 \
          ORDER BY consumed_at LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}

/// Deletes tokens that expired by themselves: presented again they are unknown, which gets the same answer.
pub async fn token_prune(db: &Db, now_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM refresh_tokens WHERE (product, hash) IN \
         (SELECT product, hash FROM refresh_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)")
    .bind(now_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}
