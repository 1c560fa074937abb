//! What was said between an account and a product's agents, where the product keeps it.
//!
//! [`Conversations::of`] is the only way in, and opens for products whose policy keeps something: in the database until
//! somebody deletes it ([`Lasting`]), or in the cache until nothing was said for a while ([`Fleeting`]). An [`Exchange`]
//! is what one call adds.
mod active;
mod exchange;
mod fleeting;
mod lasting;
mod personal;
mod tidy;

use std::sync::Arc;

use weft_cache::Cache;
use weft_core::Clock;
use weft_product::Product;
use weft_runtime::{Mesh, Tasks};

use self::active::Active;
use self::fleeting::{Fleeting, Lines};
use self::lasting::Lasting;
use crate::config::Config;
use crate::domain::chat::{Room, Turn};
use crate::domain::conversation::{self as rules, DAY_MS, EMPTY_MS, Keeping, Until};
use crate::error::Error;
use crate::store::Database;
use crate::store::conversation::{MessageRow, SessionChange, SessionPlace, SessionRow};

pub use exchange::{Answered, Exchange};
pub use personal::Cursor;

/// Most bytes of text that a page of messages has, unless its only message has more.
const PAGE_BYTES: usize = 1024 * 1024;

/// The conversations of all products. Cheap to clone.
#[derive(Clone)]
pub struct Conversations {
    database: Database,
    cache: Cache,
    lines: Lines,
    clock: Clock,
    tasks: Tasks,
    active: Arc<Active>,
    /// A lasting session is forgotten when nothing was said for so long, in ms; None: never.
    silent_ms: Option<i64>,
}

/// The conversations of a product that keeps them.
#[derive(Clone)]
pub struct Kept {
    store: Store,
    all: Conversations,
    keeping: Keeping,
}

/// Where they are kept.
#[derive(Clone)]
enum Store {
    Lasting(Lasting),
    Fleeting(Fleeting),
}

/// Messages in their order, and whether there are more behind them.
pub struct Page {
    /// The messages.
    pub messages: Vec<MessageRow>,
    /// There are more.
    pub more: bool,
}

impl Conversations {
    /// Those in a database and a cache. Starts what forgets them in time.
    pub fn start(config: &Config, database: Database, cache: Cache, mesh: &Mesh) -> Conversations {
        let days = i64::from(config.weft_chat_session_days);
        let silent_ms = (days > 0).then(|| days.saturating_mul(DAY_MS));
        let (clock, tasks, active) = (mesh.clock().clone(), mesh.tasks().clone(), Arc::<Active>::default());
        let all = Conversations { database, cache, lines: Lines::default(), clock, tasks, active, silent_ms };
        mesh.tasks().spawn("tidy conversations", tidy::run(all.clone(), mesh.shutdown().clone()));
        all
    }

    /// Those of a product.
    ///
    /// # Errors
    /// [`Error::ZeroPlaintext`] for one that promises to keep nothing.
    pub fn of(&self, product: &Product) -> Result<Kept, Error> {
        let keeping = Keeping::of(product)?;
        let store = match keeping.until() {
            Until::Deleted => Store::Lasting(Lasting::new(self.database.clone(), keeping.clone())),
            Until::Silent { ttl_ms } => {
                let (cache, lines, clock) = (self.cache.clone(), self.lines.clone(), self.clock.clone());
                Store::Fleeting(Fleeting::new(cache, lines, clock, keeping.clone(), ttl_ms))
            }
        };
        Ok(Kept { store, all: self.clone(), keeping })
    }
}

impl Kept {
    /// Adds a session.
    ///
    /// # Errors
    /// [`Error::Quota`] if its account has as many as it may.
    pub async fn create(&self, row: &SessionRow) -> Result<(), Error> {
        match &self.store {
            Store::Lasting(store) => store.create(row).await,
            Store::Fleeting(store) => store.create(row).await,
        }
    }

    /// At most so many sessions of an account behind a place, the latest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        account: &str,
        behind: Option<&SessionPlace>,
        most: usize,
    ) -> Result<Vec<SessionRow>, Error> {
        match &self.store {
            Store::Lasting(store) => store.list(account, behind, most).await,
            Store::Fleeting(store) => store.list(account, behind, most).await,
        }
    }

    /// A session of an account.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, account: &str, id: &str) -> Result<SessionRow, Error> {
        let id = rules::id(id)?;
        match &self.store {
            Store::Lasting(store) => store.get(account, id).await,
            Store::Fleeting(store) => store.get(account, id).await,
        }
    }

    /// Changes a session; gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn update(&self, account: &str, id: &str, change: &SessionChange) -> Result<SessionRow, Error> {
        let id = rules::id(id)?;
        match &self.store {
            Store::Lasting(store) => store.update(account, id, change).await,
            Store::Fleeting(store) => store.update(account, id, change).await,
        }
    }

    /// Deletes a session with its messages.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, account: &str, id: &str) -> Result<(), Error> {
        let id = rules::id(id)?;
        match &self.store {
            Store::Lasting(store) => store.delete(account, id).await,
            Store::Fleeting(store) => store.delete(account, id).await,
        }
    }

    /// At most so many messages of a session after a position.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn messages(&self, account: &str, id: &str, after: i64, most: usize) -> Result<Page, Error> {
        let id = rules::id(id)?;
        match &self.store {
            Store::Lasting(store) => store.messages(account, id, after, most).await,
            Store::Fleeting(store) => store.messages(account, id, after, most).await,
        }
    }

    /// The latest messages of a session, as many as there is room for, in their order.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Quota`] if nothing more can be said in it.
    pub async fn history(&self, account: &str, id: &str, room: Room) -> Result<Vec<Turn>, Error> {
        let id = rules::id(id)?;
        let latest = match &self.store {
            Store::Lasting(store) => store.latest(account, id, room).await?,
            Store::Fleeting(store) => store.latest(account, id, room).await?,
        };
        let turn = |row: MessageRow| Turn { role: rules::role(&row.role), content: row.content };
        Ok(latest.into_iter().rev().map(turn).collect())
    }

    /// When a session is forgotten, in ms since 1970; None: not by itself.
    pub fn expires_at(&self, row: &SessionRow) -> Option<i64> {
        let after = match self.keeping.until() {
            Until::Silent { ttl_ms } => Some(ttl_ms),
            Until::Deleted if row.message_count == 0 => Some(self.all.silent_ms.unwrap_or(EMPTY_MS).min(EMPTY_MS)),
            Until::Deleted => self.all.silent_ms,
        };
        after.map(|after| row.updated_at.saturating_add(after))
    }

    /// Slug of the product.
    fn product(&self) -> &str {
        self.keeping.product()
    }

    /// Adds a message at the end of a session; one with an id that is there already changes nothing.
    async fn add(&self, account: &str, id: &str, message: &MessageRow) -> Result<(), Error> {
        match &self.store {
            Store::Lasting(store) => store.add(account, id, message).await?,
            Store::Fleeting(store) => store.add(account, id, message).await?,
        }
        self.all.active.note(self.product(), id, self.all.clock.now_ms());
        Ok(())
    }
}

/// The first of these messages whose texts fit into so many bytes, but at least one; and whether that is all of them.
fn fitting(messages: Vec<MessageRow>, bytes: usize) -> (Vec<MessageRow>, bool) {
    let (count, mut left) = (messages.len(), bytes);
    let mut fitting = Vec::new();
    for message in messages {
        match left.checked_sub(message.content.len()) {
            Some(rest) => left = rest,
            None if fitting.is_empty() => left = 0,
            None => break,
        }
        fitting.push(message);
    }
    let all = fitting.len() == count;
    (fitting, all)
}

/// The first of these messages whose texts fit into so many bytes, maybe none; and whether that is all of them.
fn within(messages: Vec<MessageRow>, bytes: usize) -> (Vec<MessageRow>, bool) {
    match messages.first() {
        Some(first) if first.content.len() > bytes => (Vec::new(), false),
        _ => fitting(messages, bytes),
    }
}
