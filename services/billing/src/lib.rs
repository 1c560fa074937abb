//! Billing: plans, entitlements and money.
//!
//! It owns what an account may do and what that costs. Manifests seed its tables; the tables are the truth, and
//! only billing reads them. It calls no other service.
mod activity;
mod api;
mod config;
pub mod dev;
mod domain;
mod error;
mod gather;
mod housekeeping;
mod ledger;
mod payments;
mod recorder;
mod revenue;
mod seed;
mod store;
mod subscribers;

use std::sync::Arc;

use tokio::net::TcpListener;
use weft_db::{Db, DbOptions, Migration};
use weft_product::Products;
use weft_proto::billing::v1::account_service_server::AccountServiceServer;
use weft_proto::billing::v1::analytics_service_server::AnalyticsServiceServer;
use weft_proto::billing::v1::catalogue_service_server::CatalogueServiceServer;
use weft_proto::billing::v1::entitlement_service_server::EntitlementServiceServer;
use weft_proto::billing::v1::ledger_service_server::LedgerServiceServer;
use weft_proto::billing::v1::personal_data_service_server::PersonalDataServiceServer;
use weft_proto::billing::v1::revenue_service_server::RevenueServiceServer;
use weft_proto::billing::v1::subscription_service_server::SubscriptionServiceServer;
use weft_proto::billing::v1::usage_service_server::UsageServiceServer;
use weft_proto::billing::v1::wallet_service_server::WalletServiceServer;
use weft_proto::billing::v1::webhook_service_server::WebhookServiceServer;
use weft_runtime::{Mesh, Server};

pub use config::{Config, StripeConfig};
pub use domain::idempotency::Key;
pub use domain::ledger::Kind;
pub use error::Error;
pub use ledger::verify::{Fault, Report};
pub use ledger::{Act, Ledger, Op};

use crate::activity::Activity;
use crate::api::account::AccountApi;
use crate::api::analytics::AnalyticsApi;
use crate::api::catalogue::CatalogueApi;
use crate::api::entitlement::EntitlementApi;
use crate::api::ledger::LedgerApi;
use crate::api::page::Pages;
use crate::api::personal::PersonalDataApi;
use crate::api::revenue::RevenueApi;
use crate::api::subscription::SubscriptionApi;
use crate::api::usage::UsageApi;
use crate::api::wallet::WalletApi;
use crate::api::webhook::WebhookApi;
use crate::housekeeping::Housekeeping;
use crate::payments::apply::Books;
use crate::payments::{Payments, sync};
use crate::recorder::Recorder;
use crate::revenue::Revenue;

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "plans and accounts", sql: include_str!("../migrations/0001_plans.sql") },
    Migration { version: 2, name: "catalogue", sql: include_str!("../migrations/0002_catalogue.sql") },
    Migration { version: 3, name: "wallets and the ledger", sql: include_str!("../migrations/0003_wallets.sql") },
    Migration { version: 4, name: "payments", sql: include_str!("../migrations/0004_payments.sql") },
    Migration { version: 5, name: "usage", sql: include_str!("../migrations/0005_usage.sql") },
    Migration { version: 6, name: "revenue", sql: include_str!("../migrations/0006_revenue.sql") },
    Migration { version: 7, name: "spending of API keys", sql: include_str!("../migrations/0007_key_spending.sql") },
    Migration { version: 8, name: "bounds", sql: include_str!("../migrations/0008_bounds.sql") },
];

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
    seed::seed(&db, &products, mesh.clock().now_ms()).await?;
    let max_bytes = mesh.config().max_message_bytes();
    let clock = mesh.clock().clone();
    let activity = Activity::start(&db, &mesh);
    let payments = Payments::new(&config, &products).map_err(Error::Setting)?;
    let ledger = Ledger::start(&db, &mesh, &products);
    let (wallets, ledgers) = ledger_apis(&db, &mesh, &products, &ledger);
    let revenue = revenue_api(&db, &mesh, &products, &payments);
    let books = Books { db: db.clone(), ledger, clock: clock.clone(), products: Arc::clone(&products), payments };
    sync::start(books.clone(), &mesh, config.weft_billing_sync_minutes);
    let entitlements = EntitlementServiceServer::new(EntitlementApi {
        db: db.clone(),
        products: Arc::clone(&products),
        clock: clock.clone(),
        activity: activity.clone(),
    });
    let catalogue = CatalogueApi { books: books.clone() };
    let accounts = AccountApi { db: db.clone(), products: Arc::clone(&products), clock: clock.clone() };
    let usage = UsageServiceServer::new(UsageApi {
        db: db.clone(),
        products: Arc::clone(&products),
        clock: clock.clone(),
        activity,
        recorder: Recorder::start(&db, &mesh),
    });
    let analytics = AnalyticsServiceServer::new(AnalyticsApi { db: db.clone(), products, clock });
    let ready = db.clone();
    let served = Server::new(&mesh, mesh.guard())
        .add(entitlements.max_decoding_message_size(max_bytes))
        .add(CatalogueServiceServer::new(catalogue).max_decoding_message_size(max_bytes))
        .add(AccountServiceServer::new(accounts).max_decoding_message_size(max_bytes))
        .add(
            SubscriptionServiceServer::new(SubscriptionApi { books: books.clone() })
                .max_decoding_message_size(max_bytes),
        )
        .add(
            PersonalDataServiceServer::new(PersonalDataApi { books: books.clone() })
                .max_decoding_message_size(max_bytes),
        )
        .add(WebhookServiceServer::new(WebhookApi { books }).max_decoding_message_size(max_bytes))
        .add(revenue.max_decoding_message_size(max_bytes))
        .add(wallets.max_decoding_message_size(max_bytes))
        .add(ledgers.max_decoding_message_size(max_bytes))
        .add(usage.max_decoding_message_size(max_bytes))
        .add(analytics.max_decoding_message_size(max_bytes))
        .ready(move || {
            let db = ready.clone();
            async move { db.ping().await.is_ok() }
        })
        .serve(listener)
        .await;
    db.close().await;
    Ok(served?)
}

/// What is asked of the ledger, and what time brings to it.
fn ledger_apis(
    db: &Db,
    mesh: &Mesh,
    products: &Arc<Products>,
    ledger: &Ledger,
) -> (WalletServiceServer<WalletApi>, LedgerServiceServer<LedgerApi>) {
    let (db, products, ledger) = (db.clone(), Arc::clone(products), ledger.clone());
    let (clock, pages) = (mesh.clock().clone(), Pages::new(mesh.config()));
    let housekeeping = Housekeeping {
        db: db.clone(),
        products: Arc::clone(&products),
        clock: clock.clone(),
        ledger: ledger.clone(),
        shutdown: mesh.shutdown().clone(),
    };
    mesh.tasks().spawn("housekeeping", housekeeping.run());
    let (of_ledger, of_pages, of_products) = (ledger.clone(), pages.clone(), Arc::clone(&products));
    let admin = LedgerApi { db: db.clone(), products: of_products, ledger: of_ledger, pages: of_pages };
    let wallets = WalletApi { db, clock, ledger, pages };
    (WalletServiceServer::new(wallets), LedgerServiceServer::new(admin))
}

/// The marketplace's money, and what finishes it when it was cut off.
fn revenue_api(
    db: &Db,
    mesh: &Mesh,
    products: &Arc<Products>,
    payments: &Payments,
) -> RevenueServiceServer<RevenueApi> {
    let revenue = Revenue { db: db.clone(), payments: payments.clone(), clock: mesh.clock().clone() };
    revenue.start(mesh);
    let pages = Pages::new(mesh.config());
    RevenueServiceServer::new(RevenueApi { revenue, products: Arc::clone(products), pages })
}

/// Verifies the ledger of a product while billing may be running.
///
/// # Errors
/// A database that cannot be used or is not at this version.
pub async fn verify(config: &Config, product: &str) -> Result<Report, Error> {
    let db = connect(config).await?;
    db.check_migrated(MIGRATIONS).await?;
    let report = ledger::verify::verify(&db, product, None).await;
    db.close().await;
    report
}

/// What does not agree in a product's books of the marketplace, while billing may be running; empty if all does.
///
/// # Errors
/// A database that cannot be used.
pub async fn verify_revenue(config: &Config, product: &str) -> Result<Vec<String>, Error> {
    let db = connect(config).await?;
    let faults = store::revenue::revenue_faults(&db, product).await;
    db.close().await;
    Ok(faults?)
}

async fn connect(config: &Config) -> Result<Db, Error> {
    let options = DbOptions {
        url: config.database_url.clone(),
        schema: "billing",
        max_connections: config.weft_billing_db_connections,
    };
    Ok(Db::connect(&options).await?)
}
