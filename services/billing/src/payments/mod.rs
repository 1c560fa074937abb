//! The port to Stripe: which account of Stripe's a product is paid through, what is asked of it, and what its events
//! mean.
pub mod apply;
pub mod client;
pub mod connect;
pub mod purchase;
pub mod refund;
pub mod requests;
pub mod signature;
mod subscription;
pub mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use weft_product::Products;

pub use client::Stripe;

use crate::config::Config;
use crate::error::Error;

/// What of Stripe's belongs to each product. Cheap to clone.
#[derive(Clone)]
pub struct Payments(Arc<Inner>);

struct Inner {
    accounts: BTreeMap<String, Account>,
    /// `scheme://host:port`
    app: String,
}

struct Account {
    stripe: Option<Stripe>,
    webhook_secret: Option<SecretString>,
}

impl Payments {
    /// The accounts of all products.
    ///
    /// # Errors
    /// The name of the setting that cannot be used.
    pub fn new(config: &Config, products: &Products) -> Result<Payments, String> {
        let mut accounts = BTreeMap::new();
        for product in products.iter() {
            let of = config.stripe_for(&product.slug);
            let stripe = match &of.stripe_secret_key {
                Some(key) => Some(Stripe::new(key, of.stripe_api_base.as_deref()).ok_or("STRIPE_SECRET_KEY")?),
                None => None,
            };
            accounts.insert(product.slug.clone(), Account { stripe, webhook_secret: of.stripe_webhook_secret });
        }
        let app = origin(&config.weft_app_url).ok_or("WEFT_APP_URL")?;
        Ok(Payments(Arc::new(Inner { accounts, app })))
    }

    /// What a product is paid through.
    ///
    /// # Errors
    /// [`Error::PaymentsNotConfigured`] without a key.
    pub fn stripe(&self, product: &str) -> Result<&Stripe, Error> {
        self.0.accounts.get(product).and_then(|account| account.stripe.as_ref()).ok_or(Error::PaymentsNotConfigured)
    }

    /// The products that are paid through Stripe, by slug.
    pub fn configured(&self) -> Vec<String> {
        let accounts = self.0.accounts.iter();
        accounts.filter(|(_, account)| account.stripe.is_some()).map(|(slug, _)| slug.clone()).collect()
    }

    /// Every secret that events are signed with and the products whose it is, those of `product` first.
    pub fn webhook_secrets(&self, product: &str) -> Vec<(&str, Vec<&str>)> {
        let mut secrets: Vec<(&str, Vec<&str>)> = Vec::new();
        let own_first = self.0.accounts.iter().filter(|(slug, _)| *slug == product);
        let then_others = self.0.accounts.iter().filter(|(slug, _)| *slug != product);
        for (slug, account) in own_first.chain(then_others) {
            let Some(secret) = &account.webhook_secret else { continue };
            let secret = secret.expose_secret();
            match secrets.iter_mut().find(|(known, _)| *known == secret) {
                Some((_, products)) => products.push(slug),
                None => secrets.push((secret, vec![slug])),
            }
        }
        secrets
    }

    /// Where Stripe's pages lead back to: a path of the app, or a URL of its origin. `default` is a path.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn return_url(&self, field: &str, wanted: &str, default: &str) -> Result<String, Error> {
        let app = &self.0.app;
        let wanted = if wanted.is_empty() { default } else { wanted };
        let refuse = || Error::Invalid(format!("{field} must be a path or a URL of {app}"));
        if wanted.len() > MAX_URL || !wanted.bytes().all(|byte| byte.is_ascii_graphic()) || wanted.contains('\\') {
            return Err(refuse());
        }
        if wanted.starts_with('/') && !wanted.starts_with("//") {
            return Ok(format!("{app}{wanted}"));
        }
        match origin(wanted) {
            Some(origin) if origin == *app && !wanted.contains('@') => Ok(wanted.to_owned()),
            _ => Err(refuse()),
        }
    }
}

/// Longest return address, in bytes.
const MAX_URL: usize = 2000;

/// `scheme://host:port` of an http or https URL.
fn origin(url: &str) -> Option<String> {
    // What stands in braces is Stripe's placeholder for the session's id, which a URI must not hold.
    let uri: http::Uri = url.replace(['{', '}'], "_").parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let default = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{}{port}", uri.host()?.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payments(app: &str) -> Payments {
        let mut config = Config::new("sqlite:///x.db");
        config.weft_app_url = app.into();
        config.stripe.stripe_webhook_secret = Some("whsec_common".into());
        let own = crate::config::StripeConfig { stripe_webhook_secret: Some("whsec_own".into()), ..Default::default() };
        config.stripe_of.insert("COMPANION".into(), own);
        Payments::new(&config, &Products::builtin()).unwrap()
    }

    #[test]
    fn pages_lead_back_to_the_app_and_nowhere_else() {
        let payments = payments("https://app.example.com/start");
        let url = |wanted: &str| payments.return_url("success_url", wanted, "/billing/success");
        assert_eq!(url("").unwrap(), "https://app.example.com/billing/success");
        assert_eq!(url("/a?b=c#d").unwrap(), "https://app.example.com/a?b=c#d");
        let with_session = "https://app.example.com/a?session={CHECKOUT_SESSION_ID}";
        assert_eq!(url(with_session).unwrap(), with_session);
        assert_eq!(url("https://APP.example.com:443/a").unwrap(), "https://APP.example.com:443/a");
        for bad in [
            "//evil.example.com/a",
            "/\\evil.example.com",
            "https://evil.example.com/a",
            "http://app.example.com/a",
            "https://app.example.com:444/a",
            "https://app.example.com@evil.example.com/",
            "https://evil.example.com@app.example.com/",
            "https://app.example.com.evil.example.com/",
            "javascript:alert(1)",
            "a",
            "/a b",
            "/a\nb",
            &format!("/{}", "a".repeat(2000)),
        ] {
            assert!(matches!(url(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_secret_of_the_requests_product_comes_first() {
        let payments = payments("http://localhost:3000");
        let companion = payments.webhook_secrets("companion");
        assert_eq!(companion[0], ("whsec_own", vec!["companion"]));
        assert_eq!(companion.len(), 2);
        let adiuva = payments.webhook_secrets("adiuva");
        assert_eq!((adiuva[0].0, adiuva[0].1[0], adiuva[1].0), ("whsec_common", "adiuva", "whsec_own"));
        assert_eq!(adiuva[0].1.len(), Products::builtin().iter().count() - 1);
    }
}
