//! Billing: plans, entitlements and money.
//!
//! It owns what an account may do and what that costs. Manifests seed its tables; the tables are the truth, and
//! only billing reads them. It calls no other service.
mod api;
mod config;
mod domain;
mod error;
mod seed;
mod store;

use std::sync::Arc;

use tokio::net::TcpListener;
use weft_db::{Db, DbOptions, Migration};
use weft_product::Products;
use weft_proto::billing::v1::entitlement_service_server::EntitlementServiceServer;
use weft_runtime::{Mesh, Server};

pub use config::Config;
pub use error::Error;

use crate::api::entitlement::EntitlementApi;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "plans and accounts", sql: include_str!("../migrations/0001_plans.sql") }];

/// Brings the database to this version.
///
/// # Errors
/// [`Error::Database`], in one sentence what is wrong with it.
pub async fn migrate(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    db.migrate(MIGRATIONS).await?;
    db.close().await;
    Ok(())
}

/// Seeds the plans, then serves on `listener` until the mesh shuts down, and drains.
///
/// # Errors
/// A database that cannot be used or is not at this version; a server that ended by itself.
pub async fn serve(config: Config, mesh: Mesh, products: Arc<Products>, listener: TcpListener) -> Result<(), Error> {
    let db = connect(&config).await?;
    db.check_migrated(MIGRATIONS).await?;
    seed::seed(&db, &products).await?;
    let max_bytes = mesh.config().max_message_bytes();
    let entitlements = EntitlementServiceServer::new(EntitlementApi { db: db.clone(), products });
    let ready = db.clone();
    let served = Server::new(&mesh, mesh.guard())
        .add(entitlements.max_decoding_message_size(max_bytes))
        .ready(move || {
            let db = ready.clone();
            async move { db.ping().await.is_ok() }
        })
        .serve(listener)
        .await;
    db.close().await;
    Ok(served?)
}

async fn connect(config: &Config) -> Result<Db, Error> {
    let options = DbOptions {
        url: config.database_url.clone(),
        schema: "billing",
        max_connections: config.weft_billing_db_connections,
    };
    Ok(Db::connect(&options).await?)
}
