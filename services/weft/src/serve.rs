//! `weft serve`: one service until it is told to stop.
use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use weft_product::Products;
use weft_runtime::{Mesh, Shutdown, telemetry};

use crate::cli::Service;
use crate::config::{BinaryConfig, Environment, mesh, products, require};
use crate::exit::Failure;
use crate::test_clock::clock;

/// Runs a future on a runtime with the configured number of threads.
pub fn block_on(environment: &Environment, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let binary: BinaryConfig = require(environment)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = binary.weft_worker_threads {
        builder.worker_threads(threads.max(1));
    }
    let runtime = builder.enable_all().build().map_err(Failure::cannot_create)?;
    runtime.block_on(work)
}

/// Runs one service as the environment says.
pub async fn serve(environment: &Environment, service: Service) -> Result<(), Failure> {
    let config = mesh(environment).map_err(Failure::config)?;
    let products = products(environment)?;
    let address = config.weft_listen.clone().unwrap_or_else(|| service.default_listen().to_owned());
    // Before a port is bound, so that a mistake never looks like a running service.
    let job = Job::read(environment, service, &products)?;
    let _telemetry = telemetry::init(service.name(), &config).map_err(Failure::config)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals();
    let clock = clock(&require(environment)?, config.env).await?;
    let listener = bind(&address, "WEFT_LISTEN").await?;
    tracing::info!(service = service.name(), %address, version = env!("CARGO_PKG_VERSION"), "starting");
    job.run(Mesh::new(service.name(), config, clock, shutdown), products, listener).await
}

/// Takes a port, or says why it cannot be had and with which setting to choose another.
pub async fn bind(address: &str, setting: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::cannot_create(format!("cannot listen on {address}: {error}; choose another address with {setting}"))
    })
}

/// A service with its configuration, ready to run.
pub enum Job {
    /// Accounts, sessions, tokens.
    Identity(weft_identity::Config),
    /// Plans and money.
    Billing(weft_billing::Config),
    /// Agents and models.
    Orchestrator(weft_orchestrator::Config),
    /// The edge.
    Gateway(weft_gateway::Config),
}

impl Job {
    /// Reads the service's own part of the environment and finds every mistake in it that needs no other server.
    pub fn read(environment: &Environment, service: Service, products: &Products) -> Result<Job, Failure> {
        let job = Job::parse(environment, service)?;
        match &job {
            Job::Identity(config) => config.check(products).map_err(Failure::config)?,
            Job::Billing(config) => config.check(products).map_err(Failure::config)?,
            Job::Orchestrator(config) => config.check().map_err(Failure::config)?,
            Job::Gateway(config) => config.check(products).map_err(Failure::config)?,
        }
        Ok(job)
    }

    /// Reads the service's own part of the environment, value by value: enough for its database.
    pub fn parse(environment: &Environment, service: Service) -> Result<Job, Failure> {
        Ok(match service {
            Service::Identity => Job::Identity(weft_identity::Config::load(environment).map_err(Failure::config)?),
            Service::Billing => Job::Billing(weft_billing::Config::load(environment).map_err(Failure::config)?),
            Service::Orchestrator => Job::Orchestrator(require(environment)?),
            Service::Gateway => Job::Gateway(require(environment)?),
        })
    }

    /// Brings the service's database to this version, if it has one.
    pub async fn migrate(&self) -> Result<(), Failure> {
        match self {
            Job::Identity(config) => weft_identity::migrate(config).await.map_err(Failure::unavailable),
            Job::Billing(config) => weft_billing::migrate(config).await.map_err(Failure::unavailable),
            Job::Orchestrator(config) => weft_orchestrator::migrate(config).await.map_err(Failure::unavailable),
            Job::Gateway(_) => Ok(()),
        }
    }

    /// Serves until the mesh shuts down.
    pub async fn run(self, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Failure> {
        match self {
            Job::Identity(config) => {
                weft_identity::serve(config, mesh, products, listener).await.map_err(Failure::unavailable)
            }
            Job::Billing(config) => {
                weft_billing::serve(config, mesh, products, listener).await.map_err(Failure::unavailable)
            }
            Job::Orchestrator(config) => {
                weft_orchestrator::serve(config, mesh, products, listener).await.map_err(Failure::unavailable)
            }
            Job::Gateway(config) => {
                weft_gateway::serve(config, mesh, products, listener).await.map_err(Failure::unavailable)
            }
        }
    }
}
