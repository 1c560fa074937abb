//! The writing of movements and of everything that belongs together with them.
use std::collections::BTreeMap;

use weft_db::{DbError, On, Tx, sql};

use crate::domain::hold::Hold;
use crate::domain::idempotency::Key;
use crate::domain::ledger::{Bucket, HASH_BYTES, Kind};
use crate::domain::spending::Spending;
use crate::domain::wallet::Wallet;
use crate::error::Error;
use crate::store::group::Values;
use crate::store::spending::spending_put;
use crate::store::wallet::WalletId;

/// Parts of an account's total.
pub const SHARDS: i64 = 64;

/// A movement that is to be written.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Whose wallet.
    pub wallet: WalletId,
    /// Number in its wallet.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// Where.
    pub bucket: Bucket,
    /// Why.
    pub kind: Kind,
    /// How much.
    pub amount: i64,
    /// What is there afterwards.
    pub balance_after: i64,
    /// What for.
    pub reference: String,
    /// ms since 1970.
    pub created_at: i64,
    /// Over all of this and the hash before.
    pub hash: [u8; HASH_BYTES],
}

/// What is written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Wallets as they become, each with the version that it must have before.
    pub wallets: Vec<(WalletId, i64, Wallet)>,
    /// Movements.
    pub entries: Vec<NewEntry>,
    /// Holds that are made, as they become.
    pub opened: Vec<(WalletId, Hold)>,
    /// Holds that were there, as they become.
    pub holds: Vec<(WalletId, Hold)>,
    /// What API keys have spent, as it becomes.
    pub spending: Vec<(WalletId, String, Spending)>,
    /// Answers under their keys.
    pub keys: Vec<(Key, Vec<u8>)>,
    /// What each (product, account) gets.
    pub totals: BTreeMap<(String, &'static str), i64>,
    /// Which part of the totals is ours.
    pub shard: i64,
    /// When, ms since 1970.
    pub now_ms: i64,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.wallets.is_empty() && self.keys.is_empty()
    }

    /// The last look before it is written, on either database.
    fn check(&self) -> Result<(), Error> {
        let wallet = self.wallets.iter().find(|(_, _, wallet)| !wallet.is_sound()).map(|(id, ..)| id);
        let hold = self.opened.iter().chain(&self.holds).find(|(_, hold)| !hold.is_sound()).map(|(id, _)| id);
        let entry = self.entries.iter().find(|entry| entry.amount == 0).map(|entry| &entry.wallet);
        let Some((product, user_id)) = wallet.or(hold).or(entry) else { return Ok(()) };
        tracing::error!(product, user_id, "a wallet, or a hold or movement of it, would become what it cannot be");
        Err(Error::Unsound)
    }
}

/// PostgreSQL: all of it in one statement, if every wallet still has its version; false and nothing else if not. A key
/// that was used before is a unique violation, and again nothing has happened.
///
/// # Errors
/// The database, or [`Error::Unsound`].
pub async fn batch_commit(on: &impl On, batch: &Batch) -> Result<bool, Error> {
    batch.check()?;
    let mut values = Values::default();
    let mut parts = wallets_part(&mut values, &batch.wallets);
    parts.extend(entries_part(&mut values, &batch.entries));
    parts.extend(holds_part(&mut values, "new_holds", &batch.opened, ""));
    parts.extend(holds_part(&mut values, "changed_holds", &batch.holds, CHANGED_HOLDS));
    parts.extend(spending_part(&mut values, &batch.spending));
    parts.extend(keys_part(&mut values, &batch.keys, batch.now_ms));
    let totals: Vec<_> = batch.totals.iter().collect();
    parts.extend(totals_part(&mut values, &totals, batch.shard));
    let text = format!("WITH {} SELECT TRUE AS yes FROM {AGREED}", parts.join(", "));
    let agreed: Option<bool> = values.into_sql(text).opt(on).await?;
    Ok(agreed.is_some())
}

/// One row if every wallet has its version, and none if not: whatever else is written is written for each of its rows.
const AGREED: &str = "agreed";

/// The wallets are locked first, and in order; the rest then meets nobody.
fn wallets_part(values: &mut Values, wallets: &[(WalletId, i64, Wallet)]) -> Vec<String> {
    let Some(rows) = values.rows(wallets) else { return vec![format!("{AGREED} AS (SELECT)")] };
    let rows = rows
        .text("product", |((product, _), _, _)| product)
        .text("user_id", |((_, user_id), _, _)| user_id)
        .int("before", |(_, before, _)| *before)
        .int("version", |(_, _, it)| it.version)
        .int("seq", |(_, _, it)| it.seq)
        .bytes("head", |(_, _, it)| it.head.to_vec())
        .int("daily", |(_, _, it)| it.buckets[0])
        .int("bonus", |(_, _, it)| it.buckets[1])
        .int("purchased", |(_, _, it)| it.buckets[2])
        .int("daily_held", |(_, _, it)| it.held[0])
        .int("bonus_held", |(_, _, it)| it.held[1])
        .int("purchased_held", |(_, _, it)| it.held[2])
        .int("debt", |(_, _, it)| it.debt)
        .int("day", |(_, _, it)| it.day)
        .int("daily_granted", |(_, _, it)| it.daily_granted)
        .int("updated_at", |(_, _, it)| it.updated_at);
    let source = rows.source();
    if wallets.len() == 1 {
        let changed = format!("{UPDATE} FROM {source} WHERE {SAME} AND w.version = a.before RETURNING 1");
        return vec![format!("{AGREED} AS ({changed})")];
    }
    vec![
        format!("a AS MATERIALIZED (SELECT * FROM {source})"),
        format!(
            "locked AS MATERIALIZED (SELECT 1 FROM wallets w JOIN a ON {SAME} WHERE w.version = a.before \
             ORDER BY w.product, w.user_id FOR UPDATE OF w)"
        ),
        // Not the number itself: a text for each number would be a statement to prepare for each.
        format!("{AGREED} AS MATERIALIZED (SELECT FROM locked HAVING COUNT(*) = (SELECT COUNT(*) FROM a))"),
        format!("changed AS ({UPDATE} FROM {AGREED}, a WHERE {SAME})"),
    ]
}

const SAME: &str = "w.product = a.product AND w.user_id = a.user_id";

const UPDATE: &str = "UPDATE wallets w SET version = a.version, seq = a.seq, head = a.head, daily = a.daily, \
    bonus = a.bonus, purchased = a.purchased, daily_held = a.daily_held, bonus_held = a.bonus_held, \
    purchased_held = a.purchased_held, debt = a.debt, day = a.day, daily_granted = a.daily_granted, \
    updated_at = a.updated_at";

fn entries_part(values: &mut Values, entries: &[NewEntry]) -> Option<String> {
    let rows = values
        .rows(entries)?
        .text("product", |it| &it.wallet.0)
        .text("user_id", |it| &it.wallet.1)
        .int("seq", |it| it.seq)
        .text("id", |it| &it.id)
        .text("bucket", |it| it.bucket.as_str())
        .text("kind", |it| it.kind.as_str())
        .text("account", |it| it.kind.account())
        .int("amount", |it| it.amount)
        .int("balance_after", |it| it.balance_after)
        .text("reference", |it| &it.reference)
        .int("created_at", |it| it.created_at)
        .bytes("hash", |it| it.hash.to_vec());
    Some(format!("new_entries AS ({})", rows.insert("ledger_entries", AGREED, "")))
}

/// Not by an UPDATE that joins several rows: what is planned while the table is small reads all of it.
const CHANGED_HOLDS: &str = "ON CONFLICT (product, user_id, id) DO UPDATE SET state = excluded.state, \
    charged = excluded.charged, progress = excluded.progress, reported = excluded.reported, \
    capped = excluded.capped, expires_at = excluded.expires_at";

fn holds_part(values: &mut Values, name: &str, holds: &[(WalletId, Hold)], conflict: &str) -> Option<String> {
    let rows = values
        .rows(holds)?
        .text("product", |((product, _), _)| product)
        .text("user_id", |((_, user_id), _)| user_id)
        .text("id", |(_, it)| &it.id)
        .text("state", |(_, it)| it.state.as_str())
        .int("daily", |(_, it)| it.daily)
        .int("bonus", |(_, it)| it.bonus)
        .int("purchased", |(_, it)| it.purchased)
        .int("day", |(_, it)| it.day)
        .int("charged", |(_, it)| it.charged)
        .int("progress", |(_, it)| it.progress)
        .int("reported", |(_, it)| it.reported)
        .flag("capped", |(_, it)| it.capped)
        .int("ttl_ms", |(_, it)| it.ttl_ms)
        .int("created_at", |(_, it)| it.created_at)
        .int("expires_at", |(_, it)| it.expires_at)
        .text("reference", |(_, it)| &it.reference)
        .text("key_id", |(_, it)| &it.key_id);
    Some(format!("{name} AS ({})", rows.insert("holds", AGREED, conflict)))
}

fn spending_part(values: &mut Values, spending: &[(WalletId, String, Spending)]) -> Option<String> {
    let rows = values
        .rows(spending)?
        .text("product", |((product, _), _, _)| product)
        .text("user_id", |((_, user_id), _, _)| user_id)
        .text("key_id", |(_, key_id, _)| key_id)
        .int("spent", |(_, _, it)| it.spent)
        .int("held", |(_, _, it)| it.held);
    let changed = "ON CONFLICT (product, user_id, key_id) DO UPDATE SET spent = excluded.spent, held = excluded.held";
    Some(format!("new_spending AS ({})", rows.insert("key_spending", AGREED, changed)))
}

fn keys_part(values: &mut Values, keys: &[(Key, Vec<u8>)], now_ms: i64) -> Option<String> {
    let rows = values
        .rows(keys)?
        .text("product", |(it, _)| &it.product)
        .text("user_id", |(it, _)| &it.user_id)
        .text("method", |(it, _)| it.method)
        .text("key", |(it, _)| &it.key)
        .bytes("request", |(it, _)| it.request.to_vec())
        .bytes("answer", |(_, answer)| answer.clone())
        .int("created_at", |_| now_ms);
    Some(format!("new_keys AS ({})", rows.insert("idempotency_keys", AGREED, "")))
}

fn totals_part(values: &mut Values, totals: &[(&(String, &'static str), &i64)], shard: i64) -> Option<String> {
    let rows = values
        .rows(totals)?
        .text("product", |((product, _), _)| product)
        .text("account", |((_, account), _)| account)
        .int("shard", |_| shard)
        .int("balance", |(_, amount)| **amount);
    let changed =
        "ON CONFLICT (product, account, shard) DO UPDATE SET balance = ledger_totals.balance + excluded.balance";
    Some(format!("new_totals AS ({})", rows.insert("ledger_totals", AGREED, changed)))
}

/// SQLite: the same row by row; the transaction is the only one that writes.
///
/// # Errors
/// The database, or [`Error::Unsound`].
pub async fn batch_write(tx: &Tx, batch: &Batch) -> Result<(), Error> {
    batch.check()?;
    for (id, _, wallet) in &batch.wallets {
        wallet_update(tx, id, wallet).await?;
    }
    for entry in &batch.entries {
        entry_insert(tx, entry).await?;
    }
    for (id, hold) in batch.opened.iter().chain(&batch.holds) {
        hold_put(tx, id, hold).await?;
    }
    for (id, key_id, spending) in &batch.spending {
        spending_put(tx, id, key_id, *spending).await?;
    }
    for (key, answer) in &batch.keys {
        if !super::idempotency::idempotency_store(tx, key, answer, batch.now_ms).await? {
            return Err(DbError::RolledBack.into());
        }
    }
    for ((product, account), amount) in &batch.totals {
        sql("INSERT INTO ledger_totals (product, account, shard, balance) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (product, account, shard) DO UPDATE SET balance = ledger_totals.balance + excluded.balance")
        .bind(product)
        .bind(*account)
        .bind(batch.shard)
        .bind(*amount)
        .run(tx)
        .await?;
    }
    Ok(())
}

async fn wallet_update(tx: &Tx, (product, user_id): &WalletId, wallet: &Wallet) -> Result<(), DbError> {
    sql("UPDATE wallets SET version = $3, seq = $4, head = $5, daily = $6, bonus = $7, purchased = $8, \
         daily_held = $9, bonus_held = $10, purchased_held = $11, debt = $12, day = $13, daily_granted = $14, \
         updated_at = $15 WHERE product = $1 AND user_id = $2")
    .bind(product)
    .bind(user_id)
    .bind(wallet.version)
    .bind(wallet.seq)
    .bind(&wallet.head[..])
    .bind(wallet.buckets[0])
    .bind(wallet.buckets[1])
    .bind(wallet.buckets[2])
    .bind(wallet.held[0])
    .bind(wallet.held[1])
    .bind(wallet.held[2])
    .bind(wallet.debt)
    .bind(wallet.day)
    .bind(wallet.daily_granted)
    .bind(wallet.updated_at)
    .run(tx)
    .await
    .map(drop)
}

async fn entry_insert(tx: &Tx, entry: &NewEntry) -> Result<(), DbError> {
    sql("INSERT INTO ledger_entries (product, user_id, seq, id, bucket, kind, account, amount, balance_after, \
         reference, created_at, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
    .bind(&entry.wallet.0)
    .bind(&entry.wallet.1)
    .bind(entry.seq)
    .bind(&entry.id)
    .bind(entry.bucket.as_str())
    .bind(entry.kind.as_str())
    .bind(entry.kind.account())
    .bind(entry.amount)
    .bind(entry.balance_after)
    .bind(&entry.reference)
    .bind(entry.created_at)
    .bind(&entry.hash[..])
    .run(tx)
    .await
    .map(drop)
}

async fn hold_put(tx: &Tx, (product, user_id): &WalletId, hold: &Hold) -> Result<(), DbError> {
    sql("INSERT INTO holds (product, user_id, id, state, daily, bonus, purchased, day, charged, progress, reported, \
         capped, ttl_ms, created_at, expires_at, reference, key_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT (product, user_id, id) DO UPDATE SET state = excluded.state, charged = excluded.charged, \
         progress = excluded.progress, reported = excluded.reported, capped = excluded.capped, \
         expires_at = excluded.expires_at")
    .bind(product)
    .bind(user_id)
    .bind(&hold.id)
    .bind(hold.state.as_str())
    .bind(hold.daily)
    .bind(hold.bonus)
    .bind(hold.purchased)
    .bind(hold.day)
    .bind(hold.charged)
    .bind(hold.progress)
    .bind(hold.reported)
    .bind(hold.capped)
    .bind(hold.ttl_ms)
    .bind(hold.created_at)
    .bind(hold.expires_at)
    .bind(&hold.reference)
    .bind(&hold.key_id)
    .run(tx)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_not_written() {
        let id = || ("companion".to_owned(), "ana".to_owned());
        let hold = |charged, progress| vec![(id(), Hold { bonus: 5, charged, progress, ..Hold::default() })];
        let wallet = |held| vec![(id(), 1, Wallet { buckets: [0, 5, 0], held: [0, held, 0], ..Wallet::default() })];
        let batch = |held, opened, holds| Batch { wallets: wallet(held), opened, holds, ..Batch::default() };
        assert!(batch(5, hold(5, 0), hold(0, 5)).check().is_ok());
        let more =
            [batch(6, Vec::new(), Vec::new()), batch(5, hold(6, 0), Vec::new()), batch(5, Vec::new(), hold(0, 6))];
        for batch in more {
            assert!(matches!(batch.check(), Err(Error::Unsound)), "{batch:?}");
        }
    }
}
