//! `weft ledger verify`: recomputes the books in billing's database, also while the mesh runs.
use std::io::Write;

use serde_json::json;
use weft_billing::Config;

use crate::admin::database_url;
use crate::cli::VerifyArguments;
use crate::config::{Environment, products};
use crate::exit::Failure;

/// Prints one JSON object for each product; fails if anything is wrong with one.
pub async fn verify(environment: &Environment, arguments: &VerifyArguments) -> Result<(), Failure> {
    let products = products(environment)?;
    let config = Config::new(database_url(environment, &arguments.data_dir, "billing")?);
    let named = arguments.product.as_deref();
    if let Some(slug) = named.filter(|slug| products.get(slug).is_none()) {
        return Err(Failure::config(format!("there is no product {slug:?}; choose another with --product")));
    }
    let mut wrong = Vec::new();
    for product in products.iter().filter(|product| named.is_none_or(|slug| slug == product.slug)) {
        let report = weft_billing::verify(&config, &product.slug).await.map_err(Failure::unavailable)?;
        let revenue = weft_billing::verify_revenue(&config, &product.slug).await.map_err(Failure::unavailable)?;
        let ok = report.is_ok() && revenue.is_empty();
        let faults = report.faults.iter().map(|fault| {
            json!({"user_id": fault.user_id, "sequence": fault.sequence, "transaction_id": fault.transaction_id,
                   "problem": fault.problem})
        });
        let line = json!({"product": product.slug, "ok": ok, "wallets": report.wallets,
            "transactions": report.transactions, "sum": report.sum, "digest": report.digest,
            "faults": faults.collect::<Vec<_>>(), "marketplace_faults": revenue});
        // The exit status says it too, whether or not somebody reads of it.
        let _closed = writeln!(std::io::stdout(), "{line}");
        if !ok {
            wrong.push(product.slug.as_str());
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::stopped(format!("the books of {} are wrong", wrong.join(", "))))
}
