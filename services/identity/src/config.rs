//! Configuration, from the environment.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::available_parallelism;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use weft_product::Products;
use weft_runtime::Environment;
use weft_runtime::config::{ConfigErrors, key_of_slug, keys_for_products, load_for, load_from, positive, secret, url};

use crate::github::GitHubConfig;
use crate::issuers::{IssuerConfig, is_https};
use crate::mail;

/// Each thread keeps 19 MiB.
const MAX_HASH_THREADS: usize = 64;

/// What identity reads from the environment, besides what every service reads. Every key also works as `*_FILE`.
#[derive(Clone, Deserialize)]
pub struct Config {
    /// `ENV`: what every service reads; in production mail is held to more.
    #[serde(default)]
    pub env: Environment,
    /// `DATABASE_URL`: `sqlite:///absolute/path/identity.db` or `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// `WEFT_IDENTITY_SECRET`: seals the signing keys and keys the hashes of refresh tokens; at least 32 random
    /// bytes, the same on every replica. With another one the service refuses to start on this database.
    #[serde(deserialize_with = "secret")]
    pub weft_identity_secret: SecretString,
    /// `WEFT_IDENTITY_HASH_THREADS`: password hashes computed at once, 1 to 64. Default: one a core.
    #[serde(default = "cores", deserialize_with = "hash_threads")]
    pub weft_identity_hash_threads: usize,
    /// `WEFT_IDENTITY_HASH_QUEUE`: logins that may wait for a hash; the next is refused with RATE_LIMITED. Default 64.
    #[serde(default = "hash_queue")]
    pub weft_identity_hash_queue: usize,
    /// `WEFT_IDENTITY_LOGIN_FAILURES`: failed logins of one address within 10 minutes, after which its logins are
    /// refused with RATE_LIMITED, until fewer lie within 10 minutes. At least 1, default 20.
    #[serde(default = "login_failures", deserialize_with = "positive")]
    pub weft_identity_login_failures: u32,
    /// `WEFT_IDENTITY_DB_CONNECTIONS`: most connections to the database. Default 16.
    #[serde(default = "db_connections", deserialize_with = "positive")]
    pub weft_identity_db_connections: u32,
    /// `WEFT_IDENTITY_AUDIT_DAYS`: days for which audit events are kept. Default 365.
    #[serde(default = "audit_days")]
    pub weft_identity_audit_days: u32,
    /// `WEFT_APP_URL`: the app that links in mails lead to. Default `http://localhost:3000`.
    #[serde(default = "app_url", deserialize_with = "url")]
    pub weft_app_url: String,
    /// `WEFT_DNS_SERVER`: who is asked whether a domain has the TXT record of an organisation, `address:port`. Default:
    /// the name servers of the machine.
    #[serde(default, deserialize_with = "dns_server")]
    pub weft_dns_server: Option<SocketAddr>,
    /// `SMTP_URL`: the mail server, `smtp://user:password@host:port?tls=required` or `smtps://…`. Default: none, mail
    /// is written to files.
    #[serde(default, deserialize_with = "smtp_url")]
    pub smtp_url: Option<SecretString>,
    /// `WEFT_MAIL_DIR`: the folder for mail without a mail server, a file each. Default `./mail`.
    #[serde(default = "mail_dir")]
    pub weft_mail_dir: PathBuf,
    /// `WEFT_MAIL_FROM`: who mail is from. Default `Weft <no-reply@localhost>`.
    #[serde(default = "mail_from", deserialize_with = "sender")]
    pub weft_mail_from: String,
    /// `CLERK_ISSUER`, `FIREBASE_PROJECT_ID`, `SUPABASE_URL`, `OIDC_ISSUER` and what belongs to them, for products without
    /// their own.
    #[serde(skip)]
    pub issuers: IssuerConfig,
    /// The same as `NAME__<SLUG>`, by slug as keys have it: `ASYNC_CODER`.
    #[serde(skip)]
    pub issuers_of: BTreeMap<String, IssuerConfig>,
    /// `GITHUB_CLIENT_ID` and what belongs to it, for products without their own.
    #[serde(skip)]
    pub github: GitHubConfig,
    /// The same as `NAME__<SLUG>`.
    #[serde(skip)]
    pub github_of: BTreeMap<String, GitHubConfig>,
}

impl Config {
    /// The defaults with what has none.
    pub fn new(database_url: impl Into<String>, secret: impl Into<SecretString>) -> Config {
        Config {
            env: Environment::default(),
            database_url: database_url.into(),
            weft_identity_secret: secret.into(),
            weft_identity_hash_threads: cores(),
            weft_identity_hash_queue: hash_queue(),
            weft_identity_login_failures: login_failures(),
            weft_identity_db_connections: db_connections(),
            weft_identity_audit_days: audit_days(),
            weft_app_url: app_url(),
            weft_dns_server: None,
            smtp_url: None,
            weft_mail_dir: mail_dir(),
            weft_mail_from: mail_from(),
            issuers: IssuerConfig::default(),
            issuers_of: BTreeMap::new(),
            github: GitHubConfig::default(),
            github_of: BTreeMap::new(),
        }
    }

    /// Reads it from an environment.
    ///
    /// # Errors
    /// Every mistake, each with the name of its key.
    pub fn load(variables: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let issuers = load_from::<IssuerConfig>(variables.clone()).unwrap_or_else(|more| errors.add(more));
        let github = load_from::<GitHubConfig>(variables.clone()).unwrap_or_else(|more| errors.add(more));
        let mut github_of = BTreeMap::new();
        for (_, slug) in keys_for_products::<GitHubConfig>(variables) {
            let own = load_for::<GitHubConfig>(variables, &slug).unwrap_or_else(|more| errors.add(more));
            github_of.insert(slug, own);
        }
        let mut issuers_of = BTreeMap::new();
        for (_, slug) in keys_for_products::<IssuerConfig>(variables) {
            let own = load_for::<IssuerConfig>(variables, &slug).unwrap_or_else(|more| errors.add(more));
            issuers_of.insert(slug, own);
        }
        match load_from::<Config>(variables.clone()) {
            Ok(config) => errors.or(Config { issuers, issuers_of, github, github_of, ..config }),
            Err(more) => {
                errors.add::<()>(more);
                Err(errors)
            }
        }
    }

    /// What one key alone does not show: in production no link and no mail goes out in the clear, and no keys come in so;
    /// settings for products that there are not.
    ///
    /// # Errors
    /// Every mistake, by key.
    pub fn check(&self, products: &Products) -> Result<(), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        for slug in self.issuers_of.keys() {
            if !products.iter().any(|product| key_of_slug(&product.slug) == *slug) {
                let key = format!("CLERK_…, FIREBASE_…, SUPABASE_… or OIDC_…__{slug}");
                errors.push(&key, "there is no such product, write its slug in upper case with _ for -");
            }
        }
        for slug in self.github_of.keys() {
            if !products.iter().any(|product| key_of_slug(&product.slug) == *slug) {
                let key = format!("GITHUB_…__{slug}");
                errors.push(&key, "there is no such product, write its slug in upper case with _ for -");
            }
        }
        let open = if self.env == Environment::Prod { self.in_the_clear() } else { None };
        if let Some(key) = open {
            errors.push(&key, "must be an https URL when ENV=prod, because what it tells is believed");
        }
        if self.env == Environment::Prod {
            for product in products.iter() {
                let urls = product.identity.issuers.iter().flat_map(|issuer| [&issuer.issuer, &issuer.jwks_url]);
                if urls.flatten().any(|url| !is_https(url)) {
                    let key = format!("identity.issuers of {}", product.slug);
                    errors.push(&key, "must be https URLs when ENV=prod, because what they tell is believed");
                }
            }
        }
        if let Some(server) = self.smtp_url.as_ref().filter(|_| self.env == Environment::Prod) {
            if !is_https(&self.weft_app_url) {
                errors.push("WEFT_APP_URL", "must be an https URL when ENV=prod, because mails have links to it");
            }
            if !mail::has_tls(server.expose_secret()) {
                errors.push("SMTP_URL", "must have TLS when ENV=prod: write smtps://… or add ?tls=required");
            }
        }
        errors.or(())
    }
}

impl Config {
    /// The name of a setting by which keys of an issuer, or tokens of GitHub, would come without TLS.
    fn in_the_clear(&self) -> Option<String> {
        let own = self.github_of.iter().map(|(slug, own)| (format!("__{slug}"), own));
        let open = std::iter::once((String::new(), &self.github)).chain(own).find_map(|(suffix, github)| {
            let open = github.in_the_clear(is_https)?;
            Some(format!("{open}{suffix}"))
        });
        if open.is_some() {
            return open;
        }
        let own = self.issuers_of.iter().map(|(slug, own)| (format!("__{slug}"), own));
        std::iter::once((String::new(), &self.issuers)).chain(own).find_map(|(suffix, issuers)| {
            let urls = [
                ("CLERK_ISSUER", &issuers.clerk_issuer),
                ("CLERK_JWKS_URL", &issuers.clerk_jwks_url),
                ("FIREBASE_JWKS_URL", &issuers.firebase_jwks_url),
                ("SUPABASE_URL", &issuers.supabase_url),
                ("OIDC_ISSUER", &issuers.oidc_issuer),
                ("OIDC_JWKS_URL", &issuers.oidc_jwks_url),
            ];
            let open = urls.into_iter().find(|(_, url)| url.as_ref().is_some_and(|url| !is_https(url)));
            open.map(|(key, _)| format!("{key}{suffix}"))
        })
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from).min(MAX_HASH_THREADS)
}

fn hash_queue() -> usize {
    64
}

fn login_failures() -> u32 {
    20
}

fn db_connections() -> u32 {
    16
}

fn audit_days() -> u32 {
    365
}

fn app_url() -> String {
    "http://localhost:3000".to_owned()
}

fn mail_dir() -> PathBuf {
    "./mail".into()
}

fn mail_from() -> String {
    "Weft <no-reply@localhost>".to_owned()
}

fn dns_server<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = String::deserialize(from)?.parse();
    address
        .map(Some)
        .map_err(|_| D::Error::custom("is no address with a port: write 192.0.2.53:53 or [2001:db8::53]:53"))
}

fn smtp_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    let url = SecretString::deserialize(from)?;
    match mail::server(&url) {
        Ok(_) => Ok(Some(url)),
        // Without the cause, which may quote the password.
        Err(_) => Err(D::Error::custom("is not valid: write smtp://user:password@host:port?tls=required or smtps://…")),
    }
}

fn sender<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let known = mail::sender(&text).is_ok();
    if known { Ok(text) } else { Err(D::Error::custom("is no sender: write Name <address>")) }
}

fn hash_threads<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match usize::deserialize(from)? {
        threads @ 1..=MAX_HASH_THREADS => Ok(threads),
        _ => Err(D::Error::custom(format!("must be from 1 to {MAX_HASH_THREADS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_production_no_key_of_an_issuer_comes_in_the_clear() {
        let manifest = include_str!("../../../products/cofounder.toml");
        let issuer = |url: &str| format!("kind = \"clerk\"\njwks_url = \"{url}\"");
        let told = |env, in_manifest: &str, in_env: Option<&str>| {
            let manifest = manifest.replacen("kind = \"clerk\"", &issuer(in_manifest), 1);
            assert!(manifest.contains(in_manifest));
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("cofounder.toml"), manifest).unwrap();
            let mut config = Config::new("sqlite:///x", "a secret of at least thirty-two bytes");
            (config.env, config.issuers.clerk_jwks_url) = (env, in_env.map(str::to_owned));
            let products = Products::load(Some(folder.path())).unwrap();
            config.check(&products).err().map(|errors| errors.to_string()).unwrap_or_default()
        };
        let (plain, safe) = ("http://clerk.test/keys", "https://clerk.test/keys");
        assert!(told(Environment::Prod, plain, None).contains("identity.issuers of cofounder: must be https"));
        assert!(told(Environment::Prod, safe, Some(plain)).contains("CLERK_JWKS_URL: must be"));
        assert_eq!(told(Environment::Prod, safe, Some(safe)), "");
        assert_eq!(told(Environment::Staging, plain, Some(plain)), "");
    }

    #[test]
    fn in_production_no_mail_and_no_link_goes_in_the_clear() {
        let told = |env, app: &str, server: Option<&str>| {
            let mut config = Config::new("sqlite:///x", "a secret of at least thirty-two bytes");
            (config.env, config.weft_app_url) = (env, app.to_owned());
            config.smtp_url = server.map(SecretString::from);
            config.check(&Products::builtin()).err().map(|errors| errors.to_string()).unwrap_or_default()
        };
        let (plain, safe) = ("smtp://ana:hunter2@mail.test:25", "https://app.test");
        for open in [plain, "smtp://mail.test?tls=opportunistic", "smtp://mail.test?x=tls=required"] {
            let text = told(Environment::Prod, "http://app.test", Some(open));
            assert!(text.contains("WEFT_APP_URL: must") && text.contains("SMTP_URL: must"), "{text}");
            assert!(!text.contains("hunter2"));
        }
        for server in ["smtps://mail.test", "smtp://ana:hunter2@mail.test:587?tls=required"] {
            assert_eq!(told(Environment::Prod, safe, Some(server)), "");
        }
        assert_eq!(told(Environment::Prod, "http://app.test", None), "", "nothing is sent");
        assert_eq!(told(Environment::Staging, "http://app.test", Some(plain)), "");
    }
}
