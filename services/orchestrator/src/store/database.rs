//! The database, which may be away: who needs it says so, and nobody else notices.
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use weft_core::Clock;
use weft_db::keyring::{self, Keyring, KeyringError};
use weft_db::{Db, DbError, DbOptions, Migration};
use weft_runtime::Mesh;

use crate::config::Config;
use crate::error::Error;

/// The schema, step by step.
const MIGRATIONS: &[Migration] = &[
    keyring::migration(1),
    Migration { version: 2, name: "provider keys", sql: include_str!("../../migrations/0002_provider_keys.sql") },
    Migration { version: 3, name: "conversations", sql: include_str!("../../migrations/0003_conversations.sql") },
];
/// How often a database that was away at the start is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The database, once it could be opened. Cheap to clone.
#[derive(Clone, Default)]
pub struct Database(Arc<OnceLock<Ready>>);

/// An open database and what seals its values.
pub struct Ready {
    /// The database.
    pub db: Db,
    /// What seals.
    pub keyring: Keyring,
}

impl Database {
    /// Opens it. If it is away, it is tried again in the background, and everything that needs it is
    /// [`Error::NoDatabase`] until then.
    ///
    /// # Errors
    /// A database that is there and cannot be used: of another version, or of another secret.
    pub async fn start(config: &Config, mesh: &Mesh) -> Result<Database, Error> {
        let database = Database::default();
        match open(config, mesh.clock()).await {
            Ok(ready) => drop(database.0.set(ready)),
            Err(error) if is_away(&error) => {
                tracing::warn!(%error, "the database is away; own keys of users and conversations cannot be used until it is back");
                let (config, mesh, later) = (config.clone(), mesh.clone(), database.clone());
                mesh.clone().tasks().spawn("database", async move { later.keep_trying(&config, &mesh).await });
            }
            Err(error) => return Err(error),
        }
        Ok(database)
    }

    async fn keep_trying(&self, config: &Config, mesh: &Mesh) {
        loop {
            tokio::select! {
                () = mesh.shutdown().wait() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
            match open(config, mesh.clock()).await {
                Ok(ready) => {
                    tracing::info!("the database is there");
                    return drop(self.0.set(ready));
                }
                Err(error) if is_away(&error) => tracing::debug!(%error, "the database is still away"),
                Err(error) => tracing::error!(%error, "the database cannot be used"),
            }
        }
    }

    /// The open database.
    ///
    /// # Errors
    /// [`Error::NoDatabase`].
    pub fn ready(&self) -> Result<&Ready, Error> {
        self.0.get().ok_or(Error::NoDatabase)
    }

    /// Closes it, if it is open.
    pub async fn close(&self) {
        if let Some(ready) = self.0.get() {
            ready.db.close().await;
        }
    }
}

/// Brings the database to this version.
///
/// # Errors
/// The database's.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    db.migrate(MIGRATIONS).await?;
    db.close().await;
    Ok(())
}

/// The database and its keys, as they are.
///
/// # Errors
/// The database's; [`KeyringError::WrongSecret`].
pub async fn open(config: &Config, clock: &Clock) -> Result<Ready, Error> {
    let secret = config.weft_orchestrator_secret.as_ref();
    let secret = secret.ok_or(Error::Config { key: "WEFT_ORCHESTRATOR_SECRET", problem: "is not set" })?;
    let db = connect(config).await?;
    db.check_migrated(MIGRATIONS).await?;
    let keyring = Keyring::open(&db, secret, clock.clone()).await?;
    Ok(Ready { db, keyring })
}

async fn connect(config: &Config) -> Result<Db, Error> {
    let (url, max_connections) = (config.database_url.clone(), config.weft_orchestrator_db_connections);
    Ok(Db::connect(&DbOptions { url, schema: "orchestrator", max_connections }).await?)
}

/// Whether it may be different in a moment, with the same configuration.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Database(error) | Error::Keyring(KeyringError::Database(error)) => {
            error.is_unavailable() || matches!(error, DbError::Connect(..))
        }
        _ => false,
    }
}
