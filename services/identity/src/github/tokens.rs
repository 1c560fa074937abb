//! Tokens at rest, and how one that expires is renewed: by one instance at a time, once for all who ask.
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use weft_core::new_id;
use weft_db::Db;
use weft_db::keyring::{Keyring, KeyringError, Sealed};
use weft_runtime::Shutdown;

use super::{App, GitHubError, Given, Revoke};
use crate::api::Identity;
use crate::error::Error;
use crate::store::github::{
    ConnectionRow, NewToken, OldSealRow, github_begin_renewal, github_find, github_not_renewed, github_renewed,
    github_reseal, github_sealed_before,
};

/// A token is renewed when it is good for less than this, ms: who is given it has time to use it.
const EARLY_MS: i64 = 5 * 60 * 1000;
/// How long an instance that renews a token has for it, ms; longer than a request to GitHub takes.
const LEASE_MS: i64 = 20_000;
/// How often those who wait look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long they wait.
const WAIT: Duration = Duration::from_secs(8);

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Pair<'a> {
    access: std::borrow::Cow<'a, str>,
    refresh: Option<std::borrow::Cow<'a, str>>,
}

/// A token and what renews it.
pub struct Tokens {
    /// The token.
    pub access: SecretString,
    /// What it is renewed with.
    pub refresh: Option<SecretString>,
}

/// A token as it is handed out.
pub struct Usable {
    /// The token.
    pub access: SecretString,
    /// Name of the GitHub account.
    pub login: String,
    /// In ms since 1970; none: it does not expire.
    pub expires_at: Option<i64>,
}

/// Seals what GitHub gave for the row of an account.
pub async fn seal(keyring: &Keyring, product: &str, account_id: &str, given: &Given) -> Result<Sealed, Error> {
    let access = given.access.expose_secret().into();
    let refresh = given.refresh.as_ref().map(|refresh| refresh.expose_secret().into());
    let plain = serde_json::to_vec(&Pair { access, refresh }).map(Zeroizing::new).map_err(|_| Error::Seal)?;
    Ok(keyring.seal(&bound_to(product, account_id), &plain).await?)
}

/// Opens what [`seal`] sealed for the same account.
pub async fn open(keyring: &Keyring, product: &str, account_id: &str, row: &ConnectionRow) -> Result<Tokens, Error> {
    let plain = keyring.unseal(&bound_to(product, account_id), &row.key_id, &row.sealed).await?;
    let pair: Pair<'_> = serde_json::from_slice(plain.expose_secret()).map_err(|_| Error::Seal)?;
    Ok(Tokens { access: pair.access.as_ref().into(), refresh: pair.refresh.map(|refresh| refresh.as_ref().into()) })
}

fn bound_to<'a>(product: &'a str, account_id: &'a str) -> [&'a str; 3] {
    ["github_token", product, account_id]
}

/// When a token that was given now expires, in ms since 1970.
pub fn expires_at(given: &Given, now_ms: i64) -> Option<i64> {
    given.expires_in.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)))
}

impl Identity {
    /// A token that is good, renewed if it has to be.
    ///
    /// Errors: [`Error::NoGitHub`], [`Error::GitHubRefused`], [`Error::GitHubAway`].
    pub async fn github_token(self: &Arc<Self>, product: &str, account_id: &str) -> Result<Usable, Error> {
        let until = Instant::now() + WAIT;
        let mut seen: Option<ConnectionRow> = None;
        loop {
            let row = github_find(&self.db, product, account_id).await?.ok_or(Error::NoGitHub)?;
            if row.refused_at.is_some() {
                return Err(Error::GitHubRefused);
            }
            let now_ms = self.clock.now_ms();
            let left_ms = row.expires_at.map_or(i64::MAX, |expires_at| expires_at.saturating_sub(now_ms));
            let failed =
                seen.as_ref().is_some_and(|seen| seen.token_id == row.token_id && seen.failures != row.failures);
            if left_ms > EARLY_MS || (failed || Instant::now() > until) && left_ms > 0 {
                let Tokens { access, .. } = open(&self.sign_on.keyring, product, account_id, &row).await?;
                return Ok(Usable { access, login: row.login, expires_at: row.expires_at });
            }
            if failed || Instant::now() > until {
                return Err(Error::GitHubAway);
            }
            let until_ms = now_ms.saturating_add(LEASE_MS);
            if github_begin_renewal(&self.db, product, account_id, &row.token_id, now_ms, until_ms).await? {
                // Whoever asked may go away: what GitHub gives must be kept all the same, because the old one is used up.
                let renewal =
                    Renewal { identity: Arc::clone(self), product: product.into(), account_id: account_id.into() };
                let row = row.clone();
                self.github.tasks.spawn("github renewal", async move { renewal.run(&row).await });
            }
            seen.get_or_insert(row);
            sleep(LOOK_EVERY).await;
        }
    }
}

struct Renewal {
    identity: Arc<Identity>,
    product: String,
    account_id: String,
}

impl Renewal {
    async fn run(&self, row: &ConnectionRow) {
        if let Err(error) = self.renew(row).await {
            tracing::error!(%error, account_id = self.account_id, "a renewed GitHub token could not be kept");
        }
    }

    async fn renew(&self, row: &ConnectionRow) -> Result<(), Error> {
        let Renewal { identity, product, account_id } = self;
        let (db, now_ms) = (&identity.db, identity.clock.now_ms());
        let Some(app) = identity.github.app(product) else {
            return Ok(github_not_renewed(db, product, account_id, &row.token_id, None).await?);
        };
        let renewed = match open(&identity.sign_on.keyring, product, account_id, row).await {
            Ok(Tokens { refresh: Some(refresh), .. }) => identity.github.client.renew(&app, &refresh).await,
            Ok(Tokens { refresh: None, .. }) => Err(GitHubError::Refused),
            Err(error) => {
                github_not_renewed(db, product, account_id, &row.token_id, None).await?;
                return Err(error);
            }
        };
        let given = match renewed {
            Ok(given) => given,
            Err(error) => {
                let refused_at = (error == GitHubError::Refused).then_some(now_ms);
                tracing::warn!(%error, account_id, "a GitHub token was not renewed");
                return Ok(github_not_renewed(db, product, account_id, &row.token_id, refused_at).await?);
            }
        };
        self.keep(&app, row, &given, now_ms).await
    }

    async fn keep(&self, app: &App, row: &ConnectionRow, given: &Given, now_ms: i64) -> Result<(), Error> {
        let Renewal { identity, product, account_id } = self;
        let sealed = seal(&identity.sign_on.keyring, product, account_id, given).await?;
        let (token_id, expires_at) = (new_id(), expires_at(given, now_ms));
        let token = NewToken { token_id: &token_id, sealed: &sealed, scopes: &given.scopes, expires_at };
        if !github_renewed(&identity.db, product, account_id, &row.token_id, &token).await? {
            // Disconnected, or connected anew, meanwhile: nobody knows of this one.
            let given_back = identity.github.client.revoke(app, &given.access, Revoke::Token).await;
            given_back.unwrap_or_else(|error| tracing::warn!(%error, "a GitHub token was not given back"));
        }
        Ok(())
    }
}

/// Seals every token again that is under an older key. Those of rows that change meanwhile are under the new one.
pub async fn reseal(db: &Db, keyring: &Keyring, shutdown: &Shutdown) -> Result<(), Error> {
    let (current, mut after) = (keyring.current().await?, (String::new(), String::new()));
    while !shutdown.is_triggered() {
        let rows = github_sealed_before(db, &current, (&after.0, &after.1)).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.product.clone(), last.account_id.clone());
        for row in &rows {
            reseal_one(db, keyring, row).await?;
        }
    }
    Ok(())
}

async fn reseal_one(db: &Db, keyring: &Keyring, row: &OldSealRow) -> Result<(), Error> {
    let old = Sealed { key_id: row.key_id.clone(), bytes: row.sealed.clone() };
    match keyring.renew(&bound_to(&row.product, &row.account_id), &old).await {
        Ok(Some(new)) => Ok(github_reseal(db, row, &new).await?),
        Ok(None) => Ok(()),
        Err(KeyringError::NotOurs) => {
            tracing::error!(account_id = row.account_id, "a stored GitHub token cannot be opened");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
