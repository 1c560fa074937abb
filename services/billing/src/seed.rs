//! Brings the catalogue of the manifests into the tables, at every start. Doing it again changes nothing.
use weft_db::{Db, DbError, Tx};
use weft_product::{Plan, Price, Product, Products, default_price_id};

use crate::domain::plan::{models, period, values};
use crate::store::plan::{
    plan_model_seed, plan_retire_others, plan_seed, plan_value_seed, version_copy, version_put, version_seeded,
};
use crate::store::price::{PriceRow, package_retire_others, package_seed, price_insert, prices_of_version};

/// Seeds every product, each in a transaction of its own. What an administrator has set stays.
///
/// # Errors
/// A database that cannot be used.
pub async fn seed(db: &Db, products: &Products, now_ms: i64) -> Result<(), DbError> {
    for product in products.iter() {
        let retired = db.write("seed", async |tx: Tx| seed_product(&tx, product, now_ms).await).await?;
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
async fn seed_product(tx: &Tx, product: &Product, now_ms: i64) -> Result<u64, DbError> {
    for plan in &product.plans {
        let current = plan_seed(tx, &product.slug, &plan.slug, &plan.name, &product.hash).await?;
        let version = seed_version(tx, product, plan, current, now_ms).await?;
        for value in values(plan) {
            plan_value_seed(tx, &product.slug, &plan.slug, version, &value).await?;
        }
        for model in models(product, plan) {
            plan_model_seed(tx, &product.slug, &plan.slug, version, &model).await?;
        }
    }
    for (position, package) in (0..).zip(&product.credit_packages) {
        package_seed(tx, &product.slug, position, package, &product.hash).await?;
    }
    package_retire_others(tx, &product.slug, &product.hash).await?;
    plan_retire_others(tx, &product.slug, &product.hash).await
}

/// Sees to it that the current version has the manifest's prices, and answers its number. Other prices than those that
/// it was seeded with make a new version, unless an administrator has set those of the current one.
async fn seed_version(tx: &Tx, product: &Product, plan: &Plan, current: i64, now_ms: i64) -> Result<i64, DbError> {
    let (slug, wanted) = (product.slug.as_str(), prices_text(&prices(plan, current)));
    let version = match version_seeded(tx, slug, &plan.slug, current).await? {
        None => current,
        Some(seeded) if seeded == wanted => return Ok(current),
        Some(seeded) => {
            if prices_text(&prices_of_version(tx, slug, &plan.slug, current).await?) != seeded {
                return Ok(current);
            }
            current + 1
        }
    };
    version_put(tx, slug, &plan.slug, version, Some(&wanted), now_ms).await?;
    for (position, price) in (0..).zip(prices(plan, version)) {
        price_insert(tx, slug, position, &price).await?;
    }
    if version != current {
        version_copy(tx, slug, &plan.slug, current, version).await?;
        tracing::info!(product = slug, plan = plan.slug, version, "the manifest's prices made a new version");
    }
    Ok(version)
}

/// The prices of a manifest's plan as rows of a version.
fn prices(plan: &Plan, version: i64) -> Vec<PriceRow> {
    let row = |price: &Price| PriceRow {
        plan: plan.slug.clone(),
        version,
        id: price.id.clone().unwrap_or_else(|| default_price_id(&plan.slug, price.interval)),
        amount_minor: price.amount_minor,
        currency: price.currency.clone(),
        period: period(price.interval).to_owned(),
        per_seat: price.per_seat,
        bonus_credits: price.bonus_credits,
    };
    plan.prices.iter().map(row).collect()
}

/// Prices as one text: two lists are the same if their texts are. What a version was seeded with is kept as such a text.
fn prices_text(prices: &[PriceRow]) -> String {
    let line = |price: &PriceRow| {
        let PriceRow { id, amount_minor, currency, period, per_seat, bonus_credits, .. } = price;
        format!("{id} {amount_minor} {currency} {period} {per_seat} {bonus_credits}\n")
    };
    let mut lines: Vec<String> = prices.iter().map(line).collect();
    lines.sort();
    lines.concat()
}
