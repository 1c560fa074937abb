//! The link by which a product without an administrator gets its first one.
use secrecy::SecretString;
use weft_core::Clock;
use weft_db::Tx;

use crate::connect_to;
use crate::domain::token::{LinkToken, SecretKeys};
use crate::error::Error;
use crate::operator::CONNECTIONS;
use crate::store::setup::{setup_put, setup_state};

/// How long a link is good for, in ms.
const LINK_MS: i64 = 24 * 60 * 60 * 1000;

/// A new token for the link of a product that has no administrator, in the place of the last one. None if it has one, or
/// if it has no accounts at all and `even_if_empty` is not set.
///
/// Errors: a database that cannot be used or is not at this version; no randomness.
pub async fn setup_token(
    database_url: &str,
    secret: &SecretString,
    clock: &Clock,
    product: &str,
    even_if_empty: bool,
) -> Result<Option<SecretString>, Error> {
    let db = connect_to(database_url, CONNECTIONS).await?;
    db.check_migrated(crate::MIGRATIONS).await?;
    let token = LinkToken::generate()?;
    let (hash, now_ms) = (SecretKeys::derive(secret).setup_hash(&token), clock.now_ms());
    let made = db
        .write("setup link", async |tx: Tx| {
            let (used, has_admin) = setup_state(&tx, product).await?;
            if has_admin || !(used || even_if_empty) {
                return Ok::<_, Error>(false);
            }
            setup_put(&tx, product, &hash, now_ms, now_ms + LINK_MS).await?;
            Ok(true)
        })
        .await;
    db.close().await;
    Ok(made?.then(|| token.text().into()))
}
