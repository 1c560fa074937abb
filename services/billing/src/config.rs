//! Configuration, from the environment.
use serde::Deserialize;
use weft_runtime::config::positive;

/// What billing reads from the environment, besides what every service reads. Every key also works as `*_FILE`.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// `DATABASE_URL`: `sqlite:///absolute/path/billing.db` or `postgres://user:password@host:port/database`.
    pub database_url: String,
    /// `WEFT_BILLING_DB_CONNECTIONS`: most connections to the database. Default 16.
    #[serde(default = "db_connections", deserialize_with = "positive")]
    pub weft_billing_db_connections: u32,
}

impl Config {
    /// The defaults with what has none.
    pub fn new(database_url: impl Into<String>) -> Config {
        Config { database_url: database_url.into(), weft_billing_db_connections: db_connections() }
    }
}

fn db_connections() -> u32 {
    16
}
