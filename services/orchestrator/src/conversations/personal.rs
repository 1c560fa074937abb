//! The conversations of one account: to give them out, and to delete them. The policy of a product may have been another one
//! before, so both are done whatever it is now.
use serde_json::{Value, json};
use weft_db::Tx;
use weft_product::Product;

use super::tidy::{SESSIONS, batches};
use super::{Conversations, Store};
use crate::domain::conversation::metadata_told;
use crate::domain::json as fields;
use crate::error::Error;
use crate::store::conversation::{MessageRow, SessionRow};
use crate::store::conversation_end::{
    OverRow, message_export, session_any, session_delete, session_export, session_owner_delete,
};

/// Messages of one part of an export.
const PART_MESSAGES: i64 = 20;
/// Most bytes of such a part, unless it has only one message.
const PART_BYTES: usize = 1024 * 1024;

/// Where an export goes on.
#[derive(Clone)]
pub enum Cursor {
    /// With the sessions after this one.
    Sessions(String),
    /// With the messages after this session and position.
    Messages(String, i64),
    /// With the last of these sessions in the cache; None: which there are is still to be asked.
    Fleeting(Option<Vec<String>>),
}

impl Cursor {
    /// The beginning.
    pub fn first() -> Cursor {
        Cursor::Sessions(String::new())
    }
}

impl Conversations {
    /// A part of an export: its name and rows, and where the next begins.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn export(
        &self,
        product: &Product,
        account: &str,
        cursor: Cursor,
    ) -> Result<(&'static str, Value, Option<Cursor>), Error> {
        match cursor {
            Cursor::Sessions(after) => {
                let db = &self.database.ready()?.db;
                let rows = session_export(db, &product.slug, account, &after, SESSIONS).await?;
                let last = rows.last().filter(|_| rows.len() as i64 == SESSIONS);
                let next = last.map_or(Cursor::Messages(String::new(), 0), |row| Cursor::Sessions(row.id.clone()));
                Ok(("chat_sessions", rows.iter().map(session).collect(), Some(next)))
            }
            Cursor::Messages(session_id, position) => {
                let db = &self.database.ready()?.db;
                let after = (session_id.as_str(), position);
                let rows = message_export(db, &product.slug, account, after, PART_MESSAGES).await?;
                let told = fitting(&rows);
                let is_all = told.len() == rows.len() && (rows.len() as i64) < PART_MESSAGES;
                let last = told.len().checked_sub(1).and_then(|last| rows.get(last)).filter(|_| !is_all);
                let next = last.map(|row| Cursor::Messages(row.session_id.clone(), row.position));
                Ok(("chat_messages", told.into(), next.or(Some(Cursor::Fleeting(None)))))
            }
            Cursor::Fleeting(ids) => self.export_fleeting(product, account, ids).await,
        }
    }

    async fn export_fleeting(
        &self,
        product: &Product,
        account: &str,
        ids: Option<Vec<String>>,
    ) -> Result<(&'static str, Value, Option<Cursor>), Error> {
        let none = ("chat_messages", json!([]), None);
        let Ok(Store::Fleeting(store)) = self.of(product).map(|kept| kept.store) else { return Ok(none) };
        let Some(mut ids) = ids else {
            let ids = store.ids(account).await?;
            let mut sessions = Vec::new();
            for id in &ids {
                sessions.extend(store.find(account, id).await?.map(|held| session(&held.session)));
            }
            return Ok(("chat_sessions", sessions.into(), Some(Cursor::Fleeting(Some(ids)))));
        };
        let Some(id) = ids.pop() else { return Ok(none) };
        let held = store.find(account, &id).await?;
        let rows = held.map_or_else(Vec::new, |held| held.messages);
        Ok(("chat_messages", rows.iter().map(message).collect(), Some(Cursor::Fleeting(Some(ids)))))
    }

    /// Deletes everything. Repeating it changes nothing more.
    ///
    /// # Errors
    /// Those of the stores; some of it may be deleted then.
    pub async fn erase(&self, product: &Product, account: &str) -> Result<(), Error> {
        let (db, slug) = (&self.database.ready()?.db, product.slug.as_str());
        loop {
            let sessions = session_any(db, slug, account, SESSIONS).await?;
            if sessions.is_empty() {
                break;
            }
            for some in batches(&sessions) {
                let delete = async |tx: Tx| {
                    for OverRow { id, .. } in some {
                        session_delete(&tx, slug, account, id).await?;
                    }
                    Ok::<_, Error>(())
                };
                db.write("erase sessions", delete).await?;
            }
        }
        session_owner_delete(db, slug, account).await?;
        if let Ok(Store::Fleeting(store)) = self.of(product).map(|kept| kept.store) {
            store.erase(account).await?;
        }
        Ok(())
    }
}

/// The first of these messages as JSON, as many as one part may have.
fn fitting(rows: &[MessageRow]) -> Vec<Value> {
    let mut bytes = 0;
    let mut told: Vec<Value> = Vec::new();
    for row in rows {
        let row = message(row);
        bytes += row.to_string().len();
        if bytes > PART_BYTES && !told.is_empty() {
            break;
        }
        told.push(row);
    }
    told
}

fn session(row: &SessionRow) -> Value {
    let metadata = metadata_told(&row.metadata).map(fields::object);
    json!({"id": row.id, "title": row.title, "metadata": metadata, "message_count": row.message_count,
           "created_at": row.created_at, "updated_at": row.updated_at})
}

fn message(row: &MessageRow) -> Value {
    json!({"session_id": row.session_id, "id": row.id, "role": row.role, "content": row.content, "agent": row.agent,
           "model": row.model, "created_at": row.created_at, "incomplete": row.incomplete})
}
