//! What logins at providers need, and the care of their secrets.
use weft_db::Db;
use weft_db::keyring::{Keyring, Sealed};
use weft_runtime::Mesh;

use crate::config::Config;
use crate::dns::Dns;
use crate::error::Error;
use crate::oidc::Providers;
use crate::store::sso::{connection_reseal, connection_to_reseal};

/// What logins at providers need.
pub struct SignOn {
    /// Who asks providers.
    pub providers: Providers,
    /// Who asks whose domains are whose.
    pub dns: Dns,
    /// Seals client secrets.
    pub keyring: Keyring,
    /// The app; providers may send browsers to its pages.
    pub app_url: String,
}

impl SignOn {
    /// As it is configured.
    ///
    /// Errors: [`Error::Outbound`]; what is wrong with the keys in the database.
    pub async fn new(config: &Config, mesh: &Mesh, db: &Db) -> Result<SignOn, Error> {
        let (clock, allowed) = (mesh.clock().clone(), mesh.config().weft_allow_private_addresses.clone());
        Ok(SignOn {
            providers: Providers::new(clock.clone(), allowed).map_err(Error::Outbound)?,
            dns: Dns::new(config.weft_dns_server),
            keyring: Keyring::open(db, &config.weft_identity_secret, clock).await?,
            app_url: config.weft_app_url.clone(),
        })
    }
}

/// What the client secret of an organisation is bound to.
pub fn secret_of<'a>(product: &'a str, organisation_id: &'a str) -> [&'a str; 3] {
    ["sso_client_secret", product, organisation_id]
}

/// Seals some client secrets again that are under an old key.
///
/// Errors: the database's; [`Error::Keyring`] for a secret that cannot be opened.
pub async fn reseal(db: &Db, keyring: &Keyring) -> Result<(), Error> {
    let rows = connection_to_reseal(db, &keyring.current().await?).await?;
    for row in &rows {
        let sealed = Sealed { key_id: row.key_id.clone(), bytes: row.sealed.clone() };
        let renewed = keyring.renew(&secret_of(&row.product, &row.organisation_id), &sealed).await?;
        if let Some(Sealed { key_id, bytes }) = renewed {
            connection_reseal(db, row, &key_id, &bytes).await?;
        }
    }
    Ok(())
}
