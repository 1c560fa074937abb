//! Conversations that are gone when nothing was said in them for a while. They are in the cache only.
//!
//! A session is one value, `<product>:session:<id>`. The sessions of an account are listed in another,
//! `<product>:sessions:<account>`. A new session is listed before anybody hears of its id, and a message is noted there
//! before it is added: what is listed and gone is passed over, and what was said is found by who lists or erases.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout_at};
use weft_cache::Cache;
use weft_core::Clock;

use super::{PAGE_BYTES, Page, fitting, within};
use crate::domain::chat::{Role, Room};
use crate::domain::conversation::{Keeping, role_name, title_of};
use crate::error::Error;
use crate::store::conversation::{MessageRow, SessionChange, SessionPlace, SessionRow};

/// Most sessions of an account.
const SESSIONS_MOST: usize = 100;
/// Most bytes of a session with its messages as it is kept; of a longer one the beginning is forgotten.
const SESSION_BYTES: usize = 512 * 1024;
/// Who changes a value that others change too tries it again for so long.
const CHANGE_WITHIN: Duration = Duration::from_secs(2);
/// Pauses between those attempts, in ms: the shortest, and by how much a longer one may differ.
const PAUSE_MS: (u64, u32) = (1, 15);

/// Lines of those at this replica who change a value; those at others are met in the cache itself.
const LINES: usize = 64;

/// Where those at this replica wait who change the same value. A clone is the same.
#[derive(Clone)]
pub struct Lines(Arc<[Mutex<()>]>);

impl Default for Lines {
    fn default() -> Lines {
        Lines((0..LINES).map(|_| Mutex::new(())).collect())
    }
}

impl Lines {
    /// Waits until nobody else here changes the value of a key.
    async fn wait(&self, key: &str, until: Instant) -> Result<Option<MutexGuard<'_, ()>>, Error> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let line = usize::try_from(hasher.finish() % LINES as u64).ok().and_then(|line| self.0.get(line));
        let Some(line) = line else { return Ok(None) };
        timeout_at(until, line.lock()).await.map(Some).map_err(|_| Error::Busy)
    }
}

/// Those of a product, in the cache.
#[derive(Clone)]
pub struct Fleeting {
    cache: Cache,
    lines: Lines,
    clock: Clock,
    keeping: Keeping,
    ttl_ms: i64,
}

/// A session with what was said in it.
#[derive(Serialize, Deserialize)]
pub struct Held {
    /// The session.
    pub session: SessionRow,
    /// Its messages in their order.
    pub messages: Vec<MessageRow>,
}

/// A session in the list of its account.
#[derive(Clone, Serialize, Deserialize)]
struct Listed {
    id: String,
    updated_at: i64,
}

impl Fleeting {
    /// Those that this product keeps here, for so long after the last message.
    pub fn new(cache: Cache, lines: Lines, clock: Clock, keeping: Keeping, ttl_ms: i64) -> Fleeting {
        Fleeting { cache, lines, clock, keeping, ttl_ms }
    }

    /// As [`super::Kept::create`].
    pub async fn create(&self, row: &SessionRow) -> Result<(), Error> {
        let held = Held { session: row.clone(), messages: Vec::new() };
        let key = self.key(&row.id);
        self.cache.set(&key, written(&held)?, time(self.ttl_ms)).await.map_err(Error::Conversation)?;
        let new = Listed { id: row.id.clone(), updated_at: row.updated_at };
        let add = |mut list: Vec<Listed>| {
            if list.len() >= SESSIONS_MOST {
                return Err(Error::Quota("you have 100 sessions; delete one first or wait"));
            }
            list.push(new.clone());
            Ok(list)
        };
        let listed = self.change_list(&row.account_id, add).await;
        // Where the cache did not answer it may be listed.
        if matches!(listed, Err(Error::Quota(_) | Error::Busy)) {
            // One that stays is known to nobody, and goes by itself.
            let _gone = self.cache.delete(&key).await;
        }
        listed
    }

    /// As [`super::Kept::list`].
    pub async fn list(
        &self,
        account: &str,
        behind: Option<&SessionPlace>,
        most: usize,
    ) -> Result<Vec<SessionRow>, Error> {
        let mut listed = self.listed(account).await?;
        let is_behind =
            |one: &Listed| behind.is_none_or(|place| (one.updated_at, &one.id) < (place.updated_at, &place.id));
        listed.sort_by(|a, b| (b.updated_at, &b.id).cmp(&(a.updated_at, &a.id)));
        let mut sessions = Vec::new();
        for one in listed.into_iter().filter(is_behind) {
            if sessions.len() == most {
                break;
            }
            if let Some(held) = self.find(account, &one.id).await? {
                // Where a message is just being added, its place is the one in the list.
                sessions.push(SessionRow { updated_at: one.updated_at, ..held.session });
            }
        }
        Ok(sessions)
    }

    /// As [`super::Kept::get`].
    pub async fn get(&self, account: &str, id: &str) -> Result<SessionRow, Error> {
        Ok(self.held(account, id).await?.session)
    }

    /// As [`super::Kept::update`].
    pub async fn update(&self, account: &str, id: &str, change: &SessionChange) -> Result<SessionRow, Error> {
        let changed = self.change(account, id, |held| {
            let session = &mut held.session;
            if let Some(title) = &change.title {
                session.title.clone_from(title);
            }
            if let Some(metadata) = &change.metadata {
                session.metadata.clone_from(metadata);
            }
        });
        Ok(changed.await?.session)
    }

    /// As [`super::Kept::delete`].
    pub async fn delete(&self, account: &str, id: &str) -> Result<(), Error> {
        self.held(account, id).await?;
        self.cache.delete(&self.key(id)).await.map_err(Error::Conversation)?;
        self.change_list(account, |mut list| {
            list.retain(|one| one.id != id);
            Ok(list)
        })
        .await
    }

    /// As [`super::Kept::messages`].
    pub async fn messages(&self, account: &str, id: &str, after: i64, most: usize) -> Result<Page, Error> {
        let held = self.held(account, id).await?;
        let mut messages: Vec<MessageRow> = held.messages.into_iter().filter(|one| one.position > after).collect();
        let has_more = messages.len() > most;
        messages.truncate(most);
        let (messages, all) = fitting(messages, PAGE_BYTES);
        Ok(Page { messages, more: has_more || !all })
    }

    /// The latest messages of a session, as many as there is room for, the latest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn latest(&self, account: &str, id: &str, room: Room) -> Result<Vec<MessageRow>, Error> {
        let messages = self.held(account, id).await?.messages;
        Ok(within(messages.into_iter().rev().take(room.messages).collect(), room.bytes).0)
    }

    /// As [`super::Kept::add`].
    pub async fn add(&self, account: &str, id: &str, message: &MessageRow) -> Result<(), Error> {
        self.held(account, id).await?;
        self.change_list(account, |mut list| {
            let at_ms = list.iter().find(|one| one.id == id).map_or(0, |one| one.updated_at);
            list.retain(|one| one.id != id);
            list.push(Listed { id: id.to_owned(), updated_at: message.created_at.max(at_ms) });
            Ok(list)
        })
        .await?;
        let is_users = message.role == role_name(Role::User);
        let add = |held: &mut Held| {
            if held.messages.iter().any(|one| one.id == message.id) {
                return;
            }
            let position = held.messages.last().map_or(0, |last| last.position) + 1;
            let session = &mut held.session;
            if position == 1 && is_users && session.title.is_empty() {
                session.title = title_of(&message.content);
            }
            session.updated_at = session.updated_at.max(message.created_at);
            held.messages.push(MessageRow { position, ..message.clone() });
        };
        self.change(account, id, add).await.map(drop)
    }

    /// All that there is of an account, one session after the other; those that are gone are passed over.
    ///
    /// # Errors
    /// [`Error::Conversation`].
    pub async fn ids(&self, account: &str) -> Result<Vec<String>, Error> {
        Ok(self.listed(account).await?.into_iter().map(|one| one.id).collect())
    }

    /// A session of an account, if it is there.
    ///
    /// # Errors
    /// [`Error::Conversation`].
    pub async fn find(&self, account: &str, id: &str) -> Result<Option<Held>, Error> {
        let seen = self.cache.get(&self.key(id)).await.map_err(Error::Conversation)?;
        let held: Option<Held> = seen.as_ref().and_then(read);
        Ok(held.filter(|held| self.is_theirs(account, held)))
    }

    /// Deletes all that there is of an account.
    ///
    /// # Errors
    /// [`Error::Conversation`].
    pub async fn erase(&self, account: &str) -> Result<(), Error> {
        for id in self.ids(account).await? {
            // Without a look at it: what another version wrote, and this one cannot read, goes too.
            self.cache.delete(&self.key(&id)).await.map_err(Error::Conversation)?;
        }
        self.cache.delete(&self.list_key(account)).await.map_err(Error::Conversation)
    }

    async fn held(&self, account: &str, id: &str) -> Result<Held, Error> {
        self.find(account, id).await?.ok_or(Error::NotFound("session"))
    }

    /// Changes a session; gives it as it is then.
    async fn change(&self, account: &str, id: &str, change: impl Fn(&mut Held)) -> Result<Held, Error> {
        let key = self.key(id);
        let until = Instant::now() + CHANGE_WITHIN;
        let _turn = self.lines.wait(&key, until).await?;
        loop {
            let seen = self.cache.get(&key).await.map_err(Error::Conversation)?;
            let held: Option<Held> = seen.as_ref().and_then(read);
            let held = held.filter(|held| self.is_theirs(account, held));
            let (Some(seen), Some(mut held)) = (seen, held) else { return Err(Error::NotFound("session")) };
            change(&mut held);
            let value = shortened(&mut held)?;
            let left_ms = self.ends_at(&held.session).saturating_sub(self.clock.now_ms());
            if self.cache.replace(&key, &seen, value, time(left_ms)).await.map_err(Error::Conversation)? {
                return Ok(held);
            }
            pause(until).await?;
        }
    }

    /// Changes the list of an account's sessions, from which those are left out whose time is over.
    async fn change_list(
        &self,
        account: &str,
        change: impl Fn(Vec<Listed>) -> Result<Vec<Listed>, Error>,
    ) -> Result<(), Error> {
        let key = self.list_key(account);
        let until = Instant::now() + CHANGE_WITHIN;
        let _turn = self.lines.wait(&key, until).await?;
        loop {
            let seen = self.cache.get(&key).await.map_err(Error::Conversation)?;
            let list = change(self.current(seen.as_ref()))?;
            let (value, ttl) = (written(&list)?, time(self.ttl_ms));
            let changed = match &seen {
                Some(seen) => self.cache.replace(&key, seen, value, ttl).await,
                None => self.cache.set_if_absent(&key, value, ttl).await,
            };
            if changed.map_err(Error::Conversation)? {
                return Ok(());
            }
            pause(until).await?;
        }
    }

    async fn listed(&self, account: &str) -> Result<Vec<Listed>, Error> {
        let seen = self.cache.get(&self.list_key(account)).await.map_err(Error::Conversation)?;
        Ok(self.current(seen.as_ref()))
    }

    fn current(&self, seen: Option<&Bytes>) -> Vec<Listed> {
        let mut list: Vec<Listed> = seen.and_then(read).unwrap_or_default();
        let now_ms = self.clock.now_ms();
        list.retain(|one| one.updated_at.saturating_add(self.ttl_ms) > now_ms);
        list
    }

    /// Whether it is this account's, and its time is not over: the cache may keep it a little longer.
    fn is_theirs(&self, account: &str, held: &Held) -> bool {
        held.session.account_id == account && self.ends_at(&held.session) > self.clock.now_ms()
    }

    fn ends_at(&self, session: &SessionRow) -> i64 {
        session.updated_at.saturating_add(self.ttl_ms)
    }

    fn key(&self, id: &str) -> String {
        format!("{}:session:{id}", self.keeping.product())
    }

    fn list_key(&self, account: &str) -> String {
        format!("{}:sessions:{account}", self.keeping.product())
    }
}

/// A session as it is kept: as much of its end as may be.
fn shortened(held: &mut Held) -> Result<Vec<u8>, Error> {
    loop {
        held.session.message_count = i64::try_from(held.messages.len()).unwrap_or(i64::MAX);
        let value = written(held)?;
        if value.len() <= SESSION_BYTES || held.messages.len() < 2 {
            return Ok(value);
        }
        held.messages.remove(0);
    }
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|_| Error::Lost)
}

/// What we wrote we can read; what we cannot was of another version and is as good as gone.
fn read<T: DeserializeOwned>(value: &Bytes) -> Option<T> {
    serde_json::from_slice(value).ok()
}

fn time(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1))
}

/// Waits a little before the next attempt.
async fn pause(until: Instant) -> Result<(), Error> {
    if Instant::now() >= until {
        return Err(Error::Busy);
    }
    let (least, more) = PAUSE_MS;
    let chance = getrandom::u32().map_err(Error::Random)? % more;
    sleep(Duration::from_millis(least + u64::from(chance))).await;
    Ok(())
}
