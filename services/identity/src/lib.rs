//! Identity: accounts, passwords, sessions and tokens.
//!
//! It owns who somebody is, and nothing of what they may do: plans are billing's. It is the only one that mints
//! access tokens; everybody checks them with the keys that its `KeyService` lists.
mod api;
mod audit;
mod config;
mod dns;
mod domain;
mod erasure;
mod error;
mod github;
mod hashing;
mod housekeeping;
mod import;
mod issuers;
mod keepers;
mod keys;
mod link_mail;
mod mail;
mod oidc;
mod operator;
mod seats;
mod setup;
mod sign_on;
mod store;
mod turns;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use weft_auth::{Guard, Revocations, Signer, Verifier, follow};
use weft_core::Clock;
use weft_db::keyring::{Keyring, KeyringError};
use weft_db::{Db, DbOptions, Migration, jobs, keyring};
use weft_product::Products;
use weft_proto::billing::v1::account_service_client::AccountServiceClient;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::identity::v1::admin_service_server::AdminServiceServer;
use weft_proto::identity::v1::api_key_service_server::ApiKeyServiceServer;
use weft_proto::identity::v1::audit_service_server::AuditServiceServer;
use weft_proto::identity::v1::auth_service_server::AuthServiceServer;
use weft_proto::identity::v1::email_service_server::EmailServiceServer;
use weft_proto::identity::v1::git_hub_service_server::GitHubServiceServer;
use weft_proto::identity::v1::key_service_server::KeyServiceServer;
use weft_proto::identity::v1::oidc_service_server::OidcServiceServer;
use weft_proto::identity::v1::organisation_service_server::OrganisationServiceServer;
use weft_proto::identity::v1::password_service_server::PasswordServiceServer;
use weft_proto::identity::v1::personal_data_service_server::PersonalDataServiceServer;
use weft_proto::identity::v1::profile_service_server::ProfileServiceServer;
use weft_proto::identity::v1::session_service_server::SessionServiceServer;
use weft_proto::identity::v1::setup_service_server::SetupServiceServer;
use weft_proto::identity::v1::sso_service_server::SsoServiceServer;
use weft_runtime::{Environment, Mesh, Server};

pub use config::Config;
pub use error::Error;
pub use github::GitHubConfig;
pub use import::{BadLine, ImportOrder, Imported, import};
pub use issuers::IssuerConfig;
pub use operator::{AuditReport, RoleChanged, RoleOrder, change_role, verify_audit};
pub use setup::setup_token;

use crate::api::Identity;
use crate::api::admin::AdminApi;
use crate::api::api_key::ApiKeyApi;
use crate::api::audit::AuditApi;
use crate::api::auth::AuthApi;
use crate::api::email::EmailApi;
use crate::api::github::GitHubApi;
use crate::api::keys::KeyApi;
use crate::api::oidc::OidcApi;
use crate::api::organisation::OrganisationApi;
use crate::api::password::PasswordApi;
use crate::api::personal::PersonalDataApi;
use crate::api::profile::ProfileApi;
use crate::api::session::SessionApi;
use crate::api::setup::SetupApi;
use crate::api::sso::SsoApi;
use crate::domain::token::SecretKeys;
use crate::github::Connections;
use crate::hashing::Hashing;
use crate::issuers::Issuers;
use crate::keepers::Keeper;
use crate::mail::Mailer;
use crate::sign_on::SignOn;
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
    Migration { version: 6, name: "external issuers", sql: include_str!("../migrations/0006_external.sql") },
    Migration { version: 7, name: "organisations", sql: include_str!("../migrations/0007_organisations.sql") },
    Migration { version: 8, name: "single sign-on", sql: include_str!("../migrations/0008_sso.sql") },
    Migration { version: 9, name: "audit chain", sql: include_str!("../migrations/0009_audit_chain.sql") },
    keyring::migration(10),
    Migration { version: 11, name: "github", sql: include_str!("../migrations/0011_github.sql") },
    Migration { version: 12, name: "links in mails", sql: include_str!("../migrations/0012_mail_links.sql") },
    Migration {
        version: 13,
        name: "import, setup, erasure",
        sql: include_str!("../migrations/0013_import_setup_erasure.sql"),
    },
    Migration { version: 14, name: "mails by address", sql: include_str!("../migrations/0014_mails_by_address.sql") },
    Migration { version: 15, name: "API keys", sql: include_str!("../migrations/0015_api_keys.sql") },
];

/// Brings the database to this version.
///
/// Errors: [`Error::Database`], in one sentence what is wrong with it.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    db.migrate(MIGRATIONS).await?;
    // Here already, because an operator may change roles before anything is served.
    audit::begin(&db, &SecretKeys::derive(&config.weft_identity_secret), &[]).await?;
    db.close().await;
    Ok(())
}

/// Makes a new key to seal stored secrets with; running instances use it within a second. Gives its id.
///
/// Errors: a database that cannot be used or is not at this version; a secret that is not its own.
pub async fn rotate_keys(config: &Config, clock: Clock) -> Result<String, KeyringError> {
    let options = DbOptions { url: config.database_url.clone(), schema: "identity", max_connections: 1 };
    let db = Db::connect(&options).await?;
    db.check_migrated(MIGRATIONS).await?;
    let id = Keyring::open(&db, &config.weft_identity_secret, clock).await?.rotate().await?;
    db.close().await;
    Ok(id)
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
    let own = keys::load_or_create(&db, &secrets, mesh.clock()).await?;
    let slugs: Vec<&str> = products.iter().map(|product| product.slug.as_str()).collect();
    audit::begin(&db, &secrets, &slugs).await?;
    let signer = mesh.config().shared_secret().map_or(own, Signer::shared);
    let issuers = Issuers::new(&products, &config.issuers, &config.issuers_of, mesh.clock())?;
    let github = Connections::new(&config, &products, mesh.tasks().clone()).map_err(Error::Outbound)?;
    let identity = Arc::new(Identity {
        db: db.clone(),
        sign_on: SignOn::new(&config, &mesh, &db).await?,
        issuers,
        clock: mesh.clock().clone(),
        products,
        hashing: Hashing::new(config.weft_identity_hash_threads, config.weft_identity_hash_queue)?,
        mail_due: Notify::new(),
        seats_due: Notify::new(),
        turns: Turns::new(),
        login_failures: config.weft_identity_login_failures,
        secrets,
        signer,
        revocations: Revocations::new(),
        github,
        entitlements: mesh.entitlements(),
        accounts: AccountServiceClient::new(mesh.channel("billing")),
        wallets: WalletServiceClient::new(mesh.channel("billing")),
        keepers: Keeper::all(&mesh),
        erasure_due: Notify::new(),
    });
    let keys = KeyApi(Arc::clone(&identity));
    let guard = guard(&mesh, &identity, &keys);
    spawn_workers(&mesh, &identity, mailer, &config);
    let ready = db.clone();
    let max_bytes = mesh.config().max_message_bytes();
    let served = Server::new(&mesh, guard)
        .add(AuthServiceServer::new(AuthApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(SessionServiceServer::new(SessionApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(SetupServiceServer::new(SetupApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(ProfileServiceServer::new(ProfileApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(
            PersonalDataServiceServer::new(PersonalDataApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes),
        )
        .add(EmailServiceServer::new(EmailApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(
            OrganisationServiceServer::new(OrganisationApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes),
        )
        .add(OidcServiceServer::new(OidcApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(SsoServiceServer::new(SsoApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(PasswordServiceServer::new(PasswordApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(GitHubServiceServer::new(GitHubApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(ApiKeyServiceServer::new(ApiKeyApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
        .add(AuditServiceServer::new(AuditApi(Arc::clone(&identity))).max_decoding_message_size(max_bytes))
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

/// What goes on beside the calls, until the shutdown.
fn spawn_workers(mesh: &Mesh, identity: &Arc<Identity>, mailer: Mailer, config: &Config) {
    mesh.tasks().spawn(
        "housekeeping",
        housekeeping::run(Arc::clone(identity), config.weft_identity_audit_days, mesh.shutdown().clone()),
    );
    let (issuing, shutdown) = (Arc::clone(identity), mesh.shutdown().clone());
    mesh.tasks().spawn("issuers", async move { issuing.issuers.keep_fresh(shutdown).await });
    let mailing = link_mail::run(Arc::clone(identity), mailer, config.weft_app_url.clone(), mesh.shutdown().clone());
    mesh.tasks().spawn("mail", mailing);
    mesh.tasks().spawn("erasure", erasure::run(Arc::clone(identity), mesh.shutdown().clone()));
    mesh.tasks().spawn("seats", seats::run(Arc::clone(identity), mesh.shutdown().clone()));
}

/// Our guard checks tokens as every other does, but asks for keys and ended sessions, and reports uses, without a network.
fn guard(mesh: &Mesh, identity: &Identity, keys: &KeyApi) -> Guard {
    let keys_of_tokens = mesh.token_keys(keys.client());
    let verifier = Verifier::new(keys_of_tokens, identity.revocations.clone(), mesh.clock().clone());
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
