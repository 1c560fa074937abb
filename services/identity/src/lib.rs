//! Identity: accounts, passwords, sessions and tokens.
//!
//! It owns who somebody is, and nothing of what they may do: plans are billing's. It is the only one that mints
//! access tokens; everybody checks them with the keys that its `KeyService` lists.
mod api;
mod config;
mod domain;
mod error;
mod hashing;
mod housekeeping;
mod keys;
mod store;
mod turns;

use std::sync::Arc;

use tokio::net::TcpListener;
use weft_auth::{Guard, Keys, Revocations, Verifier, follow};
use weft_db::{Db, DbOptions, Migration};
use weft_product::Products;
use weft_proto::identity::v1::auth_service_server::AuthServiceServer;
use weft_proto::identity::v1::key_service_server::KeyServiceServer;
use weft_runtime::{Mesh, Server};

pub use config::Config;
pub use error::Error;

use crate::api::Identity;
use crate::api::auth::AuthApi;
use crate::api::keys::KeyApi;
use crate::domain::token::SecretKeys;
use crate::hashing::Hashing;
use crate::turns::Turns;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "accounts and sessions", sql: include_str!("../migrations/0001_identity.sql") }];

/// Brings the database to this version.
///
/// Errors: [`Error::Database`], in one sentence what is wrong with it.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    db.migrate(MIGRATIONS).await?;
    db.close().await;
    Ok(())
}

/// Serves on `listener` until the mesh shuts down, and drains.
///
/// Errors: a database that cannot be used or is not at this version; [`Error::WrongSecret`].
pub async fn serve(config: Config, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Error> {
    let db = connect(&config).await?;
    db.check_migrated(MIGRATIONS).await?;
    let secrets = SecretKeys::derive(&config.weft_identity_secret);
    let signer = keys::load_or_create(&db, &secrets, mesh.clock()).await?;
    let identity = Arc::new(Identity {
        db: db.clone(),
        clock: mesh.clock().clone(),
        products,
        hashing: Hashing::new(config.weft_identity_hash_threads, config.weft_identity_hash_queue)?,
        turns: Turns::new(),
        login_failures: config.weft_identity_login_failures,
        secrets,
        signer,
        revocations: Revocations::new(),
        entitlements: mesh.entitlements(),
    });
    let keys = KeyApi(Arc::clone(&identity));
    let guard = guard(&mesh, &identity, &keys);
    mesh.tasks().spawn(
        "housekeeping",
        housekeeping::run(Arc::clone(&identity), config.weft_identity_audit_days, mesh.shutdown().clone()),
    );
    let ready = db.clone();
    let max_bytes = mesh.config().max_message_bytes();
    let served = Server::new(&mesh, guard)
        .add(AuthServiceServer::new(AuthApi(identity)).max_decoding_message_size(max_bytes))
        .add(KeyServiceServer::new(keys).max_decoding_message_size(max_bytes))
        .ready(move || {
            let db = ready.clone();
            async move { db.ping().await.is_ok() }
        })
        .serve(listener)
        .await;
    db.close().await;
    Ok(served?)
}

/// Our guard checks tokens as every other does, but asks for keys and ended sessions, and reports uses, without a network.
fn guard(mesh: &Mesh, identity: &Identity, keys: &KeyApi) -> Guard {
    let verifier = Verifier::new(Keys::remote(keys.client()), identity.revocations.clone(), mesh.clock().clone());
    mesh.tasks().spawn("revocations", follow(keys.client(), verifier.clone(), mesh.shutdown().token()));
    mesh.guard_with(verifier)
}

async fn connect(config: &Config) -> Result<Db, Error> {
    let options = DbOptions {
        url: config.database_url.clone(),
        schema: "identity",
        max_connections: config.weft_identity_db_connections,
    };
    Ok(Db::connect(&options).await?)
}
