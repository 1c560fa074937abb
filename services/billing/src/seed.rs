//! Brings the plans of the manifests into the tables, at every start. Doing it again changes nothing.
use weft_db::{Db, DbError, Tx};
use weft_product::{Product, Products};

use crate::domain::plan::values;
use crate::store::plan::{plan_retire_others, plan_seed, plan_value_seed};

/// Seeds every product, each in a transaction of its own. What an administrator has set stays.
///
/// # Errors
/// A database that cannot be used.
pub async fn seed(db: &Db, products: &Products) -> Result<(), DbError> {
    for product in products.iter() {
        let retired = db.write("seed", async |tx: Tx| seed_product(&tx, product).await).await?;
        if retired > 0 {
            tracing::info!(
                product = product.slug,
                retired,
                "plans are no longer in the manifest; whoever is on them stays"
            );
        }
    }
    Ok(())
}

/// Answers how many plans it retired.
async fn seed_product(tx: &Tx, product: &Product) -> Result<u64, DbError> {
    for plan in &product.plans {
        plan_seed(tx, &product.slug, &plan.slug, &plan.name, &product.hash).await?;
        for value in values(plan) {
            plan_value_seed(tx, &product.slug, &plan.slug, &value).await?;
        }
    }
    plan_retire_others(tx, &product.slug, &product.hash).await
}
