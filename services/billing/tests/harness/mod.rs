//! A database, an identity that tells its keys, and one or more billing servers on them.
mod bank;
mod chance;
pub mod market;
mod node;
mod shop;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use weft_auth::{AUDIENCE, Claims, ISSUER, ServiceKey, Signer};
use weft_billing::{Config, Error};
use weft_core::{Clock, new_id};
use weft_db::{Db, DbOptions, sql};
use weft_product::Products;
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::{Database, FakeService};

pub use bank::{COMPANION, CREDIT, DAY_MS, moved};
pub use chance::Chance;
pub use node::{Headers, Node, Outcome, reason};
pub use shop::{Shop, post};

/// What services of these tests prove themselves with.
const SERVICE_SECRET: &str = "the service secret of the billing tests";
/// Some time in 2026.
const NOW_MS: i64 = 1_790_000_000_123;

/// What billing servers stand on.
pub struct World {
    /// What each server is configured with.
    pub config: Config,
    /// The tables, as an administrator with an SQL prompt sees them.
    pub db: Db,
    /// The time of every server; it stands still until it is advanced.
    pub clock: Clock,
    signer: Signer,
    identity: FakeService,
    _database: Database,
}

impl World {
    pub async fn on(database: Database) -> World {
        let config = Config::new(database.url.clone());
        weft_billing::migrate(&config).await.unwrap();
        let db =
            Db::connect(&DbOptions { url: database.url.clone(), schema: "billing", max_connections: 2 }).await.unwrap();
        let signer = Signer::from_seed("key".into(), &[7; 32]);
        let identity = FakeService::identity(signer.jwk());
        World { config, db, clock: Clock::manual(NOW_MS), signer, identity, _database: database }
    }

    /// A server with the built-in products.
    pub async fn node(&self) -> Node {
        self.node_with(Products::builtin()).await
    }

    /// A server with other products.
    pub async fn node_with(&self, products: Products) -> Node {
        Node::start(self.config.clone(), self.mesh(), products).await
    }

    /// A server with the built-in products and other settings.
    pub async fn node_of(&self, config: Config) -> Node {
        Node::start(config, self.mesh(), Products::builtin()).await
    }

    /// Serves until it fails; for what must be refused.
    pub async fn refused(&self, config: Config) -> Error {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        weft_billing::serve(config, self.mesh(), Arc::new(Products::builtin()), listener).await.expect_err("it started")
    }

    /// Puts an account on a plan.
    pub async fn put(&self, product: &str, user_id: &str, plan: &str) {
        sql("INSERT INTO accounts (product, user_id, assigned_plan) VALUES ($1, $2, $3) \
             ON CONFLICT (product, user_id) DO UPDATE SET assigned_plan = excluded.assigned_plan")
        .bind(product)
        .bind(user_id)
        .bind(plan)
        .run(&self.db)
        .await
        .unwrap();
    }

    /// Puts an account on a version of a plan as a paid subscription does.
    pub async fn subscribe(
        &self,
        product: &str,
        user_id: &str,
        (plan, version): (&str, i64),
        seats: i64,
        status: &str,
    ) {
        sql("INSERT INTO accounts \
             (product, user_id, subscribed_plan, subscribed_version, seats, subscription_status) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product, user_id) DO UPDATE SET \
             subscribed_plan = excluded.subscribed_plan, subscribed_version = excluded.subscribed_version, \
             seats = excluded.seats, subscription_status = excluded.subscription_status")
        .bind(product)
        .bind(user_id)
        .bind(plan)
        .bind(version)
        .bind(seats)
        .bind(status)
        .run(&self.db)
        .await
        .unwrap();
    }

    /// Sets a limit as an administrator does.
    pub async fn edit_limit(&self, product: &str, plan: &str, name: &str, value: Option<i64>) {
        let changed =
            sql("UPDATE plan_values SET value = $4 WHERE product = $1 AND plan = $2 AND kind = 'limit' AND name = $3 \
                 AND version = (SELECT version FROM plans WHERE product = $1 AND slug = $2)")
            .bind(product)
            .bind(plan)
            .bind(name)
            .bind(value)
            .run(&self.db)
            .await;
        assert_eq!(changed.unwrap(), 1);
    }

    /// An access token that identity could have given out.
    pub fn access_token(&self, product: &str, user_id: &str, roles: &[&str]) -> String {
        let iat = self.clock.now_ms() / 1000;
        self.signer.mint(&Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user_id.into(),
            prd: product.into(),
            sid: "session".into(),
            jti: new_id(),
            email: String::new(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            scp: None,
            key: None,
            iat,
            exp: iat + 900,
        })
    }

    /// An administrator of a product.
    pub fn admin(&self, product: &str) -> Headers {
        Headers { access_token: Some(self.access_token(product, "admin", &["admin"])), service_token: None }
    }

    fn mesh(&self) -> Mesh {
        let config = MeshConfig {
            weft_identity_url: self.identity.url(),
            weft_service_secret: Some(SERVICE_SECRET.into()),
            weft_drain_ms: 2_000,
            ..MeshConfig::default()
        };
        Mesh::new("billing", config, self.clock.clone(), Shutdown::new())
    }
}

/// The key of another service of the mesh.
pub fn service(name: &'static str) -> ServiceKey {
    ServiceKey::new(&SecretString::from(SERVICE_SECRET), name)
}

/// The built-in products, one of them with its manifest's text changed.
pub fn products_with(slug: &str, changes: &[(&str, &str)]) -> Products {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../products");
    let mut text = fs::read_to_string(manifests.join(format!("{slug}.toml"))).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "the manifest has no {from}");
        text = text.replacen(from, to, 1);
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("changed.toml"), text).unwrap();
    Products::load(Some(folder.path())).unwrap()
}
