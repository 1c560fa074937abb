//! Conversations that are kept until somebody deletes them.
use weft_db::{Db, Tx};

use super::{PAGE_BYTES, Page, fitting, within};
use crate::domain::chat::{Role, Room};
use crate::domain::conversation::{Keeping, role_name, title_of};
use crate::error::Error;
use crate::store::Database;
use crate::store::conversation::{
    MessageRow, SessionChange, SessionPlace, SessionRow, message_exists, message_insert, message_list,
    message_list_before, session_count, session_get, session_insert, session_list, session_lock, session_owner_lock,
    session_touch, session_update,
};
use crate::store::conversation_end::session_delete;

/// Most sessions of an account.
const SESSIONS_MOST: i64 = 10_000;
/// Most messages of a session.
const MESSAGES_MOST: i64 = 10_000;
/// Messages that are read at once: a text may be long.
const READ_MOST: usize = 20;

/// Those of a product, in the database.
#[derive(Clone)]
pub struct Lasting {
    database: Database,
    keeping: Keeping,
}

impl Lasting {
    /// Those that this product keeps here.
    pub fn new(database: Database, keeping: Keeping) -> Lasting {
        Lasting { database, keeping }
    }

    /// As [`super::Kept::create`].
    pub async fn create(&self, row: &SessionRow) -> Result<(), Error> {
        let keeping = &self.keeping;
        let create = async |tx: Tx| {
            session_owner_lock(&tx, keeping, &row.account_id).await?;
            if session_count(&tx, keeping, &row.account_id).await? >= SESSIONS_MOST {
                return Err(Error::Quota("you have 10000 sessions; delete one first"));
            }
            Ok(session_insert(&tx, keeping, row).await?)
        };
        self.db()?.write("chat_session_create", create).await
    }

    /// As [`super::Kept::list`].
    pub async fn list(
        &self,
        account: &str,
        behind: Option<&SessionPlace>,
        most: usize,
    ) -> Result<Vec<SessionRow>, Error> {
        Ok(session_list(self.db()?, &self.keeping, account, behind, number(most)).await?)
    }

    /// As [`super::Kept::get`].
    pub async fn get(&self, account: &str, id: &str) -> Result<SessionRow, Error> {
        session_get(self.db()?, &self.keeping, account, id).await?.ok_or(Error::NotFound("session"))
    }

    /// As [`super::Kept::update`].
    pub async fn update(&self, account: &str, id: &str, change: &SessionChange) -> Result<SessionRow, Error> {
        let changed = session_update(self.db()?, &self.keeping, account, id, change).await?;
        changed.ok_or(Error::NotFound("session"))
    }

    /// As [`super::Kept::delete`].
    pub async fn delete(&self, account: &str, id: &str) -> Result<(), Error> {
        let product = self.keeping.product();
        let delete = async |tx: Tx| Ok::<_, Error>(session_delete(&tx, product, account, id).await?);
        if self.db()?.write("chat_session_delete", delete).await? { Ok(()) } else { Err(Error::NotFound("session")) }
    }

    /// As [`super::Kept::messages`].
    pub async fn messages(&self, account: &str, id: &str, mut after: i64, most: usize) -> Result<Page, Error> {
        self.get(account, id).await?;
        let db = self.db()?;
        let (mut messages, mut bytes) = (Vec::<MessageRow>::new(), PAGE_BYTES);
        while messages.len() < most && bytes > 0 {
            let wanted = (most - messages.len()).min(READ_MOST);
            let read = message_list(db, &self.keeping, id, after, number(wanted)).await?;
            let last = read.len() < wanted;
            let (read, all) = if messages.is_empty() { fitting(read, bytes) } else { within(read, bytes) };
            bytes = bytes.saturating_sub(size(&read));
            after = read.last().map_or(after, |message| message.position);
            messages.extend(read);
            match (all, last) {
                (false, _) => return Ok(Page { messages, more: true }),
                (true, true) => return Ok(Page { messages, more: false }),
                (true, false) => {}
            }
        }
        let more = !message_list(db, &self.keeping, id, after, 1).await?.is_empty();
        Ok(Page { messages, more })
    }

    /// The latest messages of a session, as many as there is room for, the latest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Quota`] if nothing more can be said in it.
    pub async fn latest(&self, account: &str, id: &str, room: Room) -> Result<Vec<MessageRow>, Error> {
        // A question and its answer have to fit.
        if self.get(account, id).await?.message_count > MESSAGES_MOST - 2 {
            return Err(full());
        }
        let db = self.db()?;
        let (mut latest, mut bytes, mut before) = (Vec::<MessageRow>::new(), room.bytes, i64::MAX);
        while latest.len() < room.messages {
            let wanted = (room.messages - latest.len()).min(READ_MOST);
            let read = message_list_before(db, &self.keeping, id, before, number(wanted)).await?;
            let last = read.len() < wanted;
            let (read, all) = within(read, bytes);
            bytes -= size(&read);
            before = read.last().map_or(before, |message| message.position);
            latest.extend(read);
            if last || !all {
                break;
            }
        }
        Ok(latest)
    }

    /// As [`super::Kept::add`].
    pub async fn add(&self, account: &str, id: &str, message: &MessageRow) -> Result<(), Error> {
        let keeping = &self.keeping;
        let is_users = message.role == role_name(Role::User);
        let title = if is_users { title_of(&message.content) } else { String::new() };
        let add = async |tx: Tx| {
            let count = session_lock(&tx, keeping, account, id).await?.ok_or(Error::NotFound("session"))?;
            if message_exists(&tx, keeping, message).await? {
                return Ok(());
            }
            if count >= MESSAGES_MOST {
                return Err(full());
            }
            let message = MessageRow { position: count + 1, ..message.clone() };
            message_insert(&tx, keeping, &message).await?;
            session_touch(&tx, keeping, &message, &title).await?;
            Ok(())
        };
        self.db()?.write("chat_message_add", add).await
    }

    fn db(&self) -> Result<&Db, Error> {
        Ok(&self.database.ready()?.db)
    }
}

fn size(messages: &[MessageRow]) -> usize {
    messages.iter().map(|message| message.content.len()).sum()
}

fn full() -> Error {
    Error::Quota("this session has 10000 messages; begin another one")
}

fn number(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
