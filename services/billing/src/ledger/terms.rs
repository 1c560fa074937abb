//! What plans give, for many wallets.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;
use weft_db::On;

use super::Inner;
use super::plan::Terms;
use crate::domain::plan::CreditTerms;
use crate::error::Error;
use crate::store::account::{credit_terms, credit_terms_of_many};
use crate::store::wallet::WalletId;

/// What the plans of these accounts give now: a statement for each product, and none for those without credits.
pub async fn read(inner: &Inner, on: &impl On, ids: &BTreeSet<WalletId>) -> Result<HashMap<WalletId, Terms>, Error> {
    let mut of_product: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (product, user_id) in ids {
        of_product.entry(product).or_default().push(user_id.clone());
    }
    let mut read = HashMap::new();
    for (slug, user_ids) in of_product {
        let product = inner.products.get(slug).ok_or_else(|| Error::UnknownProduct(slug.to_owned()))?;
        let mut found: HashMap<String, CreditTerms> = HashMap::new();
        let has_credits = product.plans.iter().any(|plan| plan.credits.is_some());
        if has_credits && inner.db.is_postgres() {
            found = credit_terms_of_many(on, product, user_ids.clone()).await?;
        } else if has_credits {
            for user_id in &user_ids {
                found.extend(credit_terms(on, product, user_id).await?.map(|terms| (user_id.clone(), terms)));
            }
        }
        for user_id in user_ids {
            let CreditTerms { initial, daily, .. } = found.get(&user_id).copied().unwrap_or_default();
            read.insert((slug.to_owned(), user_id), Terms { initial, daily, read_at: Instant::now() });
        }
    }
    Ok(read)
}
