//! `weft admin`: gives and takes roles straight in identity's database, because the first administrator has nobody to
//! ask. It works while the mesh runs, on SQLite too.
use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use weft_core::Clock;
use weft_identity::RoleOrder;

use crate::cli::{AdminCommand, RoleArguments};
use crate::config::{Environment, products, require};
use crate::exit::Failure;

/// What the command reads from the environment, besides the products.
#[derive(Deserialize)]
struct Config {
    database_url: Option<String>,
}

/// Gives or takes a role and says what is different now.
pub async fn admin(environment: &Environment, command: &AdminCommand) -> Result<(), Failure> {
    let (arguments, given) = match command {
        AdminCommand::Grant(arguments) => (arguments, true),
        AdminCommand::Revoke(arguments) => (arguments, false),
    };
    let RoleArguments { email, product, role, data_dir } = arguments;
    let products = products(environment)?;
    if products.get(product).is_none() {
        return Err(Failure::config(format!("there is no product {product:?}; choose another with --product")));
    }
    let url = database_url(environment, data_dir, "identity")?;
    let order = RoleOrder { product, email, role, given };
    let done = weft_identity::change_role(&url, &Clock::System, order).await.map_err(|error| match error {
        weft_identity::Error::Database(_) => Failure::unavailable(error),
        _ => Failure::config(error),
    })?;
    let text = match (done.changed, given) {
        (true, true) => format!("{email} has the role {role} in {product}; it counts everywhere within a second\n"),
        (true, false) => {
            format!("{email} has lost the role {role} in {product}; it counts everywhere within a second\n")
        }
        (false, true) => format!("{email} has the role {role} in {product} already\n"),
        (false, false) => format!("{email} does not have the role {role} in {product}\n"),
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
