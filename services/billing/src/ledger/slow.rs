//! A group in a transaction: reads all that it needs, under locks, decides and writes.
use std::collections::BTreeSet;

use weft_db::Tx;

use super::plan::{Account, Plan, Stop};
use super::{Done, Inner, Op, terms};
use crate::domain::idempotency::Key;
use crate::domain::spending::Spending;
use crate::error::Error;
use crate::store::batch::{batch_commit, batch_write};
use crate::store::hold::{hold_find, holds_find};
use crate::store::idempotency::{idempotency_find, idempotency_known};
use crate::store::spending::{KeyId, spending_find, spending_find_many};
use crate::store::wallet::{WalletId, wallet_create, wallet_find, wallets_create, wallets_lock};

/// What came of a group.
pub struct Group {
    /// For each operation.
    pub answers: Vec<Result<Done, Error>>,
    /// The wallets afterwards, with the version that each had before.
    pub accounts: Vec<(WalletId, i64, Account)>,
}

/// Performs the operations in their order; those that are refused leave no trace. Errors are of the whole group.
pub async fn perform(inner: &Inner, tx: &Tx, ops: &[&Op]) -> Result<Group, Error> {
    let mut plan = Plan::new(inner.clock.now_ms(), inner.shard);
    load_wallets(inner, tx, ops, &mut plan).await?;
    load_terms(inner, tx, ops, &mut plan).await?;
    load_holds(inner, tx, ops, &mut plan).await?;
    load_spending(inner, tx, ops, &mut plan).await?;
    let mut answers = load_keys(inner, tx, ops, &mut plan).await?;
    for (op, answer) in ops.iter().zip(&mut answers) {
        if answer.is_none() {
            *answer = Some(plan.perform(op).map_err(|stop| match stop {
                Stop::Refused(error) => error,
                // Everything that exists was read.
                Stop::Unknown => Error::NotFound("hold"),
            }));
        }
    }
    let (batch, accounts) = plan.finish(&inner.overdrafts);
    if inner.db.is_postgres() {
        if !batch.is_empty() && !batch_commit(tx, &batch).await? {
            return Err(Error::Busy);
        }
    } else {
        batch_write(tx, &batch).await?;
    }
    Ok(Group { answers: answers.into_iter().flatten().collect(), accounts })
}

/// The wallets that the operations are about. What may be the first thing to happen to an account makes its wallet.
async fn load_wallets(inner: &Inner, tx: &Tx, ops: &[&Op], plan: &mut Plan) -> Result<(), Error> {
    let mut ids: BTreeSet<WalletId> = BTreeSet::new();
    let mut made: BTreeSet<WalletId> = BTreeSet::new();
    for op in ops {
        let wallets = op.wallets();
        if op.act.hold_id().is_none() {
            made.extend(wallets.clone());
        }
        ids.extend(wallets);
    }
    if inner.db.is_postgres() {
        let ids: Vec<WalletId> = ids.into_iter().collect();
        let mut rows = wallets_lock(tx, &ids).await?;
        for row in &rows {
            made.remove(&row.id());
        }
        if !made.is_empty() {
            let made: Vec<WalletId> = made.into_iter().collect();
            wallets_create(tx, &made).await?;
            rows.extend(wallets_lock(tx, &made).await?);
        }
        for row in rows {
            plan.accounts.insert(row.id(), Account { wallet: row.wallet(), ..Account::default() });
        }
        return Ok(());
    }
    for id in ids {
        let mut wallet = wallet_find(tx, &id.0, &id.1).await?;
        if wallet.is_none() && made.contains(&id) {
            wallet_create(tx, &id.0, &id.1).await?;
            wallet = wallet_find(tx, &id.0, &id.1).await?;
        }
        if let Some(wallet) = wallet {
            plan.accounts.insert(id, Account { wallet, ..Account::default() });
        }
    }
    Ok(())
}

/// The plans' numbers where they may matter: for everything but the course of a hold, and on a new day.
async fn load_terms(inner: &Inner, tx: &Tx, ops: &[&Op], plan: &mut Plan) -> Result<(), Error> {
    let today = plan.today();
    let spends: BTreeSet<WalletId> =
        ops.iter().filter(|op| op.act.hold_id().is_none()).flat_map(|op| op.wallets()).collect();
    let matters = |id: &WalletId, account: &Account| account.wallet.day < today || spends.contains(id);
    let ids = plan.accounts.iter().filter(|(id, account)| matters(id, account)).map(|(id, _)| id.clone()).collect();
    for (id, terms) in terms::read(inner, tx, &ids).await? {
        if let Some(account) = plan.accounts.get_mut(&id) {
            account.terms = Some(terms);
        }
    }
    Ok(())
}

async fn load_holds(inner: &Inner, tx: &Tx, ops: &[&Op], plan: &mut Plan) -> Result<(), Error> {
    let asked =
        ops.iter().filter_map(|op| Some((op.product.clone(), op.user_id.clone(), op.act.hold_id()?.to_owned())));
    let asked: BTreeSet<(String, String, String)> = asked.collect();
    let mut rows = Vec::new();
    if asked.is_empty() {
        return Ok(());
    } else if inner.db.is_postgres() {
        rows = holds_find(tx, &asked.into_iter().collect::<Vec<_>>()).await?;
    } else {
        for (product, user_id, id) in asked {
            rows.extend(hold_find(tx, &product, &user_id, &id).await?);
        }
    }
    for (wallet, hold) in rows.into_iter().map(crate::store::hold::HoldRow::into_parts) {
        if let Some(account) = plan.accounts.get_mut(&wallet) {
            account.holds.insert(hold.id.clone(), hold);
        }
    }
    Ok(())
}

/// What API keys have spent that ask, or whose holds are about to end.
async fn load_spending(inner: &Inner, tx: &Tx, ops: &[&Op], plan: &mut Plan) -> Result<(), Error> {
    let mut asked: BTreeSet<KeyId> = BTreeSet::new();
    for op in ops {
        let (id, account) = (op.wallet(), plan.accounts.get(&op.wallet()));
        let hold = op.act.hold_id().and_then(|hold_id| account?.holds.get(hold_id));
        let key_id = op.act.key_id().or(hold.map(|hold| hold.key_id.as_str()));
        asked.extend(key_id.filter(|key_id| !key_id.is_empty()).map(|key_id| (id.0, id.1, key_id.to_owned())));
    }
    let mut rows = Vec::new();
    if asked.is_empty() {
        return Ok(());
    } else if inner.db.is_postgres() {
        rows = spending_find_many(tx, &asked.iter().cloned().collect::<Vec<_>>()).await?;
    } else {
        for key in &asked {
            rows.extend(spending_find(tx, key).await?);
        }
    }
    // Those of which there is nothing have spent nothing.
    for (product, user_id, key_id) in asked {
        if let Some(account) = plan.accounts.get_mut(&(product, user_id)) {
            account.spending.insert(key_id, Spending::default());
        }
    }
    for (wallet, key_id, spending) in rows.into_iter().map(crate::store::spending::SpendingRow::into_parts) {
        if let Some(account) = plan.accounts.get_mut(&wallet) {
            account.spending.insert(key_id, spending);
        }
    }
    Ok(())
}

/// The keys that have an answer. Refusals that a key alone decides are answered here.
async fn load_keys(
    inner: &Inner,
    tx: &Tx,
    ops: &[&Op],
    plan: &mut Plan,
) -> Result<Vec<Option<Result<Done, Error>>>, Error> {
    let mut answers: Vec<Option<Result<Done, Error>>> = ops.iter().map(|_| None).collect();
    let keys: Vec<&Key> = ops.iter().filter_map(|op| op.key.as_ref()).collect();
    if keys.is_empty() {
        return Ok(answers);
    }
    if inner.db.is_postgres() {
        let rows = idempotency_known(tx, &keys).await?;
        for row in rows {
            if let Some(key) = keys.iter().find(|key| row.is(key)) {
                plan.know(key, &row.request, row.answer);
            }
        }
        return Ok(answers);
    }
    for (op, answer) in ops.iter().zip(&mut answers) {
        let Some(key) = &op.key else { continue };
        match idempotency_find(tx, key).await {
            Ok(Some(bytes)) => plan.know(key, &key.request, bytes),
            Ok(None) => {}
            Err(Error::IdempotencyKeyReused) => *answer = Some(Err(Error::IdempotencyKeyReused)),
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}
