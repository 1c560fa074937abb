//! What is on sale: prices of plans, and packages of credits.
use weft_db::{DbError, On, Tx, record, sql};
use weft_product::CreditPackage;

/// Most packages of a product, and most prices of a version of a plan.
const MAX_ROWS: i64 = 1000;
/// Most prices of all versions of a product's plans that are listed.
const MAX_LISTED: i64 = 50_000;

record! {
    /// A price of a version of a plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PriceRow {
        /// Slug of the plan.
        pub plan: String,
        /// Version of the plan, from 1.
        pub version: i64,
        /// Id, unique in the product but for versions of one plan.
        pub id: String,
        /// In minor units.
        pub amount_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
        /// `month` or `year`.
        pub period: String,
        /// The amount is for each seat.
        pub per_seat: bool,
        /// Micro-credits that each paid invoice brings.
        pub bonus_credits: i64,
    }
}

record! {
    /// A package of credits.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PackageRow {
        /// Id, unique in the product.
        pub id: String,
        /// What the buyer gets, in micro-credits.
        pub credits: i64,
        /// In minor units.
        pub amount_minor: i64,
        /// ISO 4217, upper case.
        pub currency: String,
        /// The product's words; may be empty.
        pub label: String,
    }
}

/// A price on sale by its id: of the current version of a plan that is not retired.
pub async fn price_find(on: &impl On, product: &str, id: &str) -> Result<Option<PriceRow>, DbError> {
    sql("SELECT r.plan, r.version, r.id, r.amount_minor, r.currency, r.period, r.per_seat, r.bonus_credits \
         FROM prices r JOIN plans p ON p.product = r.product AND p.slug = r.plan AND p.version = r.version \
         WHERE r.product = $1 AND r.id = $2 AND NOT p.retired ORDER BY r.plan LIMIT 1")
    .bind(product)
    .bind(id)
    .opt(on)
    .await
}

/// The price on sale of a plan for an interval, `month` or `year`; of several currencies the manifest's first.
pub async fn price_find_of_plan(
    on: &impl On,
    product: &str,
    plan: &str,
    period: &str,
) -> Result<Option<PriceRow>, DbError> {
    sql("SELECT r.plan, r.version, r.id, r.amount_minor, r.currency, r.period, r.per_seat, r.bonus_credits \
         FROM plans p JOIN prices r ON r.product = p.product AND r.plan = p.slug AND r.version = p.version \
         WHERE p.product = $1 AND p.slug = $2 AND NOT p.retired AND r.period = $3 ORDER BY r.position, r.id LIMIT 1")
    .bind(product)
    .bind(plan)
    .bind(period)
    .opt(on)
    .await
}

/// A price of a version that may no longer be on sale: what its subscribers pay.
pub async fn price_at_version(
    on: &impl On,
    product: &str,
    plan: &str,
    version: i64,
    id: &str,
) -> Result<Option<PriceRow>, DbError> {
    sql("SELECT plan, version, id, amount_minor, currency, period, per_seat, bonus_credits FROM prices \
         WHERE product = $1 AND plan = $2 AND version = $3 AND id = $4")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(id)
    .opt(on)
    .await
}

/// The prices of a version, in their order.
pub async fn prices_of_version(
    on: &impl On,
    product: &str,
    plan: &str,
    version: i64,
) -> Result<Vec<PriceRow>, DbError> {
    sql("SELECT plan, version, id, amount_minor, currency, period, per_seat, bonus_credits FROM prices \
         WHERE product = $1 AND plan = $2 AND version = $3 ORDER BY position, id LIMIT $4")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(MAX_ROWS)
    .all(on)
    .await
}

/// The prices of every version of a product's plans, or of one plan, in their order; the newest versions first.
pub async fn price_list(on: &impl On, product: &str, plan: Option<&str>) -> Result<Vec<PriceRow>, DbError> {
    sql("SELECT plan, version, id, amount_minor, currency, period, per_seat, bonus_credits FROM prices \
         WHERE product = $1 AND (CAST($2 AS TEXT) IS NULL OR plan = $2) ORDER BY version DESC, position, id LIMIT $3")
    .bind(product)
    .bind(plan)
    .bind(MAX_LISTED)
    .all(on)
    .await
}

/// Stores a price of a version that has been made in the same transaction.
pub async fn price_insert(tx: &Tx, product: &str, position: i64, price: &PriceRow) -> Result<(), DbError> {
    sql("INSERT INTO prices \
         (product, plan, version, id, position, amount_minor, currency, period, per_seat, bonus_credits) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
    .bind(product)
    .bind(price.plan.as_str())
    .bind(price.version)
    .bind(price.id.as_str())
    .bind(position)
    .bind(price.amount_minor)
    .bind(price.currency.as_str())
    .bind(price.period.as_str())
    .bind(price.per_seat)
    .bind(price.bonus_credits)
    .run(tx)
    .await
    .map(drop)
}

/// The plan, other than `plan`, that has or had a price of this id.
pub async fn price_owner(on: &impl On, product: &str, plan: &str, id: &str) -> Result<Option<String>, DbError> {
    sql("SELECT plan FROM prices WHERE product = $1 AND id = $2 AND plan <> $3 ORDER BY plan LIMIT 1")
        .bind(product)
        .bind(id)
        .bind(plan)
        .opt(on)
        .await
}

/// A package on sale.
pub async fn package_find(on: &impl On, product: &str, id: &str) -> Result<Option<PackageRow>, DbError> {
    sql("SELECT id, credits, amount_minor, currency, label FROM credit_packages \
         WHERE product = $1 AND id = $2 AND NOT retired")
    .bind(product)
    .bind(id)
    .opt(on)
    .await
}

/// Every package on sale, in the manifest's order.
pub async fn package_list(on: &impl On, product: &str) -> Result<Vec<PackageRow>, DbError> {
    sql("SELECT id, credits, amount_minor, currency, label FROM credit_packages \
         WHERE product = $1 AND NOT retired ORDER BY position, id LIMIT $2")
    .bind(product)
    .bind(MAX_ROWS)
    .all(on)
    .await
}

/// Stores a package of a manifest, or brings up to date what no administrator has set; a retired one is back.
pub async fn package_seed(
    tx: &Tx,
    product: &str,
    position: i64,
    package: &CreditPackage,
    manifest: &str,
) -> Result<(), DbError> {
    sql("INSERT INTO credit_packages AS p (product, id, position, credits, seeded_credits, amount_minor, \
         seeded_amount_minor, currency, seeded_currency, label, seeded_label, manifest, retired) \
         VALUES ($1, $2, $3, $4, $4, $5, $5, $6, $6, $7, $7, $8, FALSE) \
         ON CONFLICT (product, id) DO UPDATE SET position = excluded.position, \
         credits = CASE WHEN p.credits = p.seeded_credits THEN excluded.credits ELSE p.credits END, \
         seeded_credits = CASE WHEN p.credits = p.seeded_credits THEN excluded.credits ELSE p.seeded_credits END, \
         amount_minor = CASE WHEN p.amount_minor = p.seeded_amount_minor THEN excluded.amount_minor \
         ELSE p.amount_minor END, \
         seeded_amount_minor = CASE WHEN p.amount_minor = p.seeded_amount_minor THEN excluded.amount_minor \
         ELSE p.seeded_amount_minor END, \
         currency = CASE WHEN p.currency = p.seeded_currency THEN excluded.currency ELSE p.currency END, \
         seeded_currency = CASE WHEN p.currency = p.seeded_currency THEN excluded.currency ELSE p.seeded_currency END, \
         label = CASE WHEN p.label = p.seeded_label THEN excluded.label ELSE p.label END, \
         seeded_label = CASE WHEN p.label = p.seeded_label THEN excluded.label ELSE p.seeded_label END, \
         manifest = excluded.manifest, retired = FALSE")
    .bind(product)
    .bind(package.id.as_str())
    .bind(position)
    .bind(package.credits)
    .bind(package.amount_minor)
    .bind(package.currency.as_str())
    .bind(package.label.as_deref().unwrap_or_default())
    .bind(manifest)
    .run(tx)
    .await
    .map(drop)
}

/// Marks the product's packages that `manifest` does not have.
pub async fn package_retire_others(tx: &Tx, product: &str, manifest: &str) -> Result<u64, DbError> {
    sql("UPDATE credit_packages SET retired = TRUE WHERE product = $1 AND manifest <> $2 AND NOT retired")
        .bind(product)
        .bind(manifest)
        .run(tx)
        .await
}
