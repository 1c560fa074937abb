//! The keys that sign access tokens.
use secrecy::ExposeSecret;
use secrecy::zeroize::Zeroizing;
use weft_auth::Signer;
use weft_core::Clock;
use weft_db::Db;

use crate::domain::token::SecretKeys;
use crate::error::Error;
use crate::store::key::{KeyRow, key_insert_first, key_list};

/// Every key in the database, the one that signs first.
///
/// Errors: [`Error::WrongSecret`] if one was sealed under another secret.
pub async fn load(db: &Db, secrets: &SecretKeys) -> Result<Vec<Signer>, Error> {
    key_list(db).await?.into_iter().map(|row| open(row, secrets)).collect()
}

/// The key to sign with. The first start makes it; when several replicas start at once, all take the one that
/// was stored first.
pub async fn load_or_create(db: &Db, secrets: &SecretKeys, clock: &Clock) -> Result<Signer, Error> {
    if let Some(signer) = load(db, secrets).await?.into_iter().next() {
        return Ok(signer);
    }
    let (signer, seed) = Signer::generate()?;
    let sealed = secrets.seal_seed(signer.kid(), seed.expose_secret())?;
    key_insert_first(db, &KeyRow { kid: signer.kid().to_owned(), sealed }, clock.now_ms()).await?;
    load(db, secrets).await?.into_iter().next().ok_or(Error::NoKey)
}

fn open(row: KeyRow, secrets: &SecretKeys) -> Result<Signer, Error> {
    let seed = Zeroizing::new(secrets.open_seed(&row.kid, &row.sealed).ok_or(Error::WrongSecret)?);
    Ok(Signer::from_seed(row.kid, &seed))
}
