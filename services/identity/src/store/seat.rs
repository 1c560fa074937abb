//! Who should sit on whose seats, and who is asking billing about one right now.
use weft_db::{Db, DbError, On, Tx, record, sql};

/// Most people on the seats of one payer; billing sells no more.
pub const MOST_SEATED: i64 = 10_000;

record! {
    /// A payer that is this worker's to look at until its lease ends.
    #[derive(Clone, Debug)]
    pub struct PayerRow {
        /// Slug of the product.
        pub product: String,
        /// Whose subscription pays.
        pub payer_id: String,
        /// Changes with every change of who should sit.
        pub generation: i64,
        /// How often in a row billing could not be asked.
        pub failures: i64,
    }
}

/// Somebody asks billing about a seat.
pub struct NewIntent<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Whose subscription pays.
    pub payer_id: &'a str,
    /// Who is to sit or to go.
    pub account_id: &'a str,
    /// Which attempt.
    pub id: &'a str,
    /// Whether the seat is released.
    pub releases: bool,
    /// When it is over even if nobody says so, in ms since 1970.
    pub expires_at: i64,
}

/// Notes a change of who should sit on a payer's seats, which is looked at no later than `due_at` (ms since 1970). Locks
/// the payer's row until the transaction ends.
pub async fn payer_touch(tx: &Tx, product: &str, payer_id: &str, due_at: i64) -> Result<(), DbError> {
    sql("INSERT INTO seat_payers (product, payer_id, due_at, generation, failures) VALUES ($1, $2, $3, 1, 0) \
         ON CONFLICT (product, payer_id) DO UPDATE SET generation = seat_payers.generation + 1, \
         due_at = CASE WHEN seat_payers.due_at < excluded.due_at THEN seat_payers.due_at ELSE excluded.due_at END")
    .bind(product)
    .bind(payer_id)
    .bind(due_at)
    .run(tx)
    .await
    .map(drop)
}

/// Locks a payer until the transaction ends; false if there is none.
pub async fn payer_lock(tx: &Tx, product: &str, payer_id: &str) -> Result<bool, DbError> {
    let rows = sql("UPDATE seat_payers SET failures = failures WHERE product = $1 AND payer_id = $2")
        .bind(product)
        .bind(payer_id)
        .run(tx)
        .await?;
    Ok(rows == 1)
}

/// Takes the payer that has been due for longest, until `until_ms`.
pub async fn payer_claim(db: &Db, now_ms: i64, until_ms: i64) -> Result<Option<PayerRow>, DbError> {
    sql("UPDATE seat_payers SET due_at = $2 WHERE (product, payer_id) IN \
         (SELECT product, payer_id FROM seat_payers WHERE due_at <= $1 ORDER BY due_at LIMIT 1) \
         RETURNING product, payer_id, generation, failures")
    .on_postgres(
        "WITH due AS (SELECT product, payer_id FROM seat_payers WHERE due_at <= $1 ORDER BY due_at LIMIT 1 \
             FOR UPDATE SKIP LOCKED) \
         UPDATE seat_payers p SET due_at = $2 FROM due WHERE p.product = due.product AND p.payer_id = due.payer_id \
         RETURNING p.product, p.payer_id, p.generation, p.failures",
    )
    .bind(now_ms)
    .bind(until_ms)
    .opt(db)
    .await
}

/// Puts a payer off until `due_at`; if something changed since it was claimed, until `again_at`.
pub async fn payer_put_off(
    db: &Db,
    payer: &PayerRow,
    due_at: i64,
    again_at: i64,
    failures: i64,
) -> Result<(), DbError> {
    sql("UPDATE seat_payers SET failures = $6, due_at = CASE WHEN generation = $3 THEN $4 ELSE $5 END \
         WHERE product = $1 AND payer_id = $2")
    .bind(&payer.product)
    .bind(&payer.payer_id)
    .bind(payer.generation)
    .bind(due_at)
    .bind(again_at)
    .bind(failures)
    .run(db)
    .await
    .map(drop)
}

/// Forgets a payer for whom nobody sits and nobody should; false if something changed since it was claimed.
pub async fn payer_forget(db: &Db, payer: &PayerRow) -> Result<bool, DbError> {
    let rows = sql("DELETE FROM seat_payers WHERE product = $1 AND payer_id = $2 AND generation = $3 \
         AND NOT EXISTS (SELECT 1 FROM seat_intents i WHERE i.product = $1 AND i.payer_id = $2)")
    .bind(&payer.product)
    .bind(&payer.payer_id)
    .bind(payer.generation)
    .run(db)
    .await?;
    Ok(rows == 1)
}

/// Everybody who is in an organisation of the payer's, the payer too, by id; at most [`MOST_SEATED`].
pub async fn seat_members(on: &impl On, product: &str, payer_id: &str) -> Result<Vec<String>, DbError> {
    sql("SELECT DISTINCT m.account_id FROM organisations o \
         JOIN memberships m ON m.product = o.product AND m.organisation_id = o.id \
         WHERE o.product = $1 AND o.owner_id = $2 ORDER BY m.account_id LIMIT $3")
    .bind(product)
    .bind(payer_id)
    .bind(MOST_SEATED)
    .all(on)
    .await
}

/// Whether an account is in an organisation of the payer's, or if it is the payer, whether anybody else is.
pub async fn seat_is_due(on: &impl On, product: &str, payer_id: &str, account_id: &str) -> Result<bool, DbError> {
    let found: Option<String> = sql("SELECT m.account_id FROM organisations o \
         JOIN memberships m ON m.product = o.product AND m.organisation_id = o.id \
         WHERE o.product = $1 AND o.owner_id = $2 AND m.account_id <> $2 AND ($3 = $2 OR m.account_id = $3) LIMIT 1")
    .bind(product)
    .bind(payer_id)
    .bind(account_id)
    .opt(on)
    .await?;
    Ok(found.is_some())
}

/// Adds an intent; the caller holds the payer's lock.
pub async fn intent_insert(tx: &Tx, new: &NewIntent<'_>) -> Result<(), DbError> {
    sql("INSERT INTO seat_intents (product, payer_id, account_id, id, releases, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)")
    .bind(new.product)
    .bind(new.payer_id)
    .bind(new.account_id)
    .bind(new.id)
    .bind(new.releases)
    .bind(new.expires_at)
    .run(tx)
    .await
    .map(drop)
}

/// Whether anybody takes (`releases` false) or releases a seat of the payer's for one of two accounts right now.
pub async fn intent_exists(
    tx: &Tx,
    product: &str,
    payer_id: &str,
    accounts: [&str; 2],
    releases: bool,
    now_ms: i64,
) -> Result<bool, DbError> {
    let found: Option<String> = sql("SELECT id FROM seat_intents WHERE product = $1 AND payer_id = $2 \
         AND account_id IN ($3, $4) AND releases = $5 AND expires_at > $6 LIMIT 1")
    .bind(product)
    .bind(payer_id)
    .bind(accounts[0])
    .bind(accounts[1])
    .bind(releases)
    .bind(now_ms)
    .opt(tx)
    .await?;
    Ok(found.is_some())
}

/// Whether anybody is about to join an organisation of the payer's.
pub async fn intent_to_join(tx: &Tx, product: &str, payer_id: &str, now_ms: i64) -> Result<bool, DbError> {
    let found: Option<String> = sql("SELECT id FROM seat_intents WHERE product = $1 AND payer_id = $2 \
         AND NOT releases AND expires_at > $3 LIMIT 1")
    .bind(product)
    .bind(payer_id)
    .bind(now_ms)
    .opt(tx)
    .await?;
    Ok(found.is_some())
}

/// Ends an intent; false if it is over already.
pub async fn intent_end(on: &impl On, intent: &NewIntent<'_>, now_ms: i64) -> Result<bool, DbError> {
    let alive: Option<i64> = sql("DELETE FROM seat_intents WHERE product = $1 AND payer_id = $2 AND account_id = $3 \
         AND id = $4 RETURNING expires_at")
    .bind(intent.product)
    .bind(intent.payer_id)
    .bind(intent.account_id)
    .bind(intent.id)
    .opt(on)
    .await?;
    Ok(alive.is_some_and(|until_ms| until_ms > now_ms))
}

/// When the first of a payer's intents runs out, in ms since 1970.
pub async fn intent_next(on: &impl On, product: &str, payer_id: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT expires_at FROM seat_intents WHERE product = $1 AND payer_id = $2 ORDER BY expires_at LIMIT 1")
        .bind(product)
        .bind(payer_id)
        .opt(on)
        .await
}

/// Deletes what crashes left of a payer's intents.
pub async fn intent_prune(on: &impl On, product: &str, payer_id: &str, now_ms: i64) -> Result<(), DbError> {
    sql("DELETE FROM seat_intents WHERE product = $1 AND payer_id = $2 AND expires_at <= $3")
        .bind(product)
        .bind(payer_id)
        .bind(now_ms)
        .run(on)
        .await
        .map(drop)
}
