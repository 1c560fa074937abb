//! Encryption of single values, with keys that can be replaced while everything runs.
//!
//! A value is sealed under a data key (ChaCha20-Poly1305), and the row that keeps it names that key. The data keys
//! are in the database, sealed under a key that only the service's secret gives, so a copy of the database alone opens
//! nothing. After [`Keyring::rotate`] every instance seals with the new key within a second and opens what the
//! old ones sealed; a service seals its rows again at leisure ([`Keyring::renew`]) and then forgets the keys that none
//! of them names ([`Keyring::forget`]).
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};
use sha2::Sha256;
use weft_core::{Clock, new_id};

use crate::{Db, DbError, Migration, record, sql};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
/// How long an instance takes the key it sealed with last for the current one.
const CURRENT_FOR: Duration = Duration::from_millis(900);
/// A key is kept for this long after the next one came, ms: who has not heard of that may seal one more row with it.
const KEEP_REPLACED_MS: i64 = 60_000;
/// The most keys there may be at a time; with so many, rows have to be sealed again before the next rotation.
const MAX_KEYS: i64 = 1_000;
/// How often a rotation that met another one tries again.
const ROTATE_ATTEMPTS: u32 = 5;

/// The table, as the migration `version` of a service that seals values.
pub const fn migration(version: i64) -> Migration {
    Migration { version, name: "data keys", sql: include_str!("keyring.sql") }
}

/// Why a value cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The database did not give the keys.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The keys in the database are sealed under another secret.
    #[error("the data keys in the database are sealed under another secret, start with the one they were made with")]
    WrongSecret,
    /// The value was sealed for another row or under a key that is gone, or was changed since.
    #[error("a sealed value cannot be opened: it is not the one that was sealed for this row")]
    NotOurs,
    /// There are as many keys as there may be.
    #[error("there are too many data keys, wait until all rows are sealed again")]
    TooManyKeys,
    /// Other rotations came first every time.
    #[error("other rotations are under way, try again")]
    Busy,
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes")]
    Random(#[source] getrandom::Error),
    /// The value is too long for the cipher.
    #[error("the value is too long to be sealed")]
    TooLong,
}

/// A sealed value, for two columns of a row.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Id of the data key.
    pub key_id: String,
    /// The nonce, then the ciphertext and its tag.
    pub bytes: Vec<u8>,
}

/// A service's data keys. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    /// Opens the data keys.
    master: DataKey,
    known: RwLock<Arc<Known>>,
}

type DataKey = SecretBox<[u8; KEY_BYTES]>;

#[derive(Default)]
struct Known {
    keys: HashMap<String, Arc<DataKey>>,
    current: Option<Current>,
}

#[derive(Clone)]
struct Current {
    id: String,
    key: Arc<DataKey>,
    seen: Instant,
}

record! {
    struct KeyRow { id: String, sealed: Vec<u8> }
}

impl Keyring {
    /// Opens the keys in a migrated database. The first start makes the first one, however many start at once.
    ///
    /// # Errors
    /// [`KeyringError::WrongSecret`] if one of them was made with another secret; the database's.
    pub async fn open(db: &Db, secret: &SecretString, clock: Clock) -> Result<Keyring, KeyringError> {
        let master = SecretBox::new(Box::new(derive(secret)));
        let keyring = Keyring(Arc::new(Inner { db: db.clone(), clock, master, known: RwLock::default() }));
        if keyring.load().await?.current.is_none() {
            keyring.add(1).await?;
            keyring.load().await?;
        }
        Ok(keyring)
    }

    /// Id of the key to seal with; rows that name another one are to be sealed again.
    ///
    /// # Errors
    /// The database's.
    pub async fn current(&self) -> Result<String, KeyringError> {
        Ok(self.newest().await?.id)
    }

    /// Seals `plain` for the row that `bound_to` names, such as `["github_token", product, account_id]`.
    ///
    /// # Errors
    /// The database's, and [`KeyringError::Random`].
    pub async fn seal(&self, bound_to: &[&str], plain: &[u8]) -> Result<Sealed, KeyringError> {
        let current = self.newest().await?;
        Ok(Sealed { bytes: encrypt(&current.key, bound_to, plain)?, key_id: current.id })
    }

    /// Opens what [`Keyring::seal`] sealed for the same row.
    ///
    /// # Errors
    /// [`KeyringError::NotOurs`], and the database's if the key was made by another instance just now.
    pub async fn unseal(&self, bound_to: &[&str], key_id: &str, bytes: &[u8]) -> Result<SecretSlice<u8>, KeyringError> {
        let key = match self.known().keys.get(key_id).cloned() {
            Some(key) => key,
            None => self.load().await?.keys.get(key_id).cloned().ok_or(KeyringError::NotOurs)?,
        };
        decrypt(&key, bound_to, bytes).map(SecretSlice::from).ok_or(KeyringError::NotOurs)
    }

    /// The same value under the current key; none if it is under that already. Write it only over the very bytes that
    /// were read.
    ///
    /// # Errors
    /// As [`Keyring::unseal`] and [`Keyring::seal`].
    pub async fn renew(&self, bound_to: &[&str], sealed: &Sealed) -> Result<Option<Sealed>, KeyringError> {
        if self.current().await? == sealed.key_id {
            return Ok(None);
        }
        let plain = self.unseal(bound_to, &sealed.key_id, &sealed.bytes).await?;
        self.seal(bound_to, plain.expose_secret()).await.map(Some)
    }

    /// Makes a new key to seal with, and gives its id. Every other instance seals with it within 1 s.
    ///
    /// # Errors
    /// [`KeyringError::TooManyKeys`], [`KeyringError::Busy`], and the database's.
    pub async fn rotate(&self) -> Result<String, KeyringError> {
        for _ in 0..ROTATE_ATTEMPTS {
            let (count, highest): (i64, i64) =
                sql("SELECT COUNT(*), CAST(COALESCE(MAX(number), 0) AS BIGINT) FROM data_keys").one(&self.0.db).await?;
            if count >= MAX_KEYS {
                return Err(KeyringError::TooManyKeys);
            }
            if let Some(id) = self.add(highest.saturating_add(1)).await? {
                self.load().await?;
                return Ok(id);
            }
        }
        Err(KeyringError::Busy)
    }

    /// Ids of the keys that may be forgotten once no row names them: all that were replaced a minute ago or earlier.
    ///
    /// # Errors
    /// The database's.
    pub async fn replaced(&self) -> Result<Vec<String>, KeyringError> {
        let before = self.0.clock.now_ms().saturating_sub(KEEP_REPLACED_MS);
        let replaced = sql("SELECT id FROM data_keys WHERE number < \
             (SELECT MAX(number) FROM data_keys WHERE created_at <= $1) ORDER BY number LIMIT $2");
        Ok(replaced.bind(before).bind(MAX_KEYS).all(&self.0.db).await?)
    }

    /// Deletes keys that no row names. Those that are not [`Keyring::replaced`] stay. Gives how many went.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget(&self, unused: &[String]) -> Result<u64, KeyringError> {
        let mut gone = 0;
        for id in self.replaced().await?.iter().filter(|id| unused.contains(id)) {
            gone += sql("DELETE FROM data_keys WHERE id = $1").bind(id).run(&self.0.db).await?;
        }
        Ok(gone)
    }

    /// Adds a key with this number; none if there is one with it.
    async fn add(&self, number: i64) -> Result<Option<String>, KeyringError> {
        let (id, key) = (new_id(), Zeroizing::new(random::<KEY_BYTES>()?));
        let sealed = encrypt(&self.0.master, &bound_to(&id), key.as_slice())?;
        let added = sql("INSERT INTO data_keys (number, id, sealed, created_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (number) DO NOTHING");
        let added = added.bind(number).bind(&id).bind(sealed).bind(self.0.clock.now_ms()).run(&self.0.db).await?;
        Ok((added == 1).then_some(id))
    }

    async fn newest(&self) -> Result<Current, KeyringError> {
        let known = self.known();
        match known.current.as_ref().filter(|current| current.seen.elapsed() < CURRENT_FOR) {
            Some(current) => Ok(current.clone()),
            None => self.load().await?.current.clone().ok_or(KeyringError::WrongSecret),
        }
    }

    /// Reads every key. What it gives is as new as the moment it was asked.
    async fn load(&self) -> Result<Arc<Known>, KeyringError> {
        let seen = Instant::now();
        let rows = sql("SELECT id, sealed FROM data_keys ORDER BY number DESC LIMIT $1");
        let rows: Vec<KeyRow> = rows.bind(MAX_KEYS).all(&self.0.db).await?;
        let mut known = Known::default();
        for row in rows {
            let opened = decrypt(&self.0.master, &bound_to(&row.id), &row.sealed).map(Zeroizing::new);
            let key = opened.and_then(|key| <[u8; KEY_BYTES]>::try_from(key.as_slice()).ok());
            let key = Arc::new(SecretBox::new(Box::new(key.ok_or(KeyringError::WrongSecret)?)));
            known.current.get_or_insert_with(|| Current { id: row.id.clone(), key: Arc::clone(&key), seen });
            known.keys.insert(row.id, key);
        }
        let known = Arc::new(known);
        let mut now = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if now.current.as_ref().is_none_or(|current| current.seen <= seen) {
            *now = Arc::clone(&known);
        }
        Ok(known)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a data key is bound to.
fn bound_to(id: &str) -> [&str; 2] {
    ["weft data key", id]
}

fn derive(secret: &SecretString) -> [u8; KEY_BYTES] {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
    let mac = mac.map(|mac| mac.chain_update("weft keyring v1: data keys"));
    mac.unwrap_or_else(|error| unreachable!("hmac takes a key of any length: {error}")).finalize().into_bytes().into()
}

/// Each part with its length, so that no two lists read the same.
fn associated(bound_to: &[&str]) -> Vec<u8> {
    let parts = bound_to.iter().map(|part| [&(part.len() as u64).to_be_bytes(), part.as_bytes()].concat());
    parts.collect::<Vec<_>>().concat()
}

fn random<const N: usize>() -> Result<[u8; N], KeyringError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(KeyringError::Random)?;
    Ok(bytes)
}

fn encrypt(key: &DataKey, bound_to: &[&str], plain: &[u8]) -> Result<Vec<u8>, KeyringError> {
    let nonce = random::<NONCE_BYTES>()?;
    let payload = Payload { msg: plain, aad: &associated(bound_to) };
    let cipher = ChaCha20Poly1305::new(Key::from_slice(key.expose_secret()));
    let sealed = cipher.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| KeyringError::TooLong)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(key: &DataKey, bound_to: &[&str], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
    let payload = Payload { msg: ciphertext, aad: &associated(bound_to) };
    ChaCha20Poly1305::new(Key::from_slice(key.expose_secret())).decrypt(Nonce::from_slice(nonce), payload).ok()
}
