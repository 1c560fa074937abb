//! The links that `weft up` prints for products without an administrator.
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use weft_core::Clock;
use weft_product::{CredentialKind, Products};

use crate::config::{Environment, require};
use crate::exit::Failure;

/// What is needed of identity's settings.
#[derive(Deserialize)]
struct Config {
    database_url: String,
    weft_identity_secret: SecretString,
}

/// A link for the default product if it has no administrator, and for every other product that has accounts and none; in
/// pairs of slug and link. A product whose people do not sign in by password is left out: `weft admin grant` is for it.
pub async fn links(
    environment: &Environment,
    products: &Products,
    edge: &str,
    clock: &Clock,
) -> Result<Vec<(String, String)>, Failure> {
    let config: Config = require(environment)?;
    let gateway: weft_gateway::Config = require(environment)?;
    let mut links = Vec::new();
    for product in products.iter().filter(|product| product.identity.credentials.contains(&CredentialKind::Password)) {
        let slug = product.slug.as_str();
        let default = slug == gateway.weft_default_product;
        let token =
            weft_identity::setup_token(&config.database_url, &config.weft_identity_secret, clock, slug, default);
        if let Some(token) = token.await.map_err(Failure::unavailable)? {
            let link = format!("{edge}/setup?product={slug}#token={}", token.expose_secret());
            links.push((slug.to_owned(), link));
        }
    }
    Ok(links)
}
