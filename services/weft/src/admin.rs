//! `weft admin`: brings accounts in, and gives and takes roles, straight in identity's database, because the first administrator has nobody to
//! ask. It works while the mesh runs, on SQLite too.
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use weft_core::Clock;
use weft_identity::{BadLine, ImportOrder, Imported, RoleOrder};
use weft_product::{CredentialKind, Product, Products};

use crate::cli::{AdminCommand, ImportArguments, RoleArguments};
use crate::config::{Environment, products, require};
use crate::exit::Failure;

/// What the command reads from the environment, besides the products.
#[derive(Deserialize)]
struct Config {
    database_url: Option<String>,
}

/// Does it and says what is different now.
pub async fn admin(environment: &Environment, command: &AdminCommand) -> Result<(), Failure> {
    match command {
        AdminCommand::Grant(arguments) => change(environment, arguments, true).await,
        AdminCommand::Revoke(arguments) => change(environment, arguments, false).await,
        AdminCommand::Import(arguments) => import(environment, arguments).await,
    }
}

async fn change(environment: &Environment, arguments: &RoleArguments, given: bool) -> Result<(), Failure> {
    let RoleArguments { account, product, role, data_dir } = arguments;
    let products = products(environment)?;
    if let Some(slug) = product {
        known(&products, slug)?;
    }
    let url = database_url(environment, data_dir, "identity")?;
    let order = RoleOrder { product: product.as_deref(), account, role, given };
    let done = weft_identity::change_role(&url, &Clock::System, order).await.map_err(failure)?;
    let product = &done.product;
    let text = match (done.changed, given) {
        (true, true) => format!("{account} has the role {role} in {product}; it counts everywhere within a second\n"),
        (true, false) => {
            format!("{account} has lost the role {role} in {product}; it counts everywhere within a second\n")
        }
        (false, true) => format!("{account} has the role {role} in {product} already\n"),
        (false, false) => format!("{account} does not have the role {role} in {product}\n"),
    };
    let since = match done.signed_in_at {
        Some(at) => format!("last sign-in {at}"),
        None => "no sign-in known".to_owned(),
    };
    // As the API tells them, to be compared with it.
    let text = format!("{text}account {}, created {}, {since} (ms since 1970)\n", done.account_id, done.created_at);
    // It is done, whether or not somebody reads of it.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Adds accounts; bad lines are told on standard error, each with its number.
async fn import(environment: &Environment, arguments: &ImportArguments) -> Result<(), Failure> {
    let ImportArguments { file, product, dry_run, data_dir } = arguments;
    let products = products(environment)?;
    if !known(&products, product)?.identity.credentials.contains(&CredentialKind::Password) {
        return Err(Failure::config(format!("{product} does not sign in by password; choose another with --product")));
    }
    let url = database_url(environment, data_dir, "identity")?;
    let opened = File::open(file).map_err(|error| {
        Failure::unavailable(format!("cannot read {}: {error}; name a file with a line an account", file.display()))
    })?;
    let order = ImportOrder { product, dry_run: *dry_run };
    let mut tell = |line: BadLine| {
        let _closed = writeln!(std::io::stderr(), "line {}: {}", line.number, line.problem);
    };
    let done = weft_identity::import(&url, &Clock::System, order, &mut BufReader::new(opened), &mut tell).await;
    let Imported { added, existing, bad } = done.map_err(failure)?;
    let would = if *dry_run { "would be added" } else { "added" };
    let text = format!("{added} accounts {would} to {product}, {existing} exist already, {bad} lines are bad\n");
    let _closed = std::io::stdout().write_all(text.as_bytes());
    if bad == 0 { Ok(()) } else { Err(Failure::stopped("mend the bad lines and import the file again")) }
}

fn known<'a>(products: &'a Products, slug: &str) -> Result<&'a Product, Failure> {
    let unknown = || Failure::config(format!("there is no product {slug:?}; choose another with --product"));
    products.get(slug).map(Arc::as_ref).ok_or_else(unknown)
}

fn failure(error: weft_identity::Error) -> Failure {
    match error {
        weft_identity::Error::Database(_) => Failure::unavailable(error),
        _ => Failure::config(error),
    }
}

/// A service's database as `weft serve` and `weft up` find it. A file that is not there is not made: it would be an
/// empty one, in the wrong folder.
pub fn database_url(environment: &Environment, data_dir: &Path, service: &str) -> Result<String, Failure> {
    let config: Config = require(environment)?;
    if let Some(url) = config.database_url {
        return Ok(url);
    }
    let file = data_dir.join(format!("{service}.db"));
    let file = std::fs::canonicalize(&file).map_err(|error| {
        Failure::unavailable(format!(
            "cannot use {}: {error}; name the folder of `weft up` with --data-dir, or the database with DATABASE_URL",
            file.display()
        ))
    })?;
    Ok(format!("sqlite://{}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_the_one_of_the_environment_or_of_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let named = Environment::from([("DATABASE_URL".to_owned(), "postgres://somewhere/weft".to_owned())]);
        assert_eq!(database_url(&named, folder.path(), "identity").unwrap(), "postgres://somewhere/weft");
        let failure = database_url(&Environment::new(), folder.path(), "identity").unwrap_err();
        assert!(format!("{failure:?}").contains("--data-dir"), "{failure:?}");
        std::fs::write(folder.path().join("identity.db"), "").unwrap();
        let url = database_url(&Environment::new(), folder.path(), "identity").unwrap();
        assert!(url.starts_with("sqlite:///") && url.ends_with("/identity.db"), "{url}");
    }
}
