//! The numbers behind an account's entitlements.
use weft_db::{DbError, On, record, sql};
use weft_product::Product;

use crate::domain::entitlement::{Entitled, Found, Standing};
use crate::error::Error;
use crate::store::account::account_standing;

/// Most rows of one answer: numbers of one version and overrides of one account, each of a name that the product once
/// declared.
const MAX_ROWS: i64 = 5000;

record! {
    /// A number or model of a plan, or an override of an account.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EntitlementRow {
        /// An administrator has set it for the account alone.
        pub own: bool,
        /// `feature`, `limit`, `rate`, `credits`; of models `default`, `allowed`, and `model` for an override.
        pub kind: String,
        /// Its name, unique within the kind.
        pub name: String,
        /// None: unlimited; always none of a model.
        pub value: Option<i64>,
        /// The alias of a role, or the allowed ones, one a line; always none of a number.
        pub model: Option<String>,
    }
}

/// Everything about a version of a plan, and what an account has of its own: three indexed reads in one statement.
async fn entitlement_rows(
    on: &impl On,
    product: &str,
    plan: &str,
    version: i64,
    user_id: &str,
) -> Result<Vec<EntitlementRow>, DbError> {
    sql("SELECT FALSE AS own, kind, name, value, CAST(NULL AS TEXT) AS model FROM plan_values \
         WHERE product = $1 AND plan = $2 AND version = $3 \
         UNION ALL SELECT FALSE, kind, name, CAST(NULL AS BIGINT), value FROM plan_models \
         WHERE product = $1 AND plan = $2 AND version = $3 \
         UNION ALL SELECT TRUE, kind, name, value, model FROM account_overrides \
         WHERE product = $1 AND user_id = $4 LIMIT $5")
    .bind(product)
    .bind(plan)
    .bind(version)
    .bind(user_id)
    .bind(MAX_ROWS)
    .all(on)
    .await
}

/// What an account may do now, and the last UTC day on which it was noted to be active: two indexed statements, always
/// from the tables.
///
/// # Errors
/// [`Error::NoUser`], [`Error::NoPlan`], the database.
pub async fn entitled(on: &impl On, product: &Product, user_id: &str) -> Result<(Entitled, i64), Error> {
    if user_id.is_empty() {
        return Err(Error::NoUser);
    }
    let (slug, default) = (product.slug.as_str(), product.default_plan.as_str());
    let Some(row) = account_standing(on, slug, user_id, default).await? else {
        return Err(Error::NoPlan { product: slug.to_owned(), plan: default.to_owned() });
    };
    let rows = entitlement_rows(on, slug, &row.plan, row.version, user_id).await?;
    let payer_id = row.payer_id.unwrap_or_else(|| user_id.to_owned());
    let standing = Standing { plan: row.plan, version: row.version, payer_id, seats: row.seats };
    Ok((Entitled::new(product, standing, found(rows))?, row.active_day))
}

/// The rows by kind and name.
pub fn found(rows: Vec<EntitlementRow>) -> Found {
    let mut found = Found::default();
    for EntitlementRow { own, kind, name, value, model } in rows {
        match (own, kind.as_str(), model) {
            (true, _, Some(model)) => drop(found.own_models.insert(name, model)),
            (true, _, None) => drop(found.own_numbers.insert((kind, name), value)),
            (false, _, Some(model)) => drop(found.models.insert((kind, name), model)),
            // A role for which the plan has no model.
            (false, "default" | "allowed", None) => {}
            (false, _, None) => drop(found.numbers.insert((kind, name), value)),
        }
    }
    found
}
