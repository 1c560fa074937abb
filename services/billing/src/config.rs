//! Configuration, from the environment.
use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use weft_product::Products;
use weft_runtime::config::{ConfigErrors, key_of_slug, keys_for_products, load_for, load_from, positive, url};

use crate::payments::Payments;

/// What billing reads from the environment, besides what every service reads. Every key also works as `*_FILE`.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:///absolute/path/billing.db` or `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// `WEFT_BILLING_DB_CONNECTIONS`: most connections to the database. Default 16.
    #[serde(default = "db_connections", deserialize_with = "positive")]
    pub weft_billing_db_connections: u32,
    /// `WEFT_APP_URL`: the app that Stripe's pages lead back to; its origin is the only one that is led to. Default
    /// `http://localhost:3000`.
    #[serde(default = "app_url", deserialize_with = "url")]
    pub weft_app_url: String,
    /// `WEFT_BILLING_SYNC_MINUTES`: how often Stripe is asked for events that never arrived. Default 15.
    #[serde(default = "sync_minutes", deserialize_with = "positive")]
    pub weft_billing_sync_minutes: u32,
    /// `STRIPE_SECRET_KEY`, `STRIPE_WEBHOOK_SECRET` and `STRIPE_API_BASE`, for products without their own.
    #[serde(skip)]
    pub stripe: StripeConfig,
    /// The same as `NAME__<SLUG>`, by slug as keys have it: `ASYNC_CODER`.
    #[serde(skip)]
    pub stripe_of: BTreeMap<String, StripeConfig>,
}

/// An account of Stripe's. Nothing here is required: without a key nothing can be bought, without a secret no event
/// is believed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct StripeConfig {
    /// `STRIPE_SECRET_KEY`: `sk_live_…`, `sk_test_…` or a restricted one.
    pub stripe_secret_key: Option<SecretString>,
    /// `STRIPE_WEBHOOK_SECRET`: what events are signed with, `whsec_…`.
    pub stripe_webhook_secret: Option<SecretString>,
    /// `STRIPE_API_BASE`: where Stripe's API is, without a path. Default `https://api.stripe.com`.
    #[serde(default, deserialize_with = "url")]
    pub stripe_api_base: Option<String>,
}

impl Config {
    /// The defaults with what has none.
    pub fn new(database_url: impl Into<String>) -> Config {
        Config {
            database_url: database_url.into(),
            weft_billing_db_connections: db_connections(),
            weft_app_url: app_url(),
            weft_billing_sync_minutes: sync_minutes(),
            stripe: StripeConfig::default(),
            stripe_of: BTreeMap::new(),
        }
    }

    /// Reads it from an environment.
    ///
    /// # Errors
    /// Every mistake, each with the name of its key.
    pub fn load(variables: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let stripe = load_from::<StripeConfig>(variables.clone()).unwrap_or_else(|more| errors.add(more));
        let mut stripe_of = BTreeMap::new();
        for (_, slug) in keys_for_products::<StripeConfig>(variables) {
            let own = load_for::<StripeConfig>(variables, &slug).unwrap_or_else(|more| errors.add(more));
            stripe_of.insert(slug, own);
        }
        match load_from::<Config>(variables.clone()) {
            Ok(config) => errors.or(Config { stripe, stripe_of, ..config }),
            Err(more) => {
                errors.add::<()>(more);
                Err(errors)
            }
        }
    }

    /// Finds what is wrong together with the products: settings for products that there are not, keys that are none.
    ///
    /// # Errors
    /// Every mistake, each with the name of its key.
    pub fn check(&self, products: &Products) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        for slug in self.stripe_of.keys() {
            if !products.iter().any(|product| key_of_slug(&product.slug) == *slug) {
                errors.push(
                    &format!("STRIPE_…__{slug}"),
                    "there is no such product, write its slug in upper case with _ for -",
                );
            }
        }
        for (slug, own) in &self.stripe_of {
            if own.stripe_secret_key.is_some()
                && own.stripe_webhook_secret.is_none()
                && self.stripe.stripe_webhook_secret.is_some()
            {
                errors.push(
                    &format!("STRIPE_WEBHOOK_SECRET__{slug}"),
                    "is missing: an account of its own signs with a secret of its own, not with the common one",
                );
            }
        }
        if let Err(key) = Payments::new(self, products) {
            errors.push(&key, "cannot be used: it must be one line of visible ASCII characters");
        }
        errors.or(())
    }

    /// What a product's events are signed with, if anything is set.
    pub fn webhook_secret(&self, slug: &str) -> Option<SecretString> {
        self.stripe_for(slug).stripe_webhook_secret
    }

    /// The account of Stripe's that a product is paid through, each setting its own or the common one.
    pub(crate) fn stripe_for(&self, slug: &str) -> StripeConfig {
        let own = self.stripe_of.get(&key_of_slug(slug)).cloned().unwrap_or_default();
        StripeConfig {
            stripe_secret_key: own.stripe_secret_key.or_else(|| self.stripe.stripe_secret_key.clone()),
            stripe_webhook_secret: own.stripe_webhook_secret.or_else(|| self.stripe.stripe_webhook_secret.clone()),
            stripe_api_base: own.stripe_api_base.or_else(|| self.stripe.stripe_api_base.clone()),
        }
    }
}

fn db_connections() -> u32 {
    16
}

fn app_url() -> String {
    "http://localhost:3000".to_owned()
}

fn sync_minutes() -> u32 {
    15
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let database = [("DATABASE_URL", "sqlite:///x.db")];
        let all = database.iter().chain(variables);
        Config::load(&all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn secret(config: &Config, slug: &str) -> Option<String> {
        config.stripe_for(slug).stripe_secret_key.map(|key| key.expose_secret().to_owned())
    }

    #[test]
    fn a_product_has_its_own_keys_or_the_common_ones() {
        let config = load(&[
            ("STRIPE_SECRET_KEY", "sk_common"),
            ("STRIPE_SECRET_KEY__ASYNC_CODER", "sk_own"),
            ("STRIPE_API_BASE__ASYNC_CODER", "http://127.0.0.1:1"),
        ])
        .unwrap();
        assert!(config.check(&Products::builtin()).is_ok());
        assert_eq!(secret(&config, "async-coder").as_deref(), Some("sk_own"));
        assert_eq!(secret(&config, "adiuva").as_deref(), Some("sk_common"));
        assert_eq!(config.stripe_for("async-coder").stripe_api_base.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(config.stripe_for("adiuva").stripe_api_base, None);
        assert_eq!(secret(&load(&[]).unwrap(), "adiuva"), None);
        let keys = [("STRIPE_WEBHOOK_SECRET", "whsec"), ("STRIPE_SECRET_KEY__ADIUVA", "sk_own")];
        let told = load(&keys).unwrap().check(&Products::builtin()).unwrap_err().to_string();
        assert!(told.contains("STRIPE_WEBHOOK_SECRET__ADIUVA: is missing"), "{told}");
    }

    #[test]
    fn a_products_key_may_be_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "whsec_file\n").unwrap();
        let config = load(&[("STRIPE_WEBHOOK_SECRET__ADIUVA_FILE", file.path().to_str().unwrap())]).unwrap();
        let secret = config.stripe_for("adiuva").stripe_webhook_secret.unwrap();
        assert_eq!(secret.expose_secret(), "whsec_file");
    }

    #[test]
    fn mistakes_are_told_with_the_whole_name_of_their_keys() {
        let told = load(&[("STRIPE_API_BASE__ADIUVA", "nowhere"), ("WEFT_APP_URL", "x"), ("STRIPE_API_BASE", "y")]);
        let told = told.unwrap_err().to_string();
        for key in ["STRIPE_API_BASE__ADIUVA: is not", "WEFT_APP_URL: is not", "STRIPE_API_BASE: is not"] {
            assert!(told.contains(key), "{key} is not in {told}");
        }
        let unknown = load(&[("STRIPE_SECRET_KEY__NOBODY", "sk"), ("STRIPE_SECRET_KEY", "a\nb")]).unwrap();
        let told = unknown.check(&Products::builtin()).unwrap_err().to_string();
        assert!(told.contains("STRIPE_…__NOBODY: there is no such product"), "{told}");
        assert!(told.contains("STRIPE_SECRET_KEY: cannot be used"), "{told}");
    }
}
