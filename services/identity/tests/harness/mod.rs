//! A database, a billing that answers, and one or more identity servers on them.
mod billing;
mod dns;
mod keepers;
mod node;
mod wallets;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use weft_auth::ServiceKey;
use weft_core::Clock;
use weft_db::{AssertSqlSafe, Db, DbOptions, FromRow, sql};
use weft_identity::{Config, RoleOrder};
use weft_product::{Product, Products};
use weft_proto::billing::v1::Entitlements;
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::{Database, FakeService, eventually};

pub use billing::Known;
pub use dns::NameServer;
pub use keepers::Keepers;
pub use node::{Node, Outcome, Session, claim, reason, token_id, with};
pub use wallets::Wallets;
pub use weft_testing::smtp::{MailServer, link_token};

/// The product that most tests sign in to.
pub const PRODUCT: &str = "adiuva";
/// Another one with passwords.
pub const OTHER_PRODUCT: &str = "async-coder";
/// One without.
pub const NO_PASSWORDS: &str = "cofounder";
/// The plan that everybody is on.
pub const PLAN: &str = "the-plan";
/// A password that is right.
pub const PASSWORD: &str = "correct horse battery";
/// What services of these tests prove themselves with.
const SERVICE_SECRET: &str = "the service secret of the identity tests";
const IDENTITY_SECRET: &str = "the identity secret of the identity tests";
/// Some time in 2026, and no whole second.
const NOW_MS: i64 = 1_790_000_000_123;

/// What identity servers stand on.
pub struct World {
    /// Where the servers' time comes from.
    pub clock: Clock,
    /// What each server is configured with.
    pub config: Config,
    /// Who tells plans.
    pub billing: FakeService,
    /// What billing was asked about accounts.
    pub known: Known,
    /// What API keys have spent.
    pub wallets: Wallets,
    /// What billing and the orchestrator were asked to forget.
    pub keepers: Keepers,
    /// Where mails are files.
    pub mail: TempDir,
    products: Arc<Products>,
    database: Database,
}

impl World {
    pub async fn on(database: Database) -> World {
        let mail = tempfile::tempdir().unwrap();
        let config =
            Config { weft_mail_dir: mail.path().to_owned(), ..Config::new(database.url.clone(), IDENTITY_SECRET) };
        weft_identity::migrate(&config).await.unwrap();
        let products = Arc::new(Products::builtin());
        let known = Known::default();
        let (plans, wallets) = (known.clone(), Wallets::default());
        let keepers = Keepers::default();
        let billing = FakeService::billing_and(
            move |user_id| Entitlements {
                plan: PLAN.to_owned(),
                features: [("sso".to_owned(), plans.has_sso(user_id))].into(),
                ..Entitlements::default()
            },
            |routes| keepers.serve(routes.add_service(known.server()).add_service(wallets.server())),
        );
        World { clock: Clock::manual(NOW_MS), config, billing, known, wallets, keepers, mail, products, database }
    }

    /// The product's manifest.
    pub fn product(&self) -> &Product {
        self.products.get(PRODUCT).unwrap()
    }

    /// Lets time pass for every server.
    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Gives somebody a role, as an operator does.
    pub async fn grant(&self, email: &str, role: &str) {
        let order = RoleOrder { product: Some(PRODUCT), account: email, role, given: true };
        assert!(weft_identity::change_role(&self.config.database_url, &self.clock, order).await.unwrap().changed);
    }

    /// Somebody who has registered and is an administrator.
    pub async fn admin(&self, node: &Node, email: &str) -> Session {
        node.register(email).await;
        self.grant(email, "admin").await;
        node.login(email).await.unwrap()
    }

    /// The mails that are files by now, oldest first.
    pub fn mails(&self) -> Vec<String> {
        let entries = fs::read_dir(self.mail.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "eml")).collect();
        files.sort();
        files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// Waits until there are so many mails, and gives the last.
    pub async fn mail(&self, count: usize) -> String {
        eventually("the mail", Duration::from_secs(10), async || self.mails().len() >= count).await;
        self.mails().pop().unwrap()
    }

    /// One more server.
    pub async fn node(&self) -> Node {
        self.node_with(self.config.clone()).await
    }

    /// One more server with another configuration.
    pub async fn node_with(&self, config: Config) -> Node {
        Node::start(config, self.mesh(), Arc::clone(&self.products)).await
    }

    /// One more server that knows other products and may ask providers in these networks.
    pub async fn node_of(&self, config: Config, products: Arc<Products>, allowed: &str) -> Node {
        let weft_allow_private_addresses = allowed.parse().unwrap();
        let mesh = MeshConfig { weft_allow_private_addresses, ..self.mesh_config() };
        Node::start(config, Mesh::new("identity", mesh, self.clock.clone(), Shutdown::new()), products).await
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

    /// Another service of the mesh, with its own guard; it knows identity by what `node` tells it. It ends when its
    /// shutdown is triggered.
    pub fn neighbour(&self, node: &Node) -> Mesh {
        let config = MeshConfig { weft_identity_url: node.url.clone(), ..self.mesh_config() };
        Mesh::new("orchestrator", config, self.clock.clone(), Shutdown::new())
    }

    /// Waits until the use of an access token is known.
    pub async fn is_used(&self, tokens: &Session) {
        let id = token_id(tokens);
        eventually("the use to be known", Duration::from_secs(2), async || {
            let used: Vec<String> =
                self.column("SELECT access_id FROM refresh_tokens WHERE access_seen_at IS NOT NULL").await;
            used.contains(&id)
        })
        .await;
    }

    /// Forgets every pair that could be given again.
    pub async fn forget_sealed(&self) {
        sql("UPDATE refresh_tokens SET sealed = NULL").run(&self.db().await).await.unwrap();
    }

    /// One column of the database, as it stands.
    pub async fn column<T: FromRow>(&self, text: &'static str) -> Vec<T> {
        sql(text).all(&self.db().await).await.unwrap()
    }

    /// Changes the database behind the service's back.
    pub async fn tamper(&self, text: impl Into<String>) {
        sql(AssertSqlSafe(text.into())).run(&self.db().await).await.unwrap();
    }

    /// Makes the database look as if its schema had never been applied.
    pub async fn forget_migrations(&self) {
        sql("DELETE FROM weft_migrations").run(&self.db().await).await.unwrap();
    }

    /// The files of an SQLite database.
    pub fn files(&self) -> Vec<PathBuf> {
        let folder = self.database.folder.as_ref().expect("an SQLite database").path();
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    async fn db(&self) -> Db {
        Db::connect(&DbOptions { url: self.database.url.clone(), schema: "identity", max_connections: 1 })
            .await
            .unwrap()
    }

    /// Where the database is, and the secret, for commands.
    pub fn secret(&self) -> (&str, &SecretString) {
        (&self.config.database_url, &self.config.weft_identity_secret)
    }

    fn mesh(&self) -> Mesh {
        Mesh::new("identity", self.mesh_config(), self.clock.clone(), Shutdown::new())
    }

    fn mesh_config(&self) -> MeshConfig {
        MeshConfig {
            weft_billing_url: self.billing.url(),
            weft_orchestrator_url: self.billing.url(),
            weft_service_secret: Some(SERVICE_SECRET.into()),
            weft_drain_ms: 2_000,
            ..MeshConfig::default()
        }
    }
}
