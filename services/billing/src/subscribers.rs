//! Moving subscribers of a plan to its current version.
use weft_db::Tx;

use crate::error::Error;
use crate::payments::apply::Books;
use crate::store::account::{account_move_subscribed, account_subscription, subscribers_of_older};

/// How many subscribers are looked up at once.
const PAGE: i64 = 100;

/// Moves one subscriber; answers how many moved: 0 if it is there already.
///
/// # Errors
/// [`Error::NotFound`] for an account without a subscription to the plan, or if the version has no price like the one
/// it pays; what Stripe says.
pub async fn subscriber_migrate(
    books: &Books,
    product: &str,
    owner: &str,
    plan: &str,
    version: i64,
) -> Result<i64, Error> {
    match account_subscription(&books.db, product, owner).await? {
        Some(on) if on.plan == plan && on.version == version => Ok(0),
        Some(on) if on.plan == plan => Ok(i64::from(subscriber_move(books, product, owner, plan, version).await?)),
        _ => Err(Error::NotFound("subscription to the plan")),
    }
}

/// Moves every subscriber; answers how many moved. Whoever pays a price that the version does not have stays. If it
/// fails, what was moved stays so: repeat it.
///
/// # Errors
/// What Stripe says, the database.
pub async fn subscribers_migrate(books: &Books, product: &str, plan: &str, version: i64) -> Result<i64, Error> {
    let (mut migrated, mut after) = (0, String::new());
    loop {
        let owners = subscribers_of_older(&books.db, product, plan, version, &after, PAGE).await?;
        let Some(last) = owners.last() else { return Ok(migrated) };
        after.clone_from(last);
        for owner in &owners {
            match subscriber_move(books, product, owner, plan, version).await {
                Ok(moved) => migrated += i64::from(moved),
                Err(Error::NotFound(what)) => {
                    tracing::warn!(product, owner, plan, version, what, "a subscriber stays on the older version");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Moves one subscriber to another version of the plan it has: first the price at Stripe, so that nobody is limited by
/// one version and billed for another if Stripe does not answer.
async fn subscriber_move(books: &Books, product: &str, owner: &str, plan: &str, version: i64) -> Result<bool, Error> {
    books.reprice(product, owner, plan, version).await?;
    let moved = books
        .db
        .write("migrate", async |tx: Tx| account_move_subscribed(&tx, product, owner, plan, version).await)
        .await?;
    Ok(moved)
}
