//! GitHub as an OAuth provider: where the browser goes, what a code is worth, how a token is renewed and given back.
mod client;
pub mod tokens;

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use weft_product::Products;
use weft_runtime::Tasks;
use weft_runtime::config::{key_of_slug, url};
use weft_runtime::outbound::OutboundError;

use crate::config::Config;

pub use client::{GitHub, GitHubError, Given, Revoke};

/// Where GitHub is.
const OAUTH_BASE: &str = "https://github.com";
/// Where its API is.
const API_BASE: &str = "https://api.github.com";

/// What an operator says of GitHub; the same for all products, or for one as `NAME__<SLUG>`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GitHubConfig {
    /// `GITHUB_CLIENT_ID`: of the OAuth app or the GitHub app.
    pub github_client_id: Option<String>,
    /// `GITHUB_CLIENT_SECRET`: its secret. Without the two nobody can connect.
    pub github_client_secret: Option<SecretString>,
    /// `GITHUB_API_BASE`. Default `https://api.github.com`.
    #[serde(default, deserialize_with = "url")]
    pub github_api_base: Option<String>,
    /// `GITHUB_OAUTH_BASE`. Default `https://github.com`.
    #[serde(default, deserialize_with = "url")]
    pub github_oauth_base: Option<String>,
}

/// Ourselves at GitHub.
#[derive(Clone, Debug)]
pub struct App {
    /// Our client id.
    pub client_id: String,
    /// Our client secret.
    pub client_secret: SecretString,
    api: String,
    oauth: String,
}

impl GitHubConfig {
    /// The name of a setting by which secrets would go without TLS.
    pub fn in_the_clear(&self, is_https: impl Fn(&str) -> bool) -> Option<&'static str> {
        let bases = [("GITHUB_API_BASE", &self.github_api_base), ("GITHUB_OAUTH_BASE", &self.github_oauth_base)];
        let open = bases.into_iter().find(|(_, base)| base.as_deref().is_some_and(|base| !is_https(base)));
        open.map(|(key, _)| key)
    }

    /// The app of a product: a client id of its own goes with a secret of its own.
    pub fn app(&self, of: &BTreeMap<String, GitHubConfig>, slug: &str) -> Option<App> {
        let none = GitHubConfig::default();
        let own = of.get(&key_of_slug(slug)).unwrap_or(&none);
        let client = if own.github_client_id.is_some() { own } else { self };
        let base = |own: &Option<String>, common: &Option<String>, default: &str| {
            let base = own.as_deref().or(common.as_deref()).unwrap_or(default);
            base.trim_end_matches('/').to_owned()
        };
        Some(App {
            client_id: client.github_client_id.clone()?,
            client_secret: client.github_client_secret.clone()?,
            api: base(&own.github_api_base, &self.github_api_base, API_BASE),
            oauth: base(&own.github_oauth_base, &self.github_oauth_base, OAUTH_BASE),
        })
    }
}

/// What connections to GitHub need.
pub struct Connections {
    /// Who asks GitHub.
    pub client: GitHub,
    /// Where tokens are renewed.
    pub tasks: Tasks,
    apps: BTreeMap<String, App>,
}

impl Connections {
    /// As it is configured.
    ///
    /// Errors: [`OutboundError::Client`].
    pub fn new(config: &Config, products: &Products, tasks: Tasks) -> Result<Connections, OutboundError> {
        let app = |slug: &str| Some((slug.to_owned(), config.github.app(&config.github_of, slug)?));
        let apps = products.iter().filter_map(|product| app(&product.slug)).collect();
        Ok(Connections { client: GitHub::new()?, tasks, apps })
    }

    /// Ourselves at GitHub, for a product.
    pub fn app(&self, slug: &str) -> Option<App> {
        self.apps.get(slug).cloned()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_client_id_goes_with_its_own_secret() {
        let app = |id: Option<&str>, secret: Option<&str>| GitHubConfig {
            github_client_id: id.map(str::to_owned),
            github_client_secret: secret.map(SecretString::from),
            ..GitHubConfig::default()
        };
        let common = app(Some("common"), Some("common secret"));
        let own = |config| BTreeMap::from([("ASYNC_CODER".to_owned(), config)]);
        let found = |of: &BTreeMap<String, GitHubConfig>, slug: &str| {
            common.app(of, slug).map(|app| (app.client_id, app.client_secret.expose_secret().to_owned()))
        };
        let expected = |id: &str| Some((id.to_owned(), format!("{id} secret")));
        let both = own(app(Some("own"), Some("own secret")));
        assert_eq!((found(&both, "async-coder"), found(&both, "adiuva")), (expected("own"), expected("common")));
        assert_eq!(found(&own(app(Some("own"), None)), "async-coder"), None);
        assert_eq!(found(&own(app(None, None)), "async-coder"), expected("common"));
        assert_eq!(common.app(&BTreeMap::new(), "adiuva").unwrap().oauth, OAUTH_BASE);
    }
}
