//! Accounts from elsewhere: a file with one JSON object a line, straight into the database, while the service runs.
//!
//! What an account brings along is its address and a password hash; at the first login the hash is replaced by ours.
use std::collections::HashSet;
use std::io::{BufRead, Read};

use serde::Deserialize;
use weft_core::{Clock, new_id};
use weft_db::{Db, Tx};

use crate::connect_to;
use crate::domain::account::{Account, Email};
use crate::domain::password::Stored;
use crate::domain::role::Roles;
use crate::error::Error;
use crate::operator::{CONNECTIONS, OPERATOR};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::import::{ImportedAccount, import_existing, import_insert, shape_insert, shape_list};

/// Different costs of password hashes that a product may have besides our own: a wrong password takes the time of all.
pub const MOST_SHAPES: i64 = 8;
/// What all of them take together at most, in ms: nobody who guesses keeps a thread for longer.
const MOST_WORK_MS: u64 = 2_000;
/// Longest line in bytes.
const LINE_BYTES: u64 = 16 * 1024;
/// Accounts added by one transaction.
const BATCH: usize = 100;

/// What to bring in.
#[derive(Clone, Copy, Debug)]
pub struct ImportOrder<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Accounts that were added, or would be.
    pub added: u64,
    /// Lines whose address the product has, or an earlier line: left alone.
    pub existing: u64,
    /// Lines with which something is wrong: left out.
    pub bad: u64,
}

/// A line with which something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub number: u64,
    /// What; nothing of the line is in it.
    pub problem: &'static str,
}

/// A line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    email: String,
    password_hash: String,
    /// In ms since 1970.
    created_at: Option<i64>,
    #[serde(default)]
    email_verified: bool,
}

/// A line that is good.
struct Row {
    account: Account,
    email: Email,
    password_hash: String,
    shape: Option<String>,
    email_verified_at: Option<i64>,
}

/// Adds the account of each line of `file` and tells `report` of the lines that are left out. Who runs it again, after
/// mending those or after an interruption, adds the rest.
///
/// Errors: a database that cannot be used or is not at this version; a file that cannot be read. What was added by then
/// stays.
pub async fn import(
    database_url: &str,
    clock: &Clock,
    order: ImportOrder<'_>,
    file: &mut (dyn BufRead + Send),
    report: &mut (dyn FnMut(BadLine) + Send),
) -> Result<Imported, Error> {
    let db = connect_to(database_url, CONNECTIONS).await?;
    db.check_migrated(crate::MIGRATIONS).await?;
    let request_id = new_id();
    let shapes = shape_list(&db, order.product, MOST_SHAPES).await?.into_iter().collect();
    let mut importing =
        Importing { db, clock, order, request_id, shapes, seen: HashSet::new(), done: Imported::default() };
    let outcome = importing.read(file, report).await;
    importing.db.close().await;
    outcome.map(|()| importing.done)
}

struct Importing<'a> {
    db: Db,
    clock: &'a Clock,
    order: ImportOrder<'a>,
    request_id: String,
    shapes: HashSet<String>,
    /// Addresses of a dry run, which leaves none in the database.
    seen: HashSet<String>,
    done: Imported,
}

impl Importing<'_> {
    async fn read(
        &mut self,
        file: &mut (dyn BufRead + Send),
        report: &mut (dyn FnMut(BadLine) + Send),
    ) -> Result<(), Error> {
        let mut batch = Vec::new();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if file.take(LINE_BYTES + 1).read_until(b'\n', &mut text).map_err(Error::ImportFile)? == 0 {
                break;
            }
            let whole = text.len() as u64 <= LINE_BYTES;
            if !whole {
                skip_line(file).map_err(Error::ImportFile)?;
            }
            let line = text.trim_ascii();
            if whole && line.is_empty() {
                continue;
            }
            match if whole { self.row(line) } else { Err("the line is longer than 16 KiB") } {
                Ok(row) => batch.push(row),
                Err(problem) => {
                    self.done.bad += 1;
                    report(BadLine { number, problem });
                }
            }
            if batch.len() == BATCH {
                self.add(&std::mem::take(&mut batch)).await?;
            }
        }
        self.add(&batch).await
    }

    fn row(&mut self, line: &[u8]) -> Result<Row, &'static str> {
        let line: Line = serde_json::from_slice(line).map_err(|_| {
            "not an object with email and password_hash, perhaps created_at (ms) and email_verified, and nothing else"
        })?;
        let email = Email::parse(&line.email).map_err(|error| match error {
            Error::InvalidEmail(problem) => problem,
            _ => "email is no address",
        })?;
        let now_ms = self.clock.now_ms();
        let created_at = line.created_at.unwrap_or(now_ms);
        if !(0..=now_ms).contains(&created_at) {
            return Err("created_at must be in ms since 1970 and not in the future");
        }
        let hash = Stored::parse(&line.password_hash)?;
        let shape = if hash.is_ours() { None } else { Some(hash.shape()) };
        if let Some(shape) = shape.as_ref().filter(|shape| !self.shapes.contains(*shape)) {
            if self.shapes.len() as i64 >= MOST_SHAPES {
                return Err("password_hash is of a ninth different cost, a product may have eight");
            }
            let work_ms = |shape: &String| Stored::parse(shape).map_or(0, |shape| shape.work_ms());
            if self.shapes.iter().map(work_ms).sum::<u64>() + hash.work_ms() > MOST_WORK_MS {
                return Err("password_hash is of one more cost, with which a wrong password would take over 2 s");
            }
            self.shapes.insert(shape.clone());
        }
        let account = Account {
            product: self.order.product.to_owned(),
            id: new_id(),
            email: email.shown.clone(),
            created_at,
            roles: Roles::default(),
            suspended: false,
        };
        let email_verified_at = line.email_verified.then_some(created_at);
        Ok(Row { account, email, password_hash: line.password_hash, shape, email_verified_at })
    }

    async fn add(&mut self, batch: &[Row]) -> Result<(), Error> {
        let added = if self.order.dry_run { self.count(batch).await? } else { self.write(batch).await? };
        self.done.added += added;
        self.done.existing += batch.len() as u64 - added;
        Ok(())
    }

    async fn count(&mut self, batch: &[Row]) -> Result<u64, Error> {
        let folded = serde_json::Value::from_iter(batch.iter().map(|row| row.email.folded.as_str())).to_string();
        self.seen.extend(import_existing(&self.db, self.order.product, &folded).await?);
        Ok(batch.iter().filter(|row| self.seen.insert(row.email.folded.clone())).count() as u64)
    }

    async fn write(&self, batch: &[Row]) -> Result<u64, Error> {
        let now_ms = self.clock.now_ms();
        self.db
            .write("import", async |tx: Tx| {
                let mut added = 0;
                for row in batch {
                    added += u64::from(self.write_one(&tx, row, now_ms).await?);
                }
                Ok(added)
            })
            .await
    }

    async fn write_one(&self, tx: &Tx, row: &Row, now_ms: i64) -> Result<bool, Error> {
        let imported = ImportedAccount {
            account: &row.account,
            email: &row.email,
            password_hash: &row.password_hash,
            shape: row.shape.as_deref(),
            email_verified_at: row.email_verified_at,
        };
        if !import_insert(tx, &imported).await? {
            return Ok(false);
        }
        if let Some(shape) = &row.shape {
            shape_insert(tx, self.order.product, shape, now_ms).await?;
        }
        let event = AuditEvent {
            product: self.order.product,
            kind: AuditKind::Imported,
            account_id: Some(&row.account.id),
            session_id: None,
            request_id: &self.request_id,
            at: now_ms,
            actor_id: Some(OPERATOR),
            detail: None,
        };
        audit_insert(tx, &event).await?;
        Ok(true)
    }
}

/// The rest of a line that is too long.
fn skip_line(file: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let rest = file.fill_buf()?;
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (length, over) = (end.map_or(rest.len(), |end| end + 1), end.is_some() || rest.is_empty());
        file.consume(length);
        if over {
            return Ok(());
        }
    }
}
