//! `weft migrate`: brings databases to this version and ends.
use crate::cli::Service;
use crate::config::Environment;
use crate::exit::Failure;
use crate::serve::Job;

/// Migrates the named services' databases, or all.
pub async fn migrate(environment: &Environment, services: &[Service]) -> Result<(), Failure> {
    let services = if services.is_empty() { &Service::ALL } else { services };
    for service in services {
        Job::parse(environment, *service)?.migrate().await?;
    }
    Ok(())
}
