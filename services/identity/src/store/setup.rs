//! Links by which products get their first administrator, by their token's keyed hash.
use weft_db::{DbError, On, Tx, sql};

/// Puts a link in the place of the product's last one.
pub async fn setup_put(tx: &Tx, product: &str, hash: &str, now_ms: i64, expires_at: i64) -> Result<(), DbError> {
    sql("INSERT INTO setup_links (product, hash, created_at, expires_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (product) DO UPDATE SET hash = excluded.hash, created_at = excluded.created_at, \
         expires_at = excluded.expires_at")
    .bind(product)
    .bind(hash)
    .bind(now_ms)
    .bind(expires_at)
    .run(tx)
    .await
    .map(drop)
}

/// Whether there is such a link and it is good.
pub async fn setup_is_good(on: &impl On, product: &str, hash: &str, now_ms: i64) -> Result<bool, DbError> {
    let found: i64 = sql("SELECT COUNT(*) FROM setup_links WHERE product = $1 AND hash = $2 AND expires_at > $3")
        .bind(product)
        .bind(hash)
        .bind(now_ms)
        .one(on)
        .await?;
    Ok(found > 0)
}

/// Uses a link up; false if there is none that is good. Of several at once one does.
pub async fn setup_take(tx: &Tx, product: &str, hash: &str, now_ms: i64) -> Result<bool, DbError> {
    let taken = sql("DELETE FROM setup_links WHERE product = $1 AND hash = $2 AND expires_at > $3")
        .bind(product)
        .bind(hash)
        .bind(now_ms)
        .run(tx)
        .await?;
    Ok(taken == 1)
}

/// Whether the product has accounts at all, and whether one is an administrator.
pub async fn setup_state(on: &impl On, product: &str) -> Result<(bool, bool), DbError> {
    let some = sql("SELECT id FROM accounts WHERE product = $1 LIMIT 1").bind(product);
    let admin = sql("SELECT id FROM accounts WHERE product = $1 AND ' ' || roles || ' ' LIKE '% admin %' LIMIT 1");
    let some: Option<String> = some.opt(on).await?;
    let admin: Option<String> = admin.bind(product).opt(on).await?;
    Ok((some.is_some(), admin.is_some()))
}
