//! Holds.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::hold::{Hold, State};
use crate::store::wallet::WalletId;

macro_rules! columns {
    () => {
        "h.product, h.user_id, h.id, h.state, h.daily, h.bonus, h.purchased, h.day, h.charged, h.progress, h.reported, \
         h.capped, h.ttl_ms, h.created_at, h.expires_at, h.reference, h.key_id"
    };
}

record! {
    /// A hold as it is stored.
    pub struct HoldRow {
        product: String,
        user_id: String,
        id: String,
        state: String,
        daily: i64,
        bonus: i64,
        purchased: i64,
        day: i64,
        charged: i64,
        progress: i64,
        reported: i64,
        capped: bool,
        ttl_ms: i64,
        created_at: i64,
        expires_at: i64,
        reference: String,
        key_id: String,
    }
}

impl HoldRow {
    /// Whose wallet, and the hold.
    pub fn into_parts(self) -> (WalletId, Hold) {
        let hold = Hold {
            id: self.id,
            state: State::of(&self.state),
            daily: self.daily,
            bonus: self.bonus,
            purchased: self.purchased,
            day: self.day,
            charged: self.charged,
            progress: self.progress,
            reported: self.reported,
            capped: self.capped,
            ttl_ms: self.ttl_ms,
            created_at: self.created_at,
            expires_at: self.expires_at,
            reference: self.reference,
            key_id: self.key_id,
        };
        ((self.product, self.user_id), hold)
    }
}

/// One hold of a wallet.
pub async fn hold_find(on: &impl On, product: &str, user_id: &str, id: &str) -> Result<Option<HoldRow>, DbError> {
    sql(concat!("SELECT ", columns!(), " FROM holds h WHERE h.product = $1 AND h.user_id = $2 AND h.id = $3"))
        .bind(product)
        .bind(user_id)
        .bind(id)
        .opt(on)
        .await
}

/// PostgreSQL: several, as (product, account, id).
pub async fn holds_find(tx: &Tx, holds: &[(String, String, String)]) -> Result<Vec<HoldRow>, DbError> {
    let of = |part: fn(&(String, String, String)) -> &String| holds.iter().map(|hold| part(hold).clone()).collect();
    let (products, users, ids): (Vec<String>, Vec<String>, Vec<String>) =
        (of(|it| &it.0), of(|it| &it.1), of(|it| &it.2));
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM holds h JOIN unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS a (product, user_id, id) \
         ON h.product = a.product AND h.user_id = a.user_id AND h.id = a.id"
    ))
    .bind(products)
    .bind(users)
    .bind(ids)
    .all(tx)
    .await
}

record! {
    /// A hold whose time is over.
    pub struct OverdueRow {
        /// Whose wallet.
        pub user_id: String,
        /// The hold.
        pub id: String,
        /// When it was over, ms since 1970.
        pub expires_at: i64,
    }
}

/// Open holds of a product whose time was over at `now_ms`, the longest overdue first: those that follow `after`, a
/// time and an id.
pub async fn hold_overdue(
    on: &impl On,
    product: &str,
    now_ms: i64,
    after: (i64, &str),
    limit: i64,
) -> Result<Vec<OverdueRow>, DbError> {
    sql("SELECT user_id, id, expires_at FROM holds WHERE product = $1 AND state = 'open' AND expires_at <= $2 \
         AND (expires_at > $3 OR (expires_at = $3 AND id > $4)) ORDER BY expires_at, id LIMIT $5")
    .bind(product)
    .bind(now_ms)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .all(on)
    .await
}

/// Most holds that one statement forgets.
pub const PRUNE_HOLDS: u64 = 1000;

/// Forgets holds that have ended and were over before a moment; answers how many.
pub async fn hold_prune(on: &impl On, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM holds WHERE (product, user_id, id) IN (SELECT product, user_id, id FROM holds \
         WHERE state <> 'open' AND expires_at < $1 LIMIT 1000)")
    .bind(before_ms)
    .run(on)
    .await
}

record! {
    /// What the open holds of a wallet add up to.
    #[derive(Clone, Debug)]
    pub struct HeldRow {
        /// Whose wallet.
        pub user_id: String,
        /// Of the daily bucket …
        pub daily: i64,
        /// … the bonus one …
        pub bonus: i64,
        /// … and the purchased one.
        pub purchased: i64,
    }
}

/// What is held of the wallets after `after`, up to and with `to`.
pub async fn hold_sums(on: &impl On, product: &str, after: &str, to: &str) -> Result<Vec<HeldRow>, DbError> {
    sql("SELECT user_id, CAST(SUM(daily) AS BIGINT) AS daily, CAST(SUM(bonus) AS BIGINT) AS bonus, \
         CAST(SUM(purchased) AS BIGINT) AS purchased FROM holds \
         WHERE product = $1 AND user_id > $2 AND user_id <= $3 AND state = 'open' GROUP BY user_id")
    .bind(product)
    .bind(after)
    .bind(to)
    .all(on)
    .await
}

/// What is held of one wallet; none if nothing is.
pub async fn hold_sum(on: &impl On, product: &str, user_id: &str) -> Result<Option<HeldRow>, DbError> {
    sql("SELECT user_id, CAST(SUM(daily) AS BIGINT) AS daily, CAST(SUM(bonus) AS BIGINT) AS bonus, \
         CAST(SUM(purchased) AS BIGINT) AS purchased FROM holds \
         WHERE product = $1 AND user_id = $2 AND state = 'open' GROUP BY user_id")
    .bind(product)
    .bind(user_id)
    .opt(on)
    .await
}
