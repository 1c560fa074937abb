//! What there is of one account: to give it out, and to delete it.
use weft_db::{Db, DbError, Tx, sql};

use super::provider_key_use::UseRow;

/// Rows that one statement deletes, so that it never holds a writer for long, and that one part of an export has.
pub const PART_ROWS: i64 = 1000;

/// Calls over the account's keys after the key and the call `after`, by key.
pub async fn personal_uses(
    db: &Db,
    product: &str,
    account_id: &str,
    after: (&str, &str),
) -> Result<Vec<UseRow>, DbError> {
    sql(
        "SELECT product, id, provider_key_id, account_id, model, prompt_tokens, completion_tokens, outcome, created_at \
         FROM provider_key_uses WHERE product = $1 AND account_id = $2 AND (provider_key_id, id) > ($3, $4) \
         ORDER BY provider_key_id, id LIMIT $5",
    )
    .bind(product)
    .bind(account_id)
    .bind(after.0)
    .bind(after.1)
    .bind(PART_ROWS)
    .all(db)
    .await
}

/// Deletes some of the calls over the account's keys; says how many.
pub async fn personal_delete_uses(db: &Db, product: &str, account_id: &str) -> Result<u64, DbError> {
    sql("DELETE FROM provider_key_uses WHERE (product, id) IN \
         (SELECT product, id FROM provider_key_uses WHERE product = $1 AND account_id = $2 LIMIT $3)")
    .bind(product)
    .bind(account_id)
    .bind(PART_ROWS)
    .run(db)
    .await
}

/// Deletes the account's keys.
pub async fn personal_delete_keys(tx: &Tx, product: &str, account_id: &str) -> Result<(), DbError> {
    for text in [
        "DELETE FROM provider_keys WHERE product = $1 AND account_id = $2",
        "DELETE FROM provider_key_owners WHERE product = $1 AND account_id = $2",
    ] {
        sql(text).bind(product).bind(account_id).run(tx).await?;
    }
    Ok(())
}
