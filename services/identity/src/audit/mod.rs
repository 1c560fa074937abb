//! The audit log of each product: a chain of hashes that the service vouches for.
//!
//! Whoever adds an entry makes its hash of the one before it. That alone can be made anew by somebody who writes to the
//! database; so the service signs every few seconds how far it found the log right, with a key that is made of the
//! identity secret and is not in the database. What comes before that place can be changed by nobody unnoticed.
pub mod verify;

use weft_db::{Db, DbError, Tx};
use weft_runtime::Shutdown;

use crate::audit::verify::{Notes, Report, Verifier};
use crate::domain::audit::{Seal, chain};
use crate::domain::token::SecretKeys;
use crate::error::Error;
use crate::store::PRUNE_ROWS;
use crate::store::audit::{
    AuditRow, audit_delete, audit_due, audit_give_place, audit_has_accounts, audit_head, audit_page, audit_products,
    audit_prune_unplaced, audit_unplaced, audit_unsealed, seal_find, seal_insert, seal_lock, seal_set,
};

/// Entries that are read at once.
const PAGE: i64 = 1000;
/// Entries of an older version that get their places in one transaction: everybody else waits so long.
const PLACED: i64 = 100;
/// An entry of an older version that ends within this time gets no place, ms: an older version that still runs may
/// delete it.
const OLD_VERSION_MS: i64 = 24 * 60 * 60 * 1000;

/// Begins the log of these products, and of every product with accounts, where there is none. A log that has entries, or had some, must have a seal already: who
/// took it away is not helped by a new one.
pub async fn begin(db: &Db, secrets: &SecretKeys, products: &[&str]) -> Result<(), Error> {
    let known = audit_products(db).await?;
    for slug in known.iter().map(String::as_str).chain(products.iter().copied()) {
        db.write("begin audit log", async |tx: Tx| {
            if seal_find(&tx, slug).await?.is_some() || audit_head(&tx, slug).await?.is_some() {
                return Ok(());
            }
            if audit_has_accounts(&tx, slug).await? {
                tracing::warn!(
                    product = slug,
                    "the audit log begins though there are accounts: expected after an upgrade, else it was deleted"
                );
            }
            let seal = Seal::default();
            seal_insert(&tx, slug, &seal, &secrets.audit_mac(slug, &seal)).await?;
            Ok::<_, Error>(())
        })
        .await?;
    }
    Ok(())
}

/// Gives places to entries that an older version wrote, in the order of their times; says whether there may be more.
pub async fn place(db: &Db, now_ms: i64, kept_ms: i64) -> Result<bool, Error> {
    let after_ms = now_ms.saturating_sub(kept_ms).saturating_add(OLD_VERSION_MS);
    let placed = db
        .write("place audit entries", async |tx: Tx| {
            let rows = audit_unplaced(&tx, after_ms, PLACED).await?;
            for row in &rows {
                audit_give_place(&tx, row).await?;
            }
            Ok::<_, DbError>(rows.len() as i64)
        })
        .await?;
    Ok(placed == PLACED)
}

/// Vouches for what was added to every log since the last time.
///
/// Errors: the database's. A log that is damaged is told in the process's log; it is vouched for no further.
pub async fn seal(db: &Db, secrets: &SecretKeys, shutdown: &Shutdown) -> Result<(), Error> {
    for product in audit_unsealed(db).await? {
        while !shutdown.is_triggered() && advance(db, secrets, &product).await? {}
    }
    Ok(())
}

/// One step of [`seal`]; says whether there may be more.
async fn advance(db: &Db, secrets: &SecretKeys, product: &str) -> Result<bool, Error> {
    db.write("seal audit log", async |tx: Tx| {
        let Some(mut seal) = sealed(&tx, secrets, product).await? else { return Ok(false) };
        let rows = audit_page(&tx, product, seal.number, PAGE).await?;
        let right = in_order(&rows, seal.number, &seal.hash);
        if let Some(last) = right.last() {
            (seal.number, seal.hash) = (last.number, last.hash.clone());
            seal_set(&tx, product, &seal, &secrets.audit_mac(product, &seal)).await?;
        }
        if right.len() < rows.len() {
            damaged(product, seal.number + 1);
        }
        Ok(right.len() as i64 == PAGE)
    })
    .await
}

/// Deletes entries at or before `before_ms`, from the beginning of each log, and remembers the hash on which the rest
/// stands. Of a damaged log nothing is deleted from the damage on: somebody has to look at it.
pub async fn prune(db: &Db, secrets: &SecretKeys, before_ms: i64) -> Result<u64, Error> {
    let mut pruned = audit_prune_unplaced(db, before_ms).await?;
    for product in audit_due(db, before_ms).await? {
        pruned += db
            .write("prune audit log", async |tx: Tx| {
                let Some(mut seal) = sealed(&tx, secrets, &product).await? else { return Ok(0) };
                let rows = audit_page(&tx, &product, seal.pruned_number, PRUNE_ROWS as i64).await?;
                let right = in_order(&rows, seal.pruned_number, &seal.pruned_hash);
                let due = right.iter().take_while(|row| row.at <= before_ms && row.number <= seal.number).last();
                let Some(last) = due else {
                    if right.is_empty() {
                        damaged(&product, seal.pruned_number + 1);
                    }
                    return Ok(0);
                };
                (seal.pruned_number, seal.pruned_hash) = (last.number, last.hash.clone());
                seal_set(&tx, &product, &seal, &secrets.audit_mac(&product, &seal)).await?;
                Ok::<_, Error>(audit_delete(&tx, &product, seal.pruned_number).await?)
            })
            .await?;
    }
    Ok(pruned)
}

/// Looks at a product's whole log, as it is at one moment.
pub async fn look(db: &Db, secrets: &SecretKeys, product: &str) -> Result<Report, Error> {
    db.snapshot(async |tx: Tx| {
        let found = seal_find(&tx, product).await?;
        let signed = found.as_ref().is_some_and(|(seal, mac)| secrets.audit_mac(product, seal) == *mac);
        let seal = found.map(|(seal, _)| seal);
        let head = audit_head(&tx, product).await?;
        let mut verifier = Verifier::new(Notes { head, seal, signed });
        let mut after = i64::MIN;
        loop {
            let rows = audit_page(&tx, product, after, PAGE).await?;
            let Some(last) = rows.last() else { return Ok(verifier.finish()) };
            after = last.number;
            for row in rows {
                let digest = row.entry().digest();
                verifier.entry(row.number, row.hash, digest);
            }
        }
    })
    .await
}

/// The seal, locked, if it is ours.
async fn sealed(tx: &Tx, secrets: &SecretKeys, product: &str) -> Result<Option<Seal>, Error> {
    match seal_lock(tx, product).await? {
        Some((seal, mac)) if secrets.audit_mac(product, &seal) == mac => Ok(Some(seal)),
        _ => {
            damaged(product, 0);
            Ok(None)
        }
    }
}

/// The rows up to the first that does not stand on the one before it.
fn in_order<'a>(rows: &'a [AuditRow], number: i64, hash: &[u8]) -> &'a [AuditRow] {
    let (mut number, mut hash) = (number, hash);
    for (index, row) in rows.iter().enumerate() {
        if row.number != number + 1 || row.hash != chain(hash, row.number, &row.entry().digest()) {
            return &rows[..index];
        }
        (number, hash) = (row.number, &row.hash);
    }
    rows
}

fn damaged(product: &str, number: i64) {
    tracing::error!(product, number, "the audit log was changed behind our back, see weft audit verify");
}

#[cfg(test)]
mod tests {
    use weft_db::{DbOptions, sql};

    use super::*;
    use crate::audit::verify::{Fault, FaultKind};
    use crate::store::audit::{AuditEvent, AuditKind, audit_insert};

    async fn log(folder: &std::path::Path, secrets: &SecretKeys, entries: i64) -> Db {
        let url = format!("sqlite://{}", folder.join("identity.db").display());
        let db = Db::connect(&DbOptions { url, schema: "identity", max_connections: 2 }).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        begin(&db, secrets, &["p"]).await.unwrap();
        for at in 1..=entries {
            let event = AuditEvent::of("p", AuditKind::Logout, "a", "r", at);
            db.write("log", async |tx: Tx| audit_insert(&tx, &event).await).await.unwrap();
        }
        db
    }

    /// Makes the whole chain anew, its head too, as somebody would who knows how.
    async fn chain_anew(db: &Db) {
        db.write("chain anew", async |tx: Tx| {
            let mut before = Vec::new();
            for row in audit_page(&tx, "p", 0, PAGE).await? {
                before = chain(&before, row.number, &row.entry().digest());
                sql("UPDATE audit_events SET hash = $2 WHERE id = $1").bind(&row.id).bind(&before).run(&tx).await?;
            }
            sql("UPDATE audit_heads SET hash = $1").bind(before).run(&tx).await
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_chain_that_was_made_anew_is_not_the_one_that_was_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (secrets, shutdown) = (SecretKeys::derive(&"a secret".into()), Shutdown::new());
        let db = log(folder.path(), &secrets, 5).await;
        seal(&db, &secrets, &shutdown).await.unwrap();
        assert!(look(&db, &secrets, "p").await.unwrap().is_ok());
        sql("UPDATE audit_events SET account_id = 'b' WHERE number = 2").run(&db).await.unwrap();
        chain_anew(&db).await;
        let edited = [Fault { number: 5, kind: FaultKind::Edited }];
        assert_eq!(look(&db, &secrets, "p").await.unwrap().faults, edited);
        // Nor does it go on as if nothing were.
        seal(&db, &secrets, &shutdown).await.unwrap();
        assert_eq!(look(&db, &secrets, "p").await.unwrap().faults, edited);
        let other = SecretKeys::derive(&"another secret".into());
        assert!(!look(&db, &other, "p").await.unwrap().is_ok(), "the seal needs the secret");
    }

    #[tokio::test]
    async fn a_damaged_entry_is_neither_sealed_nor_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (secrets, shutdown) = (SecretKeys::derive(&"a secret".into()), Shutdown::new());
        let db = log(folder.path(), &secrets, 5).await;
        seal(&db, &secrets, &shutdown).await.unwrap();
        sql("UPDATE audit_events SET account_id = 'b' WHERE number = 3").run(&db).await.unwrap();
        assert_eq!(prune(&db, &secrets, 4).await.unwrap(), 2);
        assert_eq!(prune(&db, &secrets, 4).await.unwrap(), 0);
        let report = look(&db, &secrets, "p").await.unwrap();
        assert_eq!((report.events, report.faults), (3, vec![Fault { number: 3, kind: FaultKind::Edited }]));
    }

    #[tokio::test]
    async fn only_what_was_sealed_is_deleted_and_a_whole_log_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let (secrets, shutdown) = (SecretKeys::derive(&"a secret".into()), Shutdown::new());
        let db = log(folder.path(), &secrets, 2003).await;
        assert_eq!(prune(&db, &secrets, 9_999).await.unwrap(), 0, "nobody has looked at it yet");
        seal(&db, &secrets, &shutdown).await.unwrap();
        let mut deleted = Vec::new();
        for _ in 0..4 {
            deleted.push(prune(&db, &secrets, 9_999).await.unwrap());
        }
        assert_eq!(deleted, [1000, 1000, 3, 0]);
        let report = look(&db, &secrets, "p").await.unwrap();
        assert_eq!((report.is_ok(), report.events, report.last_number), (true, 0, 2003));
    }
}
