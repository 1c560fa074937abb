//! `weft keys rotate`: a new key to seal stored secrets with, straight in a service's database, also while the mesh runs.
use std::fs;
use std::io::Write;

use weft_core::Clock;

use crate::admin::database_url;
use crate::cli::{RotateArguments, Service};
use crate::config::Environment;
use crate::exit::Failure;
use crate::serve::Job;

/// Makes the key and says so. What is sealed under older ones stays readable and is sealed again by the running service.
pub async fn rotate(environment: &Environment, arguments: &RotateArguments) -> Result<(), Failure> {
    let service = Service::from(arguments.service);
    let mut own = environment.clone();
    own.insert("DATABASE_URL".to_owned(), database_url(environment, &arguments.data_dir, service.name())?);
    let setting = format!("WEFT_{}_SECRET", service.name().to_uppercase());
    if !own.contains_key(&setting) && !own.contains_key(&format!("{setting}_FILE")) {
        let file = arguments.data_dir.join(format!("{}-secret", service.name()));
        let secret = fs::read_to_string(&file).map_err(|error| {
            Failure::config(format!(
                "cannot read {}: {error}; set {setting}, or name the folder of `weft up` with --data-dir",
                file.display()
            ))
        })?;
        own.insert(setting, secret.trim_end().to_owned());
    }
    own.remove("DATABASE_URL_FILE");
    let id = match Job::parse(&own, service)? {
        Job::Identity(config) => {
            weft_identity::rotate_keys(&config, Clock::System).await.map_err(Failure::unavailable)?
        }
        Job::Orchestrator(config) => {
            weft_orchestrator::rotate_keys(&config, &Clock::System).await.map_err(Failure::unavailable)?
        }
        Job::Billing(_) | Job::Gateway(_) => return Err(Failure::config("this service seals nothing")),
    };
    let name = service.name();
    let text =
        format!("{name} seals with the new key {id} within a second; what is there is sealed again while it runs\n");
    // It is done, whether or not somebody reads of it.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
