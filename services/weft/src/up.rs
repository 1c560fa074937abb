//! `weft up`: the whole mesh in one process on embedded parts.
//!
//! It is configuration, not a second architecture: what the environment does not name is filled in (SQLite
//! files, an in-process cache, made secrets, loopback ports), and then the same services run as anywhere. They are
//! neighbours, so that calls between them need no connection; the ports are for tools.
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use weft_core::Clock;
use weft_product::Products;
use weft_runtime::{Mesh, MeshConfig, Neighbours, Shutdown, telemetry};

use crate::cli::{Service, UpArguments};
use crate::config::{Environment, products, require};
use crate::demo;
use crate::exit::Failure;
use crate::secrets::secret;
use crate::serve::{Job, bind};
use crate::setup;
use crate::test_clock::clock;

/// Runs everything until Ctrl-C.
pub async fn up(environment: &Environment, arguments: UpArguments) -> Result<(), Failure> {
    let begun = Instant::now();
    let folder = Folder::open(&arguments.data_dir)?;
    let products = products(environment)?;
    let mut filled = fill(environment, &folder)?;
    // Before a port is bound, so that a mistake never looks like a running mesh.
    let read = |service| Job::read(&folder.with_database(&filled, service), service, &products);
    let gateway = read(Service::Gateway)?;
    let inner = [Service::Billing, Service::Identity, Service::Orchestrator];
    let inner = inner.map(|service| read(service).map(|job| (service, job)));
    let inner = inner.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    require::<MeshConfig>(&filled)?.check().map_err(Failure::config)?;

    let edge = bind(&arguments.listen, "--listen").await?;
    let listening = edge.local_addr().map_err(Failure::cannot_create)?;
    let mut parts = vec![(Service::Gateway, gateway, edge)];
    for (service, job) in inner {
        let listener = bind("127.0.0.1:0", "--listen").await?;
        let address = listener.local_addr().map_err(Failure::cannot_create)?;
        filled.insert(format!("WEFT_{}_URL", service.name().to_uppercase()), format!("http://{address}"));
        parts.push((service, job, listener));
    }
    let config: MeshConfig = require(&filled)?;
    let _telemetry = telemetry::init("weft", &config).map_err(Failure::config)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals();

    let clock = clock(&require(&filled)?, config.env).await?;
    let mut running = start(&config, &products, parts, &clock, &shutdown).await?;
    let announce = announce(&filled, &folder, listening, begun, &products, &clock);
    tokio::select! {
        ended = running.join_next() => return stop(ended, running, &shutdown).await,
        told = announce => told?,
        () = shutdown.wait() => {}
    }
    let ended = running.join_next().await;
    stop(ended, running, &shutdown).await
}

/// Starts every part; each has its own mesh identity and all share one shutdown.
async fn start(
    config: &MeshConfig,
    products: &Arc<Products>,
    parts: Vec<(Service, Job, TcpListener)>,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<JoinSet<Result<(), Failure>>, Failure> {
    let neighbours = Neighbours::new(parts.iter().map(|(service, ..)| service.name()));
    let mut running = JoinSet::new();
    for (service, job, listener) in parts {
        job.migrate().await?;
        let mesh = Mesh::beside(neighbours.clone(), service.name(), config.clone(), clock.clone(), shutdown.clone());
        running.spawn(job.run(mesh, Arc::clone(products), listener));
    }
    Ok(running)
}

/// After the first part has ended, by itself or because it was told to: ends the others and says what was wrong.
async fn stop(
    first: Option<Result<Result<(), Failure>, tokio::task::JoinError>>,
    mut running: JoinSet<Result<(), Failure>>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let mut outcome = first.map_or(Ok(()), flatten);
    shutdown.trigger();
    while let Some(ended) = running.join_next().await {
        outcome = outcome.and(flatten(ended));
    }
    outcome
}

fn flatten(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|error| Err(Failure::stopped(format!("a service stopped: {error}"))))
}

/// Adds what the environment does not name.
fn fill(environment: &Environment, folder: &Folder) -> Result<Environment, Failure> {
    let mut filled = environment.clone();
    for (key, name) in [
        ("WEFT_SERVICE_SECRET", "service-secret"),
        ("WEFT_IDENTITY_SECRET", "identity-secret"),
        ("WEFT_ORCHESTRATOR_SECRET", "orchestrator-secret"),
    ] {
        if !names(environment, key) {
            filled.insert(key.to_owned(), secret(&folder.path, name)?);
        }
    }
    if !names(environment, "WEFT_MAIL_DIR") {
        filled.insert("WEFT_MAIL_DIR".to_owned(), folder.path.join("mail").display().to_string());
    }
    Ok(filled)
}

/// Whether the environment names a key, itself or as a file.
fn names(environment: &Environment, key: &str) -> bool {
    environment.contains_key(key) || environment.contains_key(&format!("{key}_FILE"))
}

/// The data folder, held by one process at a time.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn open(path: &Path) -> Result<Folder, Failure> {
        let cannot = |error: &dyn std::fmt::Display| {
            Failure::cannot_create(format!(
                "cannot use the data folder {}: {error}; choose another with --data-dir",
                path.display()
            ))
        };
        fs::create_dir_all(path).map_err(|error| cannot(&error))?;
        let path = fs::canonicalize(path).map_err(|error| cannot(&error))?;
        let lock = File::create(path.join("lock")).map_err(|error| cannot(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(cannot(&"another weft is running on it")),
            Err(TryLockError::Error(error)) => Err(cannot(&error)),
        }
    }

    /// A service's own view: its SQLite file here, unless the environment names a database.
    fn with_database(&self, environment: &Environment, service: Service) -> Environment {
        let mut own = environment.clone();
        if !names(environment, "DATABASE_URL") {
            let file = self.path.join(format!("{}.db", service.name()));
            own.insert("DATABASE_URL".to_owned(), format!("sqlite://{}", file.display()));
        }
        own
    }
}

/// Waits until the edge answers for all parts, makes the demo account and says how to go on.
async fn announce(
    environment: &Environment,
    folder: &Folder,
    listening: SocketAddr,
    begun: Instant,
    products: &Products,
    clock: &Clock,
) -> Result<(), Failure> {
    let url = demo::reachable(listening);
    demo::wait_until_ready(&url).await?;
    let ready_ms = begun.elapsed().as_millis();
    let password = secret(&folder.path, "demo-password")?;
    let account = demo::account(environment, products, &url, &password).await?;
    let links = setup::links(&folder.with_database(environment, Service::Identity), products, &url, clock).await?;
    let text = demo::welcome(environment, &url, &folder.path, ready_ms, account.as_ref(), &links);
    // A closed standard output is no reason to stop serving.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path()).unwrap();
        let refused = Folder::open(folder.path()).map(|_| ()).unwrap_err();
        assert!(format!("{refused:?}").contains("another weft is running on it"));
        drop(held);
        assert!(Folder::open(folder.path()).is_ok());
    }

    #[test]
    fn a_named_database_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path()).unwrap();
        let named = Environment::from([("DATABASE_URL_FILE".to_owned(), "/run/secrets/url".to_owned())]);
        assert_eq!(held.with_database(&named, Service::Billing), named);
        let embedded = held.with_database(&Environment::new(), Service::Billing);
        assert!(embedded["DATABASE_URL"].ends_with("/billing.db"));
    }
}
