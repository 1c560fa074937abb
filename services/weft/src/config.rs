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
use weft_runtime::config::{ConfigErrors, load_from};

use crate::cli::Service;
use crate::exit::Failure;
use crate::keys::keys_of;

/// Environment variables, by name.
pub type Environment = BTreeMap<String, String>;

/// What the binary itself reads from the environment.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct BinaryConfig {
    /// `WEFT_PRODUCTS_DIR`: further manifests, or ones that replace built-in ones. Default: none.
    pub weft_products_dir: Option<PathBuf>,
    /// `WEFT_WORKER_THREADS`: threads that run requests. Default: one a core.
    pub weft_worker_threads: Option<usize>,
}

/// The process's environment; entries that are not UTF-8 cannot be ours and are left out.
pub fn environment() -> Environment {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// One typed part of the environment.
pub fn part<T: DeserializeOwned>(environment: &Environment) -> Result<T, ConfigErrors> {
    load_from(environment.iter().map(|(key, value)| (key.clone(), value.clone())))
}

/// The same, ending the process with what is wrong.
pub fn require<T: DeserializeOwned>(environment: &Environment) -> Result<T, Failure> {
    part(environment).map_err(Failure::config)
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
    note(part::<MeshConfig>(environment).map(drop).map_err(|errors| errors.to_string()));
    note(part::<BinaryConfig>(environment).map(drop).map_err(|errors| errors.to_string()));
    for service in services {
        note(check_one(environment, *service).map_err(|errors| errors.to_string()));
    }
    let folder = part::<BinaryConfig>(environment).unwrap_or_default().weft_products_dir;
    note(Products::load(folder.as_deref()).map(drop).map_err(|errors| errors.to_string()));
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
    let settings = environment.keys().filter(|key| key.starts_with("WEFT_") && !key.starts_with("WEFT_TEST_"));
    let unknown = settings.filter(|key| !known.iter().any(|name| name == key.strip_suffix("_FILE").unwrap_or(key)));
    let lines: Vec<String> =
        unknown.map(|key| format!("{key}: no such setting; .env.example names them all")).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// Every setting that any part of the mesh reads.
fn keys() -> Vec<String> {
    let parts = [
        keys_of::<MeshConfig>(),
        keys_of::<BinaryConfig>(),
        keys_of::<weft_identity::Config>(),
        keys_of::<weft_billing::Config>(),
        keys_of::<weft_orchestrator::Config>(),
        keys_of::<weft_gateway::Config>(),
    ];
    parts.concat()
}

fn check_one(environment: &Environment, service: Service) -> Result<(), ConfigErrors> {
    match service {
        Service::Identity => part::<weft_identity::Config>(environment).map(drop),
        Service::Billing => part::<weft_billing::Config>(environment).map(drop),
        Service::Orchestrator => part::<weft_orchestrator::Config>(environment).map(drop),
        Service::Gateway => part::<weft_gateway::Config>(environment).map(drop),
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
    fn a_misspelt_setting_is_named() {
        let environment = Environment::from([
            ("WEFT_LISTENN".to_owned(), "x".to_owned()),
            ("WEFT_IDENTITY_SECRET_FILE".to_owned(), "x".to_owned()),
        ]);
        let mistakes = unknown_keys(&environment).unwrap_err();
        assert_eq!(mistakes, "WEFT_LISTENN: no such setting; .env.example names them all");
    }
}
