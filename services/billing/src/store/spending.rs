//! What API keys have spent.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::spending::Spending;
use crate::store::wallet::WalletId;

/// An API key of an account: product, account, key.
pub type KeyId = (String, String, String);

record! {
    /// What a key has spent, as it is stored.
    #[derive(Clone, Debug)]
    pub struct SpendingRow {
        product: String,
        /// Whose key.
        pub user_id: String,
        /// The key.
        pub key_id: String,
        /// Micro-credits.
        pub spent: i64,
        /// Micro-credits.
        pub held: i64,
    }
}

impl SpendingRow {
    /// Whose wallet, which key, and what it has spent.
    pub fn into_parts(self) -> (WalletId, String, Spending) {
        ((self.product, self.user_id), self.key_id, Spending { spent: self.spent, held: self.held })
    }
}

/// What a key has spent; none if it never has.
pub async fn spending_find(on: &impl On, (product, user_id, key_id): &KeyId) -> Result<Option<SpendingRow>, DbError> {
    sql("SELECT product, user_id, key_id, spent, held FROM key_spending \
         WHERE product = $1 AND user_id = $2 AND key_id = $3")
    .bind(product)
    .bind(user_id)
    .bind(key_id)
    .opt(on)
    .await
}

/// PostgreSQL: what several have spent.
pub async fn spending_find_many(tx: &Tx, keys: &[KeyId]) -> Result<Vec<SpendingRow>, DbError> {
    let of = |part: fn(&KeyId) -> &String| keys.iter().map(|key| part(key).clone()).collect::<Vec<String>>();
    sql("SELECT k.product, k.user_id, k.key_id, k.spent, k.held FROM key_spending k \
         JOIN unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) AS a (product, user_id, key_id) \
         ON k.product = a.product AND k.user_id = a.user_id AND k.key_id = a.key_id")
    .bind(of(|it| &it.0))
    .bind(of(|it| &it.1))
    .bind(of(|it| &it.2))
    .all(tx)
    .await
}

/// What those of an account's keys have spent that a JSON array of text names; at most `limit`.
pub async fn spending_list(
    on: &impl On,
    product: &str,
    user_id: &str,
    key_ids: &str,
    limit: i64,
) -> Result<Vec<SpendingRow>, DbError> {
    sql("SELECT product, user_id, key_id, spent, held FROM key_spending WHERE product = $1 AND user_id = $2 \
         AND key_id IN (SELECT value FROM json_each($3)) LIMIT $4")
    .on_postgres(
        "SELECT product, user_id, key_id, spent, held FROM key_spending WHERE product = $1 AND user_id = $2 \
         AND key_id = ANY(ARRAY(SELECT jsonb_array_elements_text($3::jsonb))) LIMIT $4",
    )
    .bind(product)
    .bind(user_id)
    .bind(key_ids)
    .bind(limit)
    .all(on)
    .await
}

/// Writes what a key has spent, as it becomes. The caller holds the lock of the wallet.
pub async fn spending_put(
    tx: &Tx,
    (product, user_id): &WalletId,
    key_id: &str,
    spending: Spending,
) -> Result<(), DbError> {
    sql("INSERT INTO key_spending (product, user_id, key_id, spent, held) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (product, user_id, key_id) DO UPDATE SET spent = excluded.spent, held = excluded.held")
    .bind(product)
    .bind(user_id)
    .bind(key_id)
    .bind(spending.spent)
    .bind(spending.held)
    .run(tx)
    .await
    .map(drop)
}

record! {
    /// What a key has spent, twice: as it is stored, and as its holds add up.
    #[derive(Clone, Debug)]
    pub struct RecountRow {
        /// Whose key.
        pub user_id: String,
        /// The key.
        pub key_id: String,
        /// As it is stored; none: nothing is.
        pub spent: Option<i64>,
        /// As it is stored; none: nothing is.
        pub held: Option<i64>,
        /// What its holds were charged that are still kept.
        pub charged: i64,
        /// What its open holds have set aside.
        pub open: i64,
    }
}

/// What the keys have spent of the wallets from `from` to `to`, both included.
pub async fn spending_recount(on: &impl On, product: &str, from: &str, to: &str) -> Result<Vec<RecountRow>, DbError> {
    sql("SELECT t.user_id, t.key_id, MAX(t.spent) AS spent, MAX(t.held) AS held, \
         CAST(SUM(t.charged) AS BIGINT) AS charged, CAST(SUM(t.open) AS BIGINT) AS open FROM ( \
         SELECT user_id, key_id, spent, held, 0 AS charged, 0 AS open FROM key_spending \
             WHERE product = $1 AND user_id >= $2 AND user_id <= $3 \
         UNION ALL SELECT user_id, key_id, NULL, NULL, charged, \
             CASE WHEN state = 'open' THEN daily + bonus + purchased ELSE 0 END FROM holds \
             WHERE product = $1 AND user_id >= $2 AND user_id <= $3 AND key_id <> '') t \
         GROUP BY t.user_id, t.key_id ORDER BY t.user_id, t.key_id")
    .bind(product)
    .bind(from)
    .bind(to)
    .all(on)
    .await
}
