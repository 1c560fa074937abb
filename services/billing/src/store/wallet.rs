//! Wallets.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::ledger::HASH_BYTES;
use crate::domain::wallet::Wallet;

/// Whose wallet: product and account.
pub type WalletId = (String, String);

macro_rules! columns {
    () => {
        "w.product, w.user_id, w.version, w.seq, w.head, w.daily, w.bonus, w.purchased, w.daily_held, w.bonus_held, \
         w.purchased_held, w.debt, w.day, w.daily_granted, w.updated_at"
    };
}

record! {
    /// A wallet as it is stored.
    #[derive(Clone, Debug)]
    pub struct WalletRow {
        product: String,
        /// Whose.
        pub user_id: String,
        version: i64,
        seq: i64,
        head: Vec<u8>,
        daily: i64,
        bonus: i64,
        purchased: i64,
        daily_held: i64,
        bonus_held: i64,
        purchased_held: i64,
        debt: i64,
        day: i64,
        daily_granted: i64,
        updated_at: i64,
    }
}

impl WalletRow {
    /// Whose it is.
    pub fn id(&self) -> WalletId {
        (self.product.clone(), self.user_id.clone())
    }

    /// What it is. A head that is no hash becomes zeros, so that the chain breaks there.
    pub fn wallet(&self) -> Wallet {
        Wallet {
            version: self.version,
            seq: self.seq,
            head: <[u8; HASH_BYTES]>::try_from(self.head.as_slice()).unwrap_or_default(),
            buckets: [self.daily, self.bonus, self.purchased],
            held: [self.daily_held, self.bonus_held, self.purchased_held],
            debt: self.debt,
            day: self.day,
            daily_granted: self.daily_granted,
            updated_at: self.updated_at,
        }
    }
}

/// A wallet as it is now.
pub async fn wallet_find(on: &impl On, product: &str, user_id: &str) -> Result<Option<Wallet>, DbError> {
    let row: Option<WalletRow> =
        sql(concat!("SELECT ", columns!(), " FROM wallets w WHERE w.product = $1 AND w.user_id = $2"))
            .bind(product)
            .bind(user_id)
            .opt(on)
            .await?;
    Ok(row.map(|row| row.wallet()))
}

/// Makes an empty wallet if there is none.
pub async fn wallet_create(tx: &Tx, product: &str, user_id: &str) -> Result<(), DbError> {
    sql("INSERT INTO wallets (product, user_id, version, seq, head, daily, bonus, purchased, daily_held, bonus_held, \
         purchased_held, debt, day, daily_granted, updated_at) \
         VALUES ($1, $2, 0, 0, $3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT (product, user_id) DO NOTHING")
    .bind(product)
    .bind(user_id)
    .bind(&[0; HASH_BYTES][..])
    .run(tx)
    .await
    .map(drop)
}

/// PostgreSQL: makes the wallets that there are none of. In the order of [`wallets_lock`], so that two transactions
/// cannot wait for each other.
pub async fn wallets_create(tx: &Tx, ids: &[WalletId]) -> Result<(), DbError> {
    let (products, users): (Vec<String>, Vec<String>) = ids.iter().cloned().unzip();
    sql("INSERT INTO wallets (product, user_id, version, seq, head, daily, bonus, purchased, daily_held, bonus_held, \
         purchased_held, debt, day, daily_granted, updated_at) \
         SELECT a.product, a.user_id, 0, 0, $3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
         FROM unnest($1::TEXT[], $2::TEXT[]) AS a (product, user_id) ORDER BY 1, 2 \
         ON CONFLICT (product, user_id) DO NOTHING")
    .bind(products)
    .bind(users)
    .bind(&[0; HASH_BYTES][..])
    .run(tx)
    .await
    .map(drop)
}

/// PostgreSQL: the wallets, locked until the transaction ends. Everybody locks in this order.
pub async fn wallets_lock(tx: &Tx, ids: &[WalletId]) -> Result<Vec<WalletRow>, DbError> {
    let (products, users): (Vec<String>, Vec<String>) = ids.iter().cloned().unzip();
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM wallets w JOIN unnest($1::TEXT[], $2::TEXT[]) AS a (product, user_id) \
         ON w.product = a.product AND w.user_id = a.user_id ORDER BY w.product, w.user_id FOR UPDATE OF w"
    ))
    .bind(products)
    .bind(users)
    .all(tx)
    .await
}

/// Wallets of a product in their order, after `after`, up to and with `to` if it is said.
pub async fn wallet_page(
    on: &impl On,
    product: &str,
    after: &str,
    to: Option<&str>,
    limit: i64,
) -> Result<Vec<WalletRow>, DbError> {
    sql(concat!(
        "SELECT ",
        columns!(),
        " FROM wallets w WHERE w.product = $1 AND w.user_id > $2 AND ($3 IS NULL OR w.user_id <= $3) \
         ORDER BY w.user_id LIMIT $4"
    ))
    .bind(product)
    .bind(after)
    .bind(to)
    .bind(limit)
    .all(on)
    .await
}

/// Wallets whose daily bucket was used on a day before `today` and not set anew since: in their order, after `after`.
pub async fn wallet_used_before(
    on: &impl On,
    product: &str,
    today: i64,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    sql("SELECT user_id FROM wallets WHERE product = $1 AND user_id > $2 AND day < $3 AND daily <> daily_granted \
         ORDER BY user_id LIMIT $4")
    .bind(product)
    .bind(after)
    .bind(today)
    .bind(limit)
    .all(on)
    .await
}
