//! The writing of movements and of everything that belongs together with them.
use std::collections::BTreeMap;

use weft_db::{DbError, On, Sql, Tx, sql};

use crate::domain::hold::Hold;
use crate::domain::idempotency::Key;
use crate::domain::ledger::{Bucket, HASH_BYTES, Kind};
use crate::domain::spending::Spending;
use crate::domain::wallet::Wallet;
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
    /// Holds as they become.
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
}

/// PostgreSQL: all of it in one statement, if every wallet still has its version; false and nothing else if not. A key
/// that was used before is a unique violation, and again nothing has happened.
pub async fn batch_commit(on: &impl On, batch: &Batch) -> Result<bool, DbError> {
    let Batch { wallets, entries, holds, spending, keys, totals, shard, now_ms } = batch;
    let wallet = |number: fn(&Wallet) -> i64| wallets.iter().map(|(_, _, wallet)| number(wallet)).collect::<Vec<i64>>();
    let entry = |number: fn(&NewEntry) -> i64| entries.iter().map(number).collect::<Vec<i64>>();
    let entry_text =
        |text: fn(&NewEntry) -> &str| entries.iter().map(|it| text(it).to_owned()).collect::<Vec<String>>();
    let hold = |number: fn(&Hold) -> i64| holds.iter().map(|(_, hold)| number(hold)).collect::<Vec<i64>>();
    let hold_text = |text: fn(&Hold) -> &str| holds.iter().map(|(_, it)| text(it).to_owned()).collect::<Vec<String>>();
    let key_text = |text: fn(&Key) -> &str| keys.iter().map(|(it, _)| text(it).to_owned()).collect::<Vec<String>>();
    let commit = sql(if spending.is_empty() { COMMIT } else { COMMIT_WITH_KEYS })
        .bind(wallets.iter().map(|((product, _), _, _)| product.clone()).collect::<Vec<_>>())
        .bind(wallets.iter().map(|((_, user_id), _, _)| user_id.clone()).collect::<Vec<_>>())
        .bind(wallets.iter().map(|(_, before, _)| *before).collect::<Vec<_>>())
        .bind(wallet(|it| it.version))
        .bind(wallet(|it| it.seq))
        .bind(wallets.iter().map(|(_, _, wallet)| wallet.head.to_vec()).collect::<Vec<_>>())
        .bind(wallet(|it| it.buckets[0]))
        .bind(wallet(|it| it.buckets[1]))
        .bind(wallet(|it| it.buckets[2]))
        .bind(wallet(|it| it.held[0]))
        .bind(wallet(|it| it.held[1]))
        .bind(wallet(|it| it.held[2]))
        .bind(wallet(|it| it.debt))
        .bind(wallet(|it| it.day))
        .bind(wallet(|it| it.daily_granted))
        .bind(wallet(|it| it.updated_at))
        .bind(entry_text(|it| &it.wallet.0))
        .bind(entry_text(|it| &it.wallet.1))
        .bind(entry(|it| it.seq))
        .bind(entry_text(|it| &it.id))
        .bind(entry_text(|it| it.bucket.as_str()))
        .bind(entry_text(|it| it.kind.as_str()))
        .bind(entry_text(|it| it.kind.account()))
        .bind(entry(|it| it.amount))
        .bind(entry(|it| it.balance_after))
        .bind(entry_text(|it| &it.reference))
        .bind(entry(|it| it.created_at))
        .bind(entries.iter().map(|it| it.hash.to_vec()).collect::<Vec<_>>())
        .bind(holds.iter().map(|((product, _), _)| product.clone()).collect::<Vec<_>>())
        .bind(holds.iter().map(|((_, user_id), _)| user_id.clone()).collect::<Vec<_>>())
        .bind(hold_text(|it| &it.id))
        .bind(hold_text(|it| it.state.as_str()))
        .bind(hold(|it| it.daily))
        .bind(hold(|it| it.bonus))
        .bind(hold(|it| it.purchased))
        .bind(hold(|it| it.day))
        .bind(hold(|it| it.charged))
        .bind(hold(|it| it.progress))
        .bind(hold(|it| it.reported))
        .bind(holds.iter().map(|(_, hold)| hold.capped).collect::<Vec<_>>())
        .bind(hold(|it| it.ttl_ms))
        .bind(hold(|it| it.created_at))
        .bind(hold(|it| it.expires_at))
        .bind(hold_text(|it| &it.reference))
        .bind(key_text(|it| &it.product))
        .bind(key_text(|it| &it.user_id))
        .bind(key_text(|it| it.method))
        .bind(key_text(|it| &it.key))
        .bind(keys.iter().map(|(key, _)| key.request.to_vec()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, answer)| answer.clone()).collect::<Vec<_>>())
        .bind(totals.keys().map(|(product, _)| product.clone()).collect::<Vec<_>>())
        .bind(totals.keys().map(|(_, account)| (*account).to_owned()).collect::<Vec<_>>())
        .bind(totals.values().copied().collect::<Vec<_>>())
        .bind(*shard)
        .bind(*now_ms);
    if spending.is_empty() { commit.one(on).await } else { with_keys(commit, batch).one(on).await }
}

/// Adds what [`COMMIT_WITH_KEYS`] has besides.
fn with_keys(commit: Sql, Batch { holds, spending, .. }: &Batch) -> Sql {
    commit
        .bind(holds.iter().map(|(_, hold)| hold.key_id.clone()).collect::<Vec<_>>())
        .bind(spending.iter().map(|((product, _), _, _)| product.clone()).collect::<Vec<_>>())
        .bind(spending.iter().map(|((_, user_id), _, _)| user_id.clone()).collect::<Vec<_>>())
        .bind(spending.iter().map(|(_, key_id, _)| key_id.clone()).collect::<Vec<_>>())
        .bind(spending.iter().map(|(_, _, spending)| spending.spent).collect::<Vec<_>>())
        .bind(spending.iter().map(|(_, _, spending)| spending.held).collect::<Vec<_>>())
}

/// The locks come first and in order, and nothing is written unless all are held; the rest then meets nobody.
///
/// `$column` and `$values` are what a hold has besides, `$spending` is what else is written.
macro_rules! commit {
    ($column:literal, $values:literal, $spending:literal) => {
        concat!(
            "\
WITH locked AS MATERIALIZED ( \
    SELECT 1 FROM wallets w JOIN unnest($1::TEXT[], $2::TEXT[], $3::BIGINT[]) AS a (product, user_id, version) \
    ON w.product = a.product AND w.user_id = a.user_id WHERE w.version = a.version \
    ORDER BY w.product, w.user_id FOR UPDATE OF w), \
agreed AS MATERIALIZED (SELECT COUNT(*) = cardinality($1::TEXT[]) AS yes FROM locked), \
new_wallets AS ( \
    UPDATE wallets w SET version = a.version, seq = a.seq, head = a.head, daily = a.daily, bonus = a.bonus, \
    purchased = a.purchased, daily_held = a.daily_held, bonus_held = a.bonus_held, \
    purchased_held = a.purchased_held, debt = a.debt, day = a.day, daily_granted = a.daily_granted, \
    updated_at = a.updated_at \
    FROM unnest($1::TEXT[], $2::TEXT[], $4::BIGINT[], $5::BIGINT[], $6::BYTEA[], $7::BIGINT[], $8::BIGINT[], \
    $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[], $15::BIGINT[], \
    $16::BIGINT[]) AS a (product, user_id, version, seq, head, daily, bonus, purchased, daily_held, bonus_held, \
    purchased_held, debt, day, daily_granted, updated_at) \
    WHERE w.product = a.product AND w.user_id = a.user_id AND (SELECT yes FROM agreed)), \
new_entries AS ( \
    INSERT INTO ledger_entries (product, user_id, seq, id, bucket, kind, account, amount, balance_after, reference, \
    created_at, hash) \
    SELECT * FROM unnest($17::TEXT[], $18::TEXT[], $19::BIGINT[], $20::TEXT[], $21::TEXT[], $22::TEXT[], $23::TEXT[], \
    $24::BIGINT[], $25::BIGINT[], $26::TEXT[], $27::BIGINT[], $28::BYTEA[]) WHERE (SELECT yes FROM agreed)), \
new_holds AS ( \
    INSERT INTO holds (product, user_id, id, state, daily, bonus, purchased, day, charged, progress, reported, capped, \
    ttl_ms, created_at, expires_at, reference",
            $column,
            ") \
    SELECT * FROM unnest($29::TEXT[], $30::TEXT[], $31::TEXT[], $32::TEXT[], $33::BIGINT[], $34::BIGINT[], \
    $35::BIGINT[], $36::BIGINT[], $37::BIGINT[], $38::BIGINT[], $39::BIGINT[], $40::BOOLEAN[], $41::BIGINT[], \
    $42::BIGINT[], $43::BIGINT[], $44::TEXT[]",
            $values,
            ") WHERE (SELECT yes FROM agreed) \
    ON CONFLICT (product, user_id, id) DO UPDATE SET state = excluded.state, charged = excluded.charged, \
    progress = excluded.progress, reported = excluded.reported, capped = excluded.capped, \
    expires_at = excluded.expires_at), ",
            $spending,
            "new_keys AS ( \
    INSERT INTO idempotency_keys (product, user_id, method, key, request, answer, created_at) \
    SELECT a.*, $55 FROM unnest($45::TEXT[], $46::TEXT[], $47::TEXT[], $48::TEXT[], $49::BYTEA[], $50::BYTEA[]) AS a \
    WHERE (SELECT yes FROM agreed)), \
new_totals AS ( \
    INSERT INTO ledger_totals (product, account, shard, balance) \
    SELECT a.product, a.account, $54, a.amount \
    FROM unnest($51::TEXT[], $52::TEXT[], $53::BIGINT[]) AS a (product, account, amount) \
    WHERE (SELECT yes FROM agreed) \
    ON CONFLICT (product, account, shard) DO UPDATE SET balance = ledger_totals.balance + excluded.balance) \
SELECT yes FROM agreed"
        )
    };
}

/// For what no API key has asked for.
const COMMIT: &str = commit!("", "", "");

/// The same where API keys have spent, or hold, something else afterwards.
const COMMIT_WITH_KEYS: &str = commit!(
    ", key_id",
    ", $56::TEXT[]",
    "new_spending AS ( \
    INSERT INTO key_spending (product, user_id, key_id, spent, held) \
    SELECT * FROM unnest($57::TEXT[], $58::TEXT[], $59::TEXT[], $60::BIGINT[], $61::BIGINT[]) \
    WHERE (SELECT yes FROM agreed) \
    ON CONFLICT (product, user_id, key_id) DO UPDATE SET spent = excluded.spent, held = excluded.held), "
);

/// SQLite: the same row by row; the transaction is the only one that writes.
pub async fn batch_write(tx: &Tx, batch: &Batch) -> Result<(), DbError> {
    for (id, _, wallet) in &batch.wallets {
        wallet_update(tx, id, wallet).await?;
    }
    for entry in &batch.entries {
        entry_insert(tx, entry).await?;
    }
    for (id, hold) in &batch.holds {
        hold_put(tx, id, hold).await?;
    }
    for (id, key_id, spending) in &batch.spending {
        spending_put(tx, id, key_id, *spending).await?;
    }
    for (key, answer) in &batch.keys {
        if !super::idempotency::idempotency_store(tx, key, answer, batch.now_ms).await? {
            return Err(DbError::RolledBack);
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
