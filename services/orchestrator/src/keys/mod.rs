//! Users' own keys of providers: which one a call goes over, and what is remembered of the call.
//!
//! A key is decrypted when it is first needed and kept for less than a second, so that a change counts everywhere within
//! one, and at once where it was made. While the database is away, what was known last counts for a while: nobody can
//! change it meanwhile, though another replica may have just before. About an account that nothing is known of the answer
//! is UNAVAILABLE, because a call that its own key would have paid must not silently cost credits.
pub mod tidy;
mod uses;

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::{future, sync};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use weft_db::keyring::{Keyring, KeyringError};
use weft_runtime::Mesh;

use crate::error::Error;
use crate::models::{Meter, Models};
use crate::store::provider_key::{KeyRow, key_list};
use crate::store::{Database, Ready};

pub use uses::Using;

/// Most keys of an account.
pub const KEYS_MOST: i64 = 20;
/// A change of another replica counts after at most this long.
const KNOWN_FOR: Duration = Duration::from_millis(900);
/// While the database is away, what was known counts for this long.
const KNOWN_WHILE_AWAY: Duration = Duration::from_secs(600);
/// Accounts that are remembered at once.
const ACCOUNTS_MOST: u64 = 10_000;

/// A user's key, ready for a call. It has no `Debug`.
#[derive(Clone)]
pub struct OwnKey {
    /// Slug of the product.
    pub product: String,
    /// Whose it is.
    pub account_id: String,
    /// Its id.
    pub id: String,
    /// `openai`, …, `compatible`.
    pub provider: String,
    /// The key.
    pub secret: SecretString,
    /// Whom to ask instead of the provider; a user said so, so it may only be reached as [`weft_runtime::outbound`] allows.
    pub base_url: Option<Url>,
}

/// Everybody's keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    database: Database,
    fresh: future::Cache<Owner, Known>,
    last: sync::Cache<Owner, Known>,
    /// When keys were last changed here. What began to be read before may be what was there before.
    changes: sync::Cache<Owner, Instant>,
    uses: uses::Sender,
}

/// Product and account.
type Owner = (String, String);
/// The active keys of an account, newest first.
type Owned = Arc<[OwnKey]>;

#[derive(Clone)]
struct Known {
    keys: Owned,
    /// When they began to be read: a change before that moment is in them.
    as_of: Instant,
}

/// An account's keys are being changed. Dropping it tells that they may have been, however the attempt ended: what was
/// known before counts no more, in an outage neither.
pub struct Changing<'a> {
    keys: &'a Keys,
    owner: Owner,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // In its entry: of two changes at once the later moment stays.
        self.keys.changes.entry_by_ref(&self.owner).and_upsert_with(|_before| Instant::now());
        self.keys.last.invalidate(&self.owner);
    }
}

impl Keys {
    /// The keys in a database. Starts what remembers calls and what looks after old rows.
    pub fn start(database: Database, mesh: &Mesh) -> Keys {
        let lru = EvictionPolicy::lru;
        let fresh = future::Cache::builder().max_capacity(ACCOUNTS_MOST).eviction_policy(lru()).time_to_live(KNOWN_FOR);
        let last = sync::Cache::builder().max_capacity(ACCOUNTS_MOST).time_to_live(KNOWN_WHILE_AWAY);
        let changes = sync::Cache::builder().max_capacity(ACCOUNTS_MOST).time_to_live(KNOWN_WHILE_AWAY);
        mesh.tasks().spawn("tidy keys", tidy::run(database.clone(), mesh.clock().clone(), mesh.shutdown().clone()));
        let uses = uses::start(database.clone(), mesh);
        let (last, changes) = (last.eviction_policy(lru()).build(), changes.eviction_policy(lru()).build());
        Keys { database, fresh: fresh.build(), last, changes, uses }
    }

    /// The key that a call of this account to this provider goes over: its newest active one.
    ///
    /// # Errors
    /// [`Error::NoDatabase`] and the database's, if it is not known whether there is one.
    pub async fn for_call(&self, product: &str, account_id: &str, provider: &str) -> Result<Option<OwnKey>, Error> {
        let owned = self.of(product, account_id).await?;
        Ok(owned.iter().find(|key| key.provider == provider).cloned())
    }

    /// The same for a model, by whom it is.
    ///
    /// # Errors
    /// As [`Keys::for_call`].
    pub async fn of_model(&self, product: &str, account_id: &str, model: &str) -> Result<Option<OwnKey>, Error> {
        match Models::own_vendor(model) {
            Some(vendor) => self.for_call(product, account_id, vendor).await,
            None => Ok(None),
        }
    }

    /// All active keys of an account, newest first.
    ///
    /// # Errors
    /// As [`Keys::for_call`].
    pub async fn of(&self, product: &str, account_id: &str) -> Result<Owned, Error> {
        let owner = (product.to_owned(), account_id.to_owned());
        let asked = Instant::now();
        loop {
            match self.fresh.try_get_with_by_ref(&owner, self.read(&owner)).await {
                Ok(known) if known.as_of >= asked || self.is_fresh(&owner, &known) => return Ok(known.keys),
                // Somebody else's reading, which took long or began before a change. The next one begins after `asked`.
                Ok(_) => self.fresh.invalidate(&owner).await,
                Err(error) if is_away(&error) => {
                    return self.last.get(&owner).map(|known| known.keys).ok_or(Error::NoDatabase);
                }
                Err(error) => return Err(Error::Keys(error)),
            }
        }
    }

    /// This account's keys are about to be changed here, or to be no more.
    pub fn changing(&self, product: &str, account_id: &str) -> Changing<'_> {
        Changing { keys: self, owner: (product.to_owned(), account_id.to_owned()) }
    }

    /// A call over a key begins. However it ends, it is remembered.
    pub fn using(&self, key: &OwnKey, model: &str, meter: Meter) -> Using {
        Using::new(self.uses.clone(), key, model, meter)
    }

    /// The open database.
    ///
    /// # Errors
    /// [`Error::NoDatabase`].
    pub fn ready(&self) -> Result<&Ready, Error> {
        self.database.ready()
    }

    fn is_fresh(&self, owner: &Owner, known: &Known) -> bool {
        known.as_of.elapsed() < KNOWN_FOR && !self.is_changed_since(owner, known.as_of)
    }

    fn is_changed_since(&self, owner: &Owner, moment: Instant) -> bool {
        self.changes.get(owner).is_some_and(|changed| changed >= moment)
    }

    async fn read(&self, owner: &Owner) -> Result<Known, Error> {
        let as_of = Instant::now();
        let Ready { db, keyring } = self.database.ready()?;
        let (product, account_id) = owner;
        let rows = key_list(db, product, account_id, "", KEYS_MOST).await?;
        let mut owned = Vec::new();
        for row in rows.into_iter().filter(|row| row.active) {
            owned.push(open(keyring, row).await?);
        }
        let known = Known { keys: owned.into(), as_of };
        self.last.insert(owner.clone(), known.clone());
        // After the insertion, and nothing is waited for in between: whoever changes something notes it first and forgets
        // then, so that one of us sees the other.
        if self.is_changed_since(owner, as_of) {
            self.last.invalidate(owner);
        }
        Ok(known)
    }
}

/// The key in a row.
///
/// # Errors
/// [`KeyringError::NotOurs`] if the row is not as it was written.
pub async fn open(keyring: &Keyring, row: KeyRow) -> Result<OwnKey, Error> {
    let plain = keyring.unseal(&bound_to(&row.product, &row.account_id, &row.id), &row.key_id, &row.sealed).await?;
    let secret = std::str::from_utf8(plain.expose_secret()).map_err(|_| KeyringError::NotOurs)?.into();
    let base_url = Some(row.base_url.as_str()).filter(|url| !url.is_empty()).map(Url::parse);
    let base_url = base_url.transpose().map_err(|_| KeyringError::NotOurs)?;
    let KeyRow { product, account_id, id, provider, .. } = row;
    Ok(OwnKey { product, account_id, id, provider, secret, base_url })
}

/// What a sealed key is bound to.
pub fn bound_to<'a>(product: &'a str, account_id: &'a str, id: &'a str) -> [&'a str; 4] {
    ["provider_key", product, account_id, id]
}

fn is_away(error: &Error) -> bool {
    match error {
        Error::NoDatabase => true,
        Error::Database(error) | Error::Keyring(KeyringError::Database(error)) => error.is_unavailable(),
        _ => false,
    }
}
