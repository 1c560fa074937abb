//! Plans and their numbers.
use weft_db::{DbError, Tx, sql};

use crate::domain::plan::PlanValue;

/// Stores a plan of a manifest, or brings it up to date; a retired one is back.
pub async fn plan_seed(tx: &Tx, product: &str, slug: &str, name: &str, manifest: &str) -> Result<(), DbError> {
    sql("INSERT INTO plans (product, slug, name, seeded_name, manifest, retired) VALUES ($1, $2, $3, $3, $4, FALSE) \
         ON CONFLICT (product, slug) DO UPDATE SET \
         name = CASE WHEN plans.name = plans.seeded_name THEN excluded.name ELSE plans.name END, \
         seeded_name = CASE WHEN plans.name = plans.seeded_name THEN excluded.name ELSE plans.seeded_name END, \
         manifest = excluded.manifest, retired = FALSE")
    .bind(product)
    .bind(slug)
    .bind(name)
    .bind(manifest)
    .run(tx)
    .await
    .map(drop)
}

/// Stores a number of a manifest, or brings it up to date; one that an administrator has set stays, and so does
/// what it was seeded with: should a manifest one day say the administrator's number, the next must not take it.
pub async fn plan_value_seed(tx: &Tx, product: &str, plan: &str, value: &PlanValue) -> Result<(), DbError> {
    sql("INSERT INTO plan_values (product, plan, kind, name, value, seeded) VALUES ($1, $2, $3, $4, $5, $5) \
         ON CONFLICT (product, plan, kind, name) DO UPDATE SET value = excluded.value, seeded = excluded.seeded \
         WHERE plan_values.value IS NOT DISTINCT FROM plan_values.seeded \
         AND plan_values.seeded IS DISTINCT FROM excluded.seeded")
    .bind(product)
    .bind(plan)
    .bind(value.kind.as_str())
    .bind(value.name.as_str())
    .bind(value.value)
    .run(tx)
    .await
    .map(drop)
}

/// Marks the product's plans that `manifest` does not have; answers how many it marked.
pub async fn plan_retire_others(tx: &Tx, product: &str, manifest: &str) -> Result<u64, DbError> {
    sql("UPDATE plans SET retired = TRUE WHERE product = $1 AND manifest <> $2 AND NOT retired")
        .bind(product)
        .bind(manifest)
        .run(tx)
        .await
}
