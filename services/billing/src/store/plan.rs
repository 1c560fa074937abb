//! Plans, their versions, numbers and models.
use weft_db::{DbError, On, Tx, record, sql};

use crate::domain::plan::{PlanModel, PlanValue};

/// Most rows that a list of a product's plans reads: far more than versions that anybody looks at.
const MAX_ROWS: i64 = 50_000;

record! {
    /// A version of a plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct VersionRow {
        /// Slug.
        pub slug: String,
        /// Name for people.
        pub name: String,
        /// No longer in the product's manifest.
        pub retired: bool,
        /// Number of the version, from 1.
        pub version: i64,
        /// The newest one.
        pub current: bool,
    }
}

record! {
    /// A number or model of a version of a plan.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct NumberRow {
        /// Slug of the plan.
        pub plan: String,
        /// Number of the version.
        pub version: i64,
        /// `feature`, `limit`, `rate`, `credits`, or of models `default` and `allowed`.
        pub kind: String,
        /// Its name, unique within the kind.
        pub name: String,
        /// None: unlimited; always none of a model.
        pub value: Option<i64>,
        /// The alias of a role, or the allowed ones, one a line; always none of a number.
        pub model: Option<String>,
    }
}

/// Stores a plan of a manifest, or brings it up to date; a retired one is back. Its row is locked from here on.
/// Answers the current version.
pub async fn plan_seed(tx: &Tx, product: &str, slug: &str, name: &str, manifest: &str) -> Result<i64, DbError> {
    sql("INSERT INTO plans (product, slug, name, seeded_name, manifest, retired) VALUES ($1, $2, $3, $3, $4, FALSE) \
         ON CONFLICT (product, slug) DO UPDATE SET \
         name = CASE WHEN plans.name = plans.seeded_name THEN excluded.name ELSE plans.name END, \
         seeded_name = CASE WHEN plans.name = plans.seeded_name THEN excluded.name ELSE plans.seeded_name END, \
         manifest = excluded.manifest, retired = FALSE RETURNING version")
    .bind(product)
    .bind(slug)
    .bind(name)
    .bind(manifest)
    .one(tx)
    .await
}

/// Locks a plan until the end of the transaction: its versions and numbers are changed by one at a time. Answers the
/// current version; none: there is no such plan.
pub async fn plan_lock(tx: &Tx, product: &str, slug: &str) -> Result<Option<i64>, DbError> {
    sql("UPDATE plans SET version = version WHERE product = $1 AND slug = $2 RETURNING version")
        .bind(product)
        .bind(slug)
        .opt(tx)
        .await
}

/// The current version of a plan that is not retired.
pub async fn plan_current(on: &impl On, product: &str, slug: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT version FROM plans WHERE product = $1 AND slug = $2 AND NOT retired")
        .bind(product)
        .bind(slug)
        .opt(on)
        .await
}

/// The current version of a plan, retired or not.
pub async fn plan_current_any(on: &impl On, product: &str, slug: &str) -> Result<Option<i64>, DbError> {
    sql("SELECT version FROM plans WHERE product = $1 AND slug = $2").bind(product).bind(slug).opt(on).await
}

/// Names a plan, as an administrator.
pub async fn plan_rename(tx: &Tx, product: &str, slug: &str, name: &str) -> Result<(), DbError> {
    sql("UPDATE plans SET name = $3 WHERE product = $1 AND slug = $2")
        .bind(product)
        .bind(slug)
        .bind(name)
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

/// Whether there is this version of a plan.
pub async fn version_exists(on: &impl On, product: &str, plan: &str, version: i64) -> Result<bool, DbError> {
    let found: i64 = sql("SELECT COUNT(*) FROM plan_versions WHERE product = $1 AND plan = $2 AND version = $3")
        .bind(product)
        .bind(plan)
        .bind(version)
        .one(on)
        .await?;
    Ok(found > 0)
}

/// The prices of the manifest that a version was seeded with. None: it never was.
pub async fn version_seeded(on: &impl On, product: &str, plan: &str, version: i64) -> Result<Option<String>, DbError> {
    let found: Option<Option<String>> =
        sql("SELECT seeded_prices FROM plan_versions WHERE product = $1 AND plan = $2 AND version = $3")
            .bind(product)
            .bind(plan)
            .bind(version)
            .opt(on)
            .await?;
    Ok(found.flatten())
}

/// Stores a version, or what its prices were seeded with.
pub async fn version_put(
    tx: &Tx,
    product: &str,
    plan: &str,
    version: i64,
    seeded_prices: Option<&str>,
    now_ms: i64,
) -> Result<(), DbError> {
    sql("INSERT INTO plan_versions (product, plan, version, seeded_prices, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (product, plan, version) DO UPDATE SET seeded_prices = excluded.seeded_prices")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(seeded_prices)
    .bind(now_ms)
    .run(tx)
    .await
    .map(drop)
}

/// Gives a new version every number and model of the one before, with what administrators have set, and makes it the
/// current one.
pub async fn version_copy(tx: &Tx, product: &str, plan: &str, from: i64, to: i64) -> Result<(), DbError> {
    let texts = [
        "INSERT INTO plan_values (product, plan, version, kind, name, value, seeded) \
         SELECT product, plan, $4, kind, name, value, seeded FROM plan_values \
         WHERE product = $1 AND plan = $2 AND version = $3",
        "INSERT INTO plan_models (product, plan, version, kind, name, value, seeded) \
         SELECT product, plan, $4, kind, name, value, seeded FROM plan_models \
         WHERE product = $1 AND plan = $2 AND version = $3",
        "UPDATE plans SET version = $4 WHERE product = $1 AND slug = $2 AND version = $3",
    ];
    for text in texts {
        sql(text).bind(product).bind(plan).bind(from).bind(to).run(tx).await?;
    }
    Ok(())
}

/// Stores a number of a manifest, or brings it up to date; one that an administrator has set stays, and so does
/// what it was seeded with: should a manifest one day say the administrator's number, the next must not take it.
pub async fn plan_value_seed(
    tx: &Tx,
    product: &str,
    plan: &str,
    version: i64,
    value: &PlanValue,
) -> Result<(), DbError> {
    sql("INSERT INTO plan_values (product, plan, version, kind, name, value, seeded) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) \
         ON CONFLICT (product, plan, version, kind, name) DO UPDATE SET value = excluded.value, \
         seeded = excluded.seeded WHERE plan_values.value IS NOT DISTINCT FROM plan_values.seeded \
         AND plan_values.seeded IS DISTINCT FROM excluded.seeded")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(value.kind.as_str())
    .bind(value.name.as_str())
    .bind(value.value)
    .run(tx)
    .await
    .map(drop)
}

/// Stores a model of a manifest by the rule of [`plan_value_seed`].
pub async fn plan_model_seed(
    tx: &Tx,
    product: &str,
    plan: &str,
    version: i64,
    model: &PlanModel,
) -> Result<(), DbError> {
    sql("INSERT INTO plan_models (product, plan, version, kind, name, value, seeded) \
         VALUES ($1, $2, $3, $4, $5, $6, $6) \
         ON CONFLICT (product, plan, version, kind, name) DO UPDATE SET value = excluded.value, \
         seeded = excluded.seeded WHERE plan_models.value IS NOT DISTINCT FROM plan_models.seeded \
         AND plan_models.seeded IS DISTINCT FROM excluded.seeded")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(model.kind.as_str())
    .bind(model.name.as_str())
    .bind(model.value.clone())
    .run(tx)
    .await
    .map(drop)
}

/// Sets a number as an administrator. One that the version did not have counts as set by them too.
pub async fn plan_value_set(
    tx: &Tx,
    product: &str,
    plan: &str,
    version: i64,
    value: &PlanValue,
) -> Result<(), DbError> {
    sql("INSERT INTO plan_values (product, plan, version, kind, name, value, seeded) \
         VALUES ($1, $2, $3, $4, $5, $6, NULL) \
         ON CONFLICT (product, plan, version, kind, name) DO UPDATE SET value = excluded.value")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(value.kind.as_str())
    .bind(value.name.as_str())
    .bind(value.value)
    .run(tx)
    .await
    .map(drop)
}

/// Sets a model as an administrator.
pub async fn plan_model_set(
    tx: &Tx,
    product: &str,
    plan: &str,
    version: i64,
    model: &PlanModel,
) -> Result<(), DbError> {
    sql("INSERT INTO plan_models (product, plan, version, kind, name, value, seeded) \
         VALUES ($1, $2, $3, $4, $5, $6, NULL) \
         ON CONFLICT (product, plan, version, kind, name) DO UPDATE SET value = excluded.value")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(model.kind.as_str())
    .bind(model.name.as_str())
    .bind(model.value.clone())
    .run(tx)
    .await
    .map(drop)
}

/// Versions of plans: all of a product or of one plan, the current ones or older ones too; newest first within a plan.
pub async fn version_list(
    on: &impl On,
    product: &str,
    plan: Option<&str>,
    older: bool,
) -> Result<Vec<VersionRow>, DbError> {
    sql("SELECT p.slug, p.name, p.retired, v.version, v.version = p.version AS current \
         FROM plans p JOIN plan_versions v ON v.product = p.product AND v.plan = p.slug \
         WHERE p.product = $1 AND (CAST($2 AS TEXT) IS NULL OR p.slug = $2) AND ($3 OR v.version = p.version) \
         ORDER BY p.slug, v.version DESC LIMIT $4")
    .bind(product)
    .bind(plan)
    .bind(older)
    .bind(MAX_ROWS)
    .all(on)
    .await
}

/// Numbers and models of every version of a product's plans, or of one plan; the newest versions first. Read after
/// [`version_list`] it has those of every version that was listed.
pub async fn number_list(on: &impl On, product: &str, plan: Option<&str>) -> Result<Vec<NumberRow>, DbError> {
    sql("SELECT plan, version, kind, name, value, CAST(NULL AS TEXT) AS model FROM plan_values \
         WHERE product = $1 AND (CAST($2 AS TEXT) IS NULL OR plan = $2) \
         UNION ALL SELECT plan, version, kind, name, CAST(NULL AS BIGINT), value FROM plan_models \
         WHERE product = $1 AND (CAST($2 AS TEXT) IS NULL OR plan = $2) AND value IS NOT NULL \
         ORDER BY version DESC LIMIT $3")
    .bind(product)
    .bind(plan)
    .bind(MAX_ROWS)
    .all(on)
    .await
}
