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
mod mail;
mod operator;
mod reset_mail;
mod store;
mod turns;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use weft_auth::{Guard, Keys, Revocations, Verifier, follow};
use weft_db::{Db, DbOptions, Migration, jobs};
use weft_product::Products;
use weft_proto::billing::v1::account_service_client::AccountServiceClient;
use weft_proto::identity::v1::admin_service_server::AdminServiceServer;
use weft_proto::identity::v1::auth_service_server::AuthServiceServer;
use weft_proto::identity::v1::key_service_server::KeyServiceServer;
use weft_proto::identity::v1::password_service_server::PasswordServiceServer;
use weft_proto::identity::v1::profile_service_server::ProfileServiceServer;
use weft_proto::identity::v1::session_service_server::SessionServiceServer;
use weft_runtime::{Environment, Mesh, Server};

pub use config::Config;
pub use error::Error;
pub use operator::{RoleChanged, RoleOrder, change_role};

use crate::api::Identity;
use crate::api::admin::AdminApi;
use crate::api::auth::AuthApi;
use crate::api::keys::KeyApi;
use crate::api::password::PasswordApi;
use crate::api::profile::ProfileApi;
use crate::api::session::SessionApi;
use crate::domain::token::SecretKeys;
use crate::hashing::Hashing;
use crate::mail::Mailer;
use crate::turns::Turns;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "accounts and sessions", sql: include_str!("../migrations/0001_identity.sql") },
    Migration { version: 2, name: "the life of an account", sql: include_str!("../migrations/0002_account_life.sql") },
    jobs::migration(3),
    Migration { version: 4, name: "password resets", sql: include_str!("../migrations/0004_password_resets.sql") },
    Migration {
        version: 5,
        name: "withdrawn accounts",
        sql: include_str!("../migrations/0005_withdrawn_accounts.sql"),
    },
];

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
    let mailer = mailer(&config)?;
    if config.smtp_url.is_none() && mesh.config().env == Environment::Prod {
        tracing::warn!(folder = %config.weft_mail_dir.display(), "SMTP_URL is not set: mail is written to files and reaches nobody");
    }
    let secrets = SecretKeys::derive(&config.weft_identity_secret);
    let signer = keys::load_or_create(&db, &secrets, mesh.clock()).await?;
    let identity = Arc::new(Identity {
        db: db.clone(),
        clock: mesh.clock().clone(),
        products,
        hashing: Hashing::new(config.weft_identity_hash_threads, config.weft_identity_hash_queue)?,
        mail_due: Notify::new(),
        turns: Turns::new(),
        login_failures: config.weft_identity_login_failures,
        secrets,
        signer,
        revocations: Revocations::new(),
        entitlements: mesh.entitlements(),
        accounts: AccountServiceClient::new(mesh.channel("billing")),
    });
    let keys = KeyApi(Arc::clone(&identity));
    let guard = guard(&mesh, &identity, &keys);
    mesh.tasks().spawn(
        "housekeeping",
        housekeeping::run(Arc::clone(&identity), config.weft_identity_audit_days, mesh.shutdown().clone()),
    );
    let mailing = reset_mail::run(Arc::clone(&identity), mailer, config.weft_app_url.clone(), mesh.shutdown().clone());
    mesh.tasks().spawn("mail", mailing);
    let ready = db.clone();
    let max_bytes = mesh.config().max_message_bytes();
    let served = Server::new(&mesh, guard)
        .add(AuthServiceServer::new(AuthApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(SessionServiceServer::new(SessionApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(ProfileServiceServer::new(ProfileApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(PasswordServiceServer::new(PasswordApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(AdminServiceServer::new(AdminApi(identity)).max_decoding_message_size(max_bytes))
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

fn mailer(config: &Config) -> Result<Mailer, Error> {
    let from = mail::sender(&config.weft_mail_from).map_err(Error::MailFrom)?;
    let server = config.smtp_url.as_ref().map(mail::server).transpose().map_err(|_| Error::SmtpUrl)?;
    Ok(Mailer::new(from, server, config.weft_mail_dir.clone()))
}

async fn connect(config: &Config) -> Result<Db, Error> {
    connect_to(&config.database_url, config.weft_identity_db_connections).await
}

async fn connect_to(url: &str, max_connections: u32) -> Result<Db, Error> {
    Ok(Db::connect(&DbOptions { url: url.to_owned(), schema: "identity", max_connections }).await?)
}
