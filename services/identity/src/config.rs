//! Configuration, from the environment.
use std::thread::available_parallelism;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// Shortest identity secret in bytes: as long as the hash that it keys.
const SECRET_MIN_BYTES: usize = 32;

/// What identity reads from the environment, besides what every service reads. Every key also works as `*_FILE`.
#[derive(Clone, Deserialize)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:///absolute/path/identity.db` or `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// `WEFT_IDENTITY_SECRET`: seals the signing keys and keys the hashes of refresh tokens; at least 32 random
    /// bytes, the same on every replica. With another one the service refuses to start on this database.
    #[serde(deserialize_with = "secret")]
    pub weft_identity_secret: SecretString,
    /// `WEFT_IDENTITY_HASH_THREADS`: password hashes computed at once. Default: one a core.
    #[serde(default = "cores")]
    pub weft_identity_hash_threads: usize,
    /// `WEFT_IDENTITY_HASH_QUEUE`: logins that may wait for a hash; the next is refused with RATE_LIMITED. Default 64.
    #[serde(default = "hash_queue")]
    pub weft_identity_hash_queue: usize,
    /// `WEFT_IDENTITY_DB_CONNECTIONS`: most connections to the database. Default 16.
    #[serde(default = "db_connections")]
    pub weft_identity_db_connections: u32,
    /// `WEFT_IDENTITY_AUDIT_DAYS`: days for which audit events are kept. Default 365.
    #[serde(default = "audit_days")]
    pub weft_identity_audit_days: u32,
}

impl Config {
    /// The defaults with what has none.
    pub fn new(database_url: impl Into<String>, secret: impl Into<SecretString>) -> Config {
        Config {
            database_url: database_url.into(),
            weft_identity_secret: secret.into(),
            weft_identity_hash_threads: cores(),
            weft_identity_hash_queue: hash_queue(),
            weft_identity_db_connections: db_connections(),
            weft_identity_audit_days: audit_days(),
        }
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn hash_queue() -> usize {
    64
}

fn db_connections() -> u32 {
    16
}

fn audit_days() -> u32 {
    365
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    let secret = SecretString::deserialize(from)?;
    if secret.expose_secret().len() < SECRET_MIN_BYTES {
        return Err(D::Error::custom(format!("is too short: use at least {SECRET_MIN_BYTES} random bytes")));
    }
    Ok(secret)
}
