//! A database, a billing that answers, and one or more identity servers on them.
mod billing;
mod node;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use weft_auth::ServiceKey;
use weft_core::Clock;
use weft_db::{Db, DbOptions, FromRow, sql};
use weft_identity::Config;
use weft_product::{Product, Products};
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::postgres;

pub use billing::{Billing, PLAN};
pub use node::{Node, Session, claim, reason, with};

/// The product that most tests sign in to.
pub const PRODUCT: &str = "adiuva";
/// Another one with passwords.
pub const OTHER_PRODUCT: &str = "async-coder";
/// One without.
pub const NO_PASSWORDS: &str = "cofounder";
/// A password that is right.
pub const PASSWORD: &str = "correct horse battery";
/// What services of these tests prove themselves with.
const SERVICE_SECRET: &str = "the service secret of the identity tests";
const IDENTITY_SECRET: &str = "the identity secret of the identity tests";
/// Some time in 2026, and no whole second.
const NOW_MS: i64 = 1_790_000_000_123;

/// Declares each test twice: on SQLite and on PostgreSQL.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&crate::harness::World::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&crate::harness::World::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;

/// What identity servers stand on.
pub struct World {
    /// Where the servers' time comes from.
    pub clock: Clock,
    /// What each server is configured with.
    pub config: Config,
    /// Who tells plans.
    pub billing: Billing,
    products: Arc<Products>,
    folder: Option<TempDir>,
}

impl World {
    pub async fn sqlite() -> World {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("identity.db").display());
        World { folder: Some(folder), ..World::on(url).await }
    }

    pub async fn postgres() -> World {
        World::on(postgres::shared().await.database().await).await
    }

    async fn on(url: String) -> World {
        let config = Config::new(url, IDENTITY_SECRET);
        weft_identity::migrate(&config).await.unwrap();
        let products = Arc::new(Products::builtin());
        World { clock: Clock::manual(NOW_MS), config, billing: Billing::start(), products, folder: None }
    }

    /// The product's manifest.
    pub fn product(&self) -> &Product {
        self.products.get(PRODUCT).unwrap()
    }

    /// Lets time pass for every server.
    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// One more server.
    pub async fn node(&self) -> Node {
        self.node_with(self.config.clone()).await
    }

    /// One more server with another configuration.
    pub async fn node_with(&self, config: Config) -> Node {
        Node::start(config, self.mesh(), Arc::clone(&self.products)).await
    }

    /// Serves until it fails; for configurations that must be refused.
    pub async fn refused(&self, config: Config) -> weft_identity::Error {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        weft_identity::serve(config, self.mesh(), Arc::clone(&self.products), listener).await.expect_err("it started")
    }

    /// The key of another service of the mesh.
    pub fn service(&self, name: &'static str) -> ServiceKey {
        ServiceKey::new(&SecretString::from(SERVICE_SECRET), name)
    }

    /// One column of the database, as it stands.
    pub async fn column<T: FromRow>(&self, text: &'static str) -> Vec<T> {
        sql(text).all(&self.db().await).await.unwrap()
    }

    /// Makes the database look as if its schema had never been applied.
    pub async fn forget_migrations(&self) {
        sql("DELETE FROM weft_migrations").run(&self.db().await).await.unwrap();
    }

    /// The files of an SQLite database.
    pub fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.as_ref().expect("an SQLite database").path();
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    async fn db(&self) -> Db {
        Db::connect(&DbOptions { url: self.config.database_url.clone(), schema: "identity", max_connections: 1 })
            .await
            .unwrap()
    }

    fn mesh(&self) -> Mesh {
        let config = MeshConfig {
            weft_billing_url: self.billing.url(),
            weft_service_secret: Some(SERVICE_SECRET.into()),
            weft_drain_ms: 2_000,
            ..MeshConfig::default()
        };
        Mesh::new("identity", config, self.clock.clone(), Shutdown::new())
    }
}
