//! `weft audit verify`: looks at the audit logs in identity's database, also while the mesh runs.
use std::fs;
use std::io::Write;
use std::path::Path;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use crate::admin::database_url;
use crate::cli::AuditArguments;
use crate::config::{Environment, products, require};
use crate::exit::Failure;

/// What the command reads from the environment, besides the products and the database.
#[derive(Deserialize)]
struct Config {
    weft_identity_secret: Option<SecretString>,
}

/// Prints one JSON object for each product; fails if anything is wrong with one.
pub async fn verify(environment: &Environment, arguments: &AuditArguments) -> Result<(), Failure> {
    let products = products(environment)?;
    let url = database_url(environment, &arguments.data_dir, "identity")?;
    let secret = secret(environment, &arguments.data_dir)?;
    let named = arguments.product.as_deref();
    if let Some(slug) = named.filter(|slug| products.get(slug).is_none()) {
        return Err(Failure::config(format!("there is no product {slug:?}; choose another with --product")));
    }
    let mut wrong = Vec::new();
    for product in products.iter().filter(|product| named.is_none_or(|slug| slug == product.slug)) {
        let report = weft_identity::verify_audit(&url, &secret, &product.slug).await.map_err(|error| match error {
            weft_identity::Error::WrongSecret => Failure::config(error),
            _ => Failure::unavailable(error),
        })?;
        let faults = report.faults.iter().map(|(number, kind)| json!({"number": number, "kind": kind}));
        let line = json!({"product": product.slug, "ok": report.ok, "events": report.events,
            "faults": faults.collect::<Vec<_>>(), "last_number": report.last_number, "last_hash": report.last_hash});
        // The exit status says it too, whether or not somebody reads of it.
        let _closed = writeln!(std::io::stdout(), "{line}");
        if !report.ok {
            wrong.push(product.slug.as_str());
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::stopped(format!("the audit log of {} was changed", wrong.join(", "))))
}

/// The identity secret of the environment, or the one that `weft up` made.
fn secret(environment: &Environment, data_dir: &Path) -> Result<SecretString, Failure> {
    let config: Config = require(environment)?;
    if let Some(secret) = config.weft_identity_secret {
        return Ok(secret);
    }
    let file = data_dir.join("identity-secret");
    let text = fs::read_to_string(&file).map_err(|error| {
        Failure::config(format!(
            "cannot read {}: {error}; set WEFT_IDENTITY_SECRET, or name the folder of `weft up` with --data-dir",
            file.display()
        ))
    })?;
    Ok(text.trim_end().into())
}
