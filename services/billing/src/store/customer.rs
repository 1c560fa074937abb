//! Customers of Stripe's and the accounts that they pay for.
use weft_db::{DbError, On, Tx, sql};

/// The customer of an account.
pub async fn customer_of(on: &impl On, product: &str, user_id: &str) -> Result<Option<String>, DbError> {
    let found: Option<Option<String>> = sql("SELECT customer_id FROM customers WHERE product = $1 AND user_id = $2")
        .bind(product)
        .bind(user_id)
        .opt(on)
        .await?;
    Ok(found.flatten())
}

/// The account that a customer pays for.
pub async fn customer_owner(on: &impl On, product: &str, customer: &str) -> Result<Option<String>, DbError> {
    sql("SELECT user_id FROM customers WHERE product = $1 AND customer_id = $2")
        .bind(product)
        .bind(customer)
        .opt(on)
        .await
}

/// Notes the customer of an account that has none; answers whose the account has then. Nothing happens if the
/// customer is another account's.
pub async fn customer_note(
    on: &impl On,
    product: &str,
    user_id: &str,
    customer: &str,
    now_ms: i64,
) -> Result<Option<String>, DbError> {
    sql("INSERT INTO customers (product, user_id, customer_id, created_at) SELECT $1, $2, $3, $4 \
         WHERE NOT EXISTS (SELECT 1 FROM customers WHERE product = $1 AND customer_id = $3) \
         ON CONFLICT (product, user_id) DO UPDATE \
         SET customer_id = COALESCE(customers.customer_id, excluded.customer_id)")
    .on_postgres(
        "INSERT INTO customers (product, user_id, customer_id, created_at) SELECT $1::text, $2::text, $3::text, \
         $4::bigint WHERE NOT EXISTS (SELECT 1 FROM customers WHERE product = $1 AND customer_id = $3) \
         ON CONFLICT (product, user_id) DO UPDATE \
         SET customer_id = COALESCE(customers.customer_id, excluded.customer_id)",
    )
    .bind(product)
    .bind(user_id)
    .bind(customer)
    .bind(now_ms)
    .run(on)
    .await?;
    customer_of(on, product, user_id).await
}

/// Makes whoever else changes what belongs to the account wait for the end of the transaction.
pub async fn customer_lock(tx: &Tx, product: &str, user_id: &str, now_ms: i64) -> Result<(), DbError> {
    sql("INSERT INTO customers (product, user_id, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (product, user_id) DO UPDATE SET user_id = excluded.user_id")
    .bind(product)
    .bind(user_id)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// Whether billing has ever heard of the account.
pub async fn account_is_known(on: &impl On, product: &str, user_id: &str) -> Result<bool, DbError> {
    let found: Option<i64> = sql("SELECT CAST(1 AS BIGINT) FROM accounts WHERE product = $1 AND user_id = $2 \
         UNION ALL SELECT CAST(1 AS BIGINT) FROM customers WHERE product = $1 AND user_id = $2 LIMIT 1")
    .bind(product)
    .bind(user_id)
    .opt(on)
    .await?;
    Ok(found.is_some())
}
