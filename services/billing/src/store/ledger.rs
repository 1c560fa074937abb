//! Movements as they are read.
use weft_db::{DbError, On, record, sql};

use crate::domain::ledger::Entry;

record! {
    /// A movement as it is stored.
    #[derive(Clone, Debug)]
    pub struct EntryRow {
        /// Whose wallet.
        pub user_id: String,
        /// Number in its wallet.
        pub seq: i64,
        /// Its id.
        pub id: String,
        /// Where.
        pub bucket: String,
        /// Why.
        pub kind: String,
        /// From or to where.
        pub account: String,
        /// How much.
        pub amount: i64,
        /// What was there afterwards.
        pub balance_after: i64,
        /// What for.
        pub reference: String,
        /// ms since 1970.
        pub created_at: i64,
        /// Over all of this and the hash before.
        pub hash: Vec<u8>,
    }
}

impl EntryRow {
    /// The movement, as it is hashed.
    pub fn entry<'a>(&'a self, product: &'a str) -> Entry<'a> {
        Entry {
            product,
            user_id: &self.user_id,
            seq: self.seq,
            id: &self.id,
            bucket: &self.bucket,
            kind: &self.kind,
            account: &self.account,
            amount: self.amount,
            balance_after: self.balance_after,
            reference: &self.reference,
            created_at: self.created_at,
        }
    }
}

macro_rules! columns {
    () => {
        "user_id, seq, id, bucket, kind, account, amount, balance_after, reference, created_at, hash"
    };
}

/// Movements of a product in the order of wallets and numbers, after `after`.
pub async fn entry_page(on: &impl On, product: &str, after: (&str, i64), limit: i64) -> Result<Vec<EntryRow>, DbError> {
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM ledger_entries WHERE product = $1 AND (user_id, seq) > ($2, $3) ORDER BY user_id, seq LIMIT $4"
    ))
    .bind(product)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .all(on)
    .await
}

/// Movements of one wallet with a number above `after`, the oldest first.
pub async fn entry_page_of(
    on: &impl On,
    product: &str,
    user_id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, DbError> {
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM ledger_entries WHERE product = $1 AND user_id = $2 AND seq > $3 ORDER BY seq LIMIT $4"
    ))
    .bind(product)
    .bind(user_id)
    .bind(after)
    .bind(limit)
    .all(on)
    .await
}

/// Movements of one wallet with a number below `before`, the newest first.
pub async fn entry_list(
    on: &impl On,
    product: &str,
    user_id: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, DbError> {
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM ledger_entries WHERE product = $1 AND user_id = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4"
    ))
    .bind(product)
    .bind(user_id)
    .bind(before)
    .bind(limit)
    .all(on)
    .await
}

/// When a movement was, and what was there afterwards: (created_at, balance_after).
pub async fn entry_moment(on: &impl On, product: &str, user_id: &str, seq: i64) -> Result<Option<(i64, i64)>, DbError> {
    sql("SELECT created_at, balance_after FROM ledger_entries WHERE product = $1 AND user_id = $2 AND seq = $3")
        .bind(product)
        .bind(user_id)
        .bind(seq)
        .opt(on)
        .await
}

record! {
    /// The movements of one kind in one bucket.
    pub struct SumRow {
        /// Why.
        pub kind: String,
        /// Where.
        pub bucket: String,
        /// Together.
        pub amount: i64,
        /// How many.
        pub count: i64,
    }
}

/// The movements of a wallet from one number to before another, by kind and bucket: there are a few dozen of these.
pub async fn entry_sums(
    on: &impl On,
    product: &str,
    user_id: &str,
    from: i64,
    to: i64,
) -> Result<Vec<SumRow>, DbError> {
    sql("SELECT kind, bucket, CAST(SUM(amount) AS BIGINT) AS amount, COUNT(*) AS count FROM ledger_entries \
         WHERE product = $1 AND user_id = $2 AND seq >= $3 AND seq < $4 GROUP BY kind, bucket \
         ORDER BY kind, bucket LIMIT 1000")
    .bind(product)
    .bind(user_id)
    .bind(from)
    .bind(to)
    .all(on)
    .await
}

/// The stored parts of the totals of a product: (account, balance).
pub async fn total_list(on: &impl On, product: &str) -> Result<Vec<(String, i64)>, DbError> {
    sql("SELECT account, balance FROM ledger_totals WHERE product = $1 ORDER BY account, shard LIMIT 100000")
        .bind(product)
        .all(on)
        .await
}
