//! From the environment to each service's configuration.
//!
//! `weft serve` takes the environment as it is. `weft up` first fills in what it does not name
//! (see [`crate::up`]): the same keys, the same code afterwards.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use weft_product::Products;
use weft_runtime::MeshConfig;
use weft_runtime::config::{ConfigErrors, keys_of, load_from};

use crate::cli::Service;
use crate::exit::Failure;

/// Environment variables, by name.
pub type Environment = BTreeMap<String, String>;

/// What the binary itself reads from the environment.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct BinaryConfig {
    /// `WEFT_PRODUCTS_DIR`: further manifests, or ones that replace built-in ones. Default: none.
    pub weft_products_dir: Option<PathBuf>,
    /// `WEFT_WORKER_THREADS`: threads that run requests. Default: one a core.
    pub weft_worker_threads: Option<usize>,
    /// `WEFT_TEST_LISTEN`: with `ENV=test`, an address where tests set and advance the clock. Default: none.
    pub weft_test_listen: Option<String>,
}

/// One typed part of the environment.
pub fn part<T: DeserializeOwned>(environment: &Environment) -> Result<T, ConfigErrors> {
    load_from(environment.iter().map(|(key, value)| (key.clone(), value.clone())))
}

/// The same, ending the process with what is wrong.
pub fn require<T: DeserializeOwned>(environment: &Environment) -> Result<T, Failure> {
    part(environment).map_err(Failure::config)
}

/// What every service of a mesh of processes reads: without a common secret none of them would let another in.
pub fn mesh(environment: &Environment) -> Result<MeshConfig, String> {
    let config: MeshConfig = part(environment).map_err(|errors| errors.to_string())?;
    config.check().map_err(|errors| errors.to_string())?;
    match config.weft_service_secret {
        Some(_) => Ok(config),
        None => Err("WEFT_SERVICE_SECRET: is not set".to_owned()),
    }
}

/// The built-in products and those of `WEFT_PRODUCTS_DIR`.
pub fn products(environment: &Environment) -> Result<Arc<Products>, Failure> {
    let binary: BinaryConfig = require(environment)?;
    Products::load(binary.weft_products_dir.as_deref()).map(Arc::new).map_err(Failure::config)
}

/// `weft config check`: every mistake at once.
pub fn check(environment: &Environment, services: &[Service]) -> Result<(), Failure> {
    let services = if services.is_empty() { &Service::ALL } else { services };
    let mut mistakes: Vec<String> = Vec::new();
    let mut note = |outcome: Result<(), String>| {
        if let Err(text) = outcome {
            mistakes.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
    };
    note(mesh(environment).map(drop));
    note(part::<BinaryConfig>(environment).map(drop).map_err(|errors| errors.to_string()));
    let folder = part::<BinaryConfig>(environment).unwrap_or_default().weft_products_dir;
    let products = Products::load(folder.as_deref()).map_err(|errors| note(Err(errors.to_string())));
    // With broken manifests the services' settings are still checked, as far as the built-in products go.
    let products = products.unwrap_or_else(|()| Products::builtin());
    for service in services {
        note(check_one(environment, *service, &products).map_err(|errors| errors.to_string()));
    }
    note(unknown_keys(environment));
    if mistakes.is_empty() {
        return Ok(());
    }
    mistakes.sort();
    mistakes.dedup();
    Err(Failure::config(format!("the configuration has {} mistake(s)\n{}", mistakes.len(), mistakes.join("\n"))))
}

/// A misspelt setting would silently be its default.
fn unknown_keys(environment: &Environment) -> Result<(), String> {
    let known = keys();
    let settings = environment
        .keys()
        .filter(|key| key.starts_with("WEFT_") && !matches!(key.as_str(), "WEFT_TEST_PYTHON" | "WEFT_TEST_CLIENTS"));
    let unknown = settings.filter(|key| !known.iter().any(|name| name == key.strip_suffix("_FILE").unwrap_or(key)));
    let lines: Vec<String> =
        unknown.map(|key| format!("{key}: no such setting; .env.example names them all")).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// Every setting that any part of the mesh reads.
fn keys() -> Vec<String> {
    keys_of::<MeshConfig>()
        .chain(keys_of::<BinaryConfig>())
        .chain(keys_of::<weft_identity::Config>())
        .chain(keys_of::<weft_identity::IssuerConfig>())
        .chain(keys_of::<weft_identity::GitHubConfig>())
        .chain(keys_of::<weft_billing::Config>())
        .chain(keys_of::<weft_billing::StripeConfig>())
        .chain(keys_of::<weft_orchestrator::Config>())
        .chain(keys_of::<weft_gateway::Config>())
        .collect()
}

fn check_one(environment: &Environment, service: Service, products: &Products) -> Result<(), ConfigErrors> {
    match service {
        Service::Identity => weft_identity::Config::load(environment)?.check(products),
        Service::Billing => weft_billing::Config::load(environment)?.check(products),
        Service::Orchestrator => part::<weft_orchestrator::Config>(environment)?.check(),
        Service::Gateway => part::<weft_gateway::Config>(environment)?.check(products),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_example_names_every_setting_and_no_other() {
        let text = include_str!("../../../.env.example");
        let named: BTreeSet<String> = text
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .filter_map(|line| line.split_once('='))
            .map(|(key, _)| key.to_owned())
            .filter(|key| {
                key.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
            })
            .collect();
        assert_eq!(named, keys().into_iter().collect());
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let environment = Environment::from(
            [
                ("CORS_ORIGINS", "*"),
                ("OPENAI_API_KEY", "a\nb"),
                ("WEFT_DEFAULT_PRODUCT", "nobody"),
                ("WEFT_EDGE_MAX_STREAMS", "0"),
                ("WEFT_EDGE_DESCRIPTORS", "/no/such/file"),
                ("WEFT_IDENTITY_HASH_THREADS", "65"),
                ("REDIS_URL", "http://127.0.0.1:6379"),
                ("STRIPE_API_BASE__ADIUVA", "nowhere"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let told = |services: &[Service]| format!("{:?}", check(&environment, services).unwrap_err());
        let all = told(&[]);
        for expected in [
            "OPENAI_API_KEY: holds",
            "WEFT_EDGE_MAX_STREAMS: must",
            "WEFT_IDENTITY_HASH_THREADS: must",
            "STRIPE_API_BASE__ADIUVA: is not",
        ] {
            assert!(all.contains(expected), "{expected} is not in {all}");
        }
        let mut environment = environment.clone();
        environment.remove("WEFT_EDGE_MAX_STREAMS");
        let edge = format!("{:?}", check(&environment, &[Service::Gateway]).unwrap_err());
        for expected in
            ["CORS_ORIGINS: `*`", "WEFT_DEFAULT_PRODUCT: there", "WEFT_EDGE_DESCRIPTORS: cannot read", "REDIS_URL: the"]
        {
            assert!(edge.contains(expected), "{expected} is not in {edge}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let environment = Environment::from([
            ("WEFT_LISTENN".to_owned(), "x".to_owned()),
            ("WEFT_IDENTITY_SECRET_FILE".to_owned(), "x".to_owned()),
        ]);
        let mistakes = unknown_keys(&environment).unwrap_err();
        assert_eq!(mistakes, "WEFT_LISTENN: no such setting; .env.example names them all");
    }
}
