//! The numbers behind an account's entitlements.
use std::collections::BTreeMap;

use weft_db::{Db, DbError, record, sql};

record! {
    struct NumberRow { plan: String, kind: String, name: String, value: Option<i64> }
}

/// The plan of an account with all its numbers, (kind, name) -> number or none for unlimited. One statement, two
/// indexed reads. None: the tables have nothing about the account's plan.
pub async fn entitlement_numbers(
    db: &Db,
    product: &str,
    user_id: &str,
    default_plan: &str,
) -> Result<Option<(String, BTreeMap<(String, String), Option<i64>>)>, DbError> {
    let rows: Vec<NumberRow> = sql("SELECT plan, kind, name, value FROM plan_values WHERE product = $1 \
         AND plan = COALESCE((SELECT plan FROM accounts WHERE product = $1 AND user_id = $2), $3) \
         AND kind IN ('feature', 'limit', 'rate')")
    .bind(product)
    .bind(user_id)
    .bind(default_plan)
    .all(db)
    .await?;
    let plan = rows.first().map(|row| row.plan.clone());
    let numbers = rows.into_iter().map(|row| ((row.kind, row.name), row.value)).collect();
    Ok(plan.map(|plan| (plan, numbers)))
}
