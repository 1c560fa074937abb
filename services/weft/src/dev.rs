//! `weft dev webhook stripe`: an event as Stripe would send it, signed with our own secret.
use std::collections::BTreeMap;
use std::io::Write;

use secrecy::ExposeSecret;
use weft_billing::dev::{About, Item, event, kinds};
use weft_core::Clock;
use weft_product::{Product, default_price_id};

use crate::cli::EventArguments;
use crate::config::{Environment, products};
use crate::demo;
use crate::exit::Failure;

/// Sends one event about an item of an account and prints what the edge answers.
pub async fn stripe(environment: &Environment, arguments: &EventArguments) -> Result<(), Failure> {
    let EventArguments { kind, user, product: slug, item, version, url } = arguments;
    let products = products(environment)?;
    let product = products
        .get(slug)
        .ok_or_else(|| Failure::config(format!("there is no product {slug:?}; choose another with --product")))?;
    let (item, amount_minor, currency) = find(product, item, *version)?;
    let secret = secret(environment, slug)?;
    let about = About { product: slug, user_id: user, item, amount_minor, currency };
    let (body, signature) = event(kind, &about, &secret, &Clock::System)
        .ok_or_else(|| Failure::config(format!("there is no event {kind:?}; choose one of {}", kinds().join(", "))))?;
    let url = format!("{}/api/v1/billing/webhook", url.trim_end_matches('/'));
    let answer = demo::client()?
        .post(&url)
        .header("x-weft-product", slug)
        .header("stripe-signature", signature)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .map_err(|error| Failure::unavailable(format!("{url} does not answer: {}", error.without_url())))?;
    let taken = answer.status().is_success();
    let text = answer.text().await.map_err(Failure::unavailable)?;
    let _closed = writeln!(std::io::stdout(), "{text}");
    if taken { Ok(()) } else { Err(Failure::stopped("the event was refused")) }
}

/// A package or a price of the manifest, with what it costs.
fn find<'a>(product: &'a Product, item: &'a str, version: i64) -> Result<(Item<'a>, i64, &'a str), Failure> {
    if let Some(package) = product.credit_packages.iter().find(|package| package.id == item) {
        return Ok((Item::Package(item), package.amount_minor, &package.currency));
    }
    let mut items: Vec<String> = product.credit_packages.iter().map(|package| package.id.clone()).collect();
    for plan in &product.plans {
        for price in &plan.prices {
            let id = price.id.clone().unwrap_or_else(|| default_price_id(&plan.slug, price.interval));
            if id == item {
                let item = Item::Price { plan: &plan.slug, version, price_id: item };
                return Ok((item, price.amount_minor, &price.currency));
            }
            items.push(id);
        }
    }
    Err(Failure::config(format!("{} sells no {item:?}; choose one of {}", product.slug, items.join(", "))))
}

/// The secret that the edge's billing believes for this product.
fn secret(environment: &Environment, slug: &str) -> Result<String, Failure> {
    let mut own: BTreeMap<String, String> = environment.clone();
    // No database is opened, but billing's settings are read as a whole.
    own.entry("DATABASE_URL".to_owned()).or_insert_with(|| "sqlite://none".to_owned());
    let config = weft_billing::Config::load(&own).map_err(Failure::config)?;
    match config.webhook_secret(slug) {
        Some(secret) => Ok(secret.expose_secret().to_owned()),
        None => Err(Failure::config("STRIPE_WEBHOOK_SECRET: is not set; choose any and start the mesh with the same")),
    }
}
