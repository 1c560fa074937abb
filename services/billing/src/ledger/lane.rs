//! A lane: everything that waits is committed as one group, one group after the other.
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use weft_db::{DbError, Held, Tx};

use super::memory::Memory;
use super::plan::{Account, Plan};
use super::slow::{self, Group};
use super::{Act, Done, Inner, Op, terms};
use crate::domain::hold::State;
use crate::error::Error;
use crate::gather::Waiting;
use crate::store::batch::batch_commit;
use crate::store::wallet::WalletId;

/// A plan's numbers are trusted for this long, as everywhere in the mesh.
const TERMS_LIVE: Duration = Duration::from_secs(1);
/// API keys of a wallet that are remembered: more than an account has.
const MAX_KEYS: usize = 64;

/// An operation and who waits for it.
pub struct Job {
    /// What.
    pub op: Op,
    /// To whom.
    pub answer: oneshot::Sender<Result<Done, Error>>,
}

/// Its end of the queue and what it remembers.
pub struct Lane {
    inner: Arc<Inner>,
    waiting: Waiting<Job>,
    memory: Memory,
    /// Where groups are committed.
    held: Held,
}

impl Lane {
    /// A lane that knows nothing yet.
    pub fn new(inner: Arc<Inner>, waiting: Waiting<Job>) -> Lane {
        let held = inner.db.held();
        Lane { inner, waiting, memory: Memory::default(), held }
    }

    /// Works until nobody can send any more, or nobody does after the shutdown.
    pub async fn run(mut self) {
        while let Some(jobs) = self.waiting.group().await {
            self.work(jobs).await;
        }
    }

    async fn work(&mut self, jobs: Vec<Job>) {
        metrics::histogram!("weft_billing_group_operations").record(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        // Who no longer waits would still be charged; that is for the idempotency key to find out.
        let rest = if self.inner.db.is_postgres() { self.fast(jobs).await } else { jobs };
        if !rest.is_empty() {
            self.slow(rest).await;
        }
    }

    /// Commits in one round trip what memory can decide; answers the operations that it cannot, or that did not
    /// happen because memory was wrong.
    async fn fast(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let mut plan = Plan::new(self.inner.clock.now_ms(), self.inner.shard);
        self.remember(&jobs, &mut plan).await;
        let (mut done, mut rest) = (Vec::new(), Vec::new());
        for job in jobs {
            // What is refused by memory is refused by the tables, or not at all.
            let performed = if job.op.is_fast() { plan.perform(&job.op).ok() } else { None };
            match performed {
                Some(answer) => done.push((job, answer)),
                None => rest.push(job),
            }
        }
        let (batch, accounts) = plan.finish(&self.inner.overdrafts);
        if done.is_empty() || batch.is_empty() {
            if batch.is_empty() {
                self.keep(accounts);
            }
            rest.extend(done.into_iter().map(|(job, _)| job));
            return rest;
        }
        match batch_commit(&self.held, &batch).await {
            Ok(true) => {
                self.keep(accounts);
                done.into_iter().for_each(|(job, answer)| tell(job, Ok(answer)));
            }
            Err(Error::Database(error)) if error.is_unavailable() => {
                tracing::warn!(%error, operations = done.len(), "it is not known whether a group was committed");
                done.into_iter().for_each(|(job, _)| tell(job, Err(Error::Unsure)));
            }
            // Somebody else has changed a wallet, or a key was used before.
            _ => rest.extend(done.into_iter().map(|(job, _)| job)),
        }
        rest
    }

    /// What is known about the wallets of these operations.
    async fn remember(&mut self, jobs: &[Job], plan: &mut Plan) {
        let mut old = BTreeSet::new();
        for job in jobs.iter().filter(|job| job.op.is_fast()) {
            let id = job.op.wallet();
            if let Some(mut account) = self.memory.take(&id) {
                account.terms = account.terms.filter(|terms| terms.read_at.elapsed() < TERMS_LIVE);
                plan.accounts.insert(id.clone(), account);
            }
            let stale = |account: &Account| account.terms.is_none();
            if job.op.act.hold_id().is_none() && plan.accounts.get(&id).is_some_and(stale) {
                old.insert(id);
            }
        }
        match terms::read(&self.inner, &self.inner.db, &old).await {
            Ok(read) => {
                for (id, terms) in read {
                    if let Some(account) = plan.accounts.get_mut(&id) {
                        account.terms = Some(terms);
                    }
                }
            }
            // Without them the wallets are not known well enough; the slow path says what is wrong.
            Err(error) => {
                tracing::debug!(%error, "the plans' numbers cannot be read");
                old.iter().for_each(|id| drop(plan.accounts.remove(id)));
            }
        }
    }

    /// Performs what is left in a transaction.
    async fn slow(&mut self, jobs: Vec<Job>) {
        let known: HashMap<WalletId, Account> = jobs
            .iter()
            .flat_map(|job| job.op.wallets())
            .filter_map(|id| self.memory.take(&id).map(|account| (id, account)))
            .collect();
        match self.transaction(&jobs).await {
            Ok(Group { answers, accounts }) => {
                if self.inner.db.is_postgres() {
                    self.keep_with(accounts, known);
                }
                jobs.into_iter().zip(answers).for_each(|(job, answer)| tell(job, answer));
            }
            Err(Error::Database(error)) if error.is_unavailable() => {
                tracing::warn!(%error, operations = jobs.len(), "it is not known whether a group was committed");
                jobs.into_iter().for_each(|job| tell(job, Err(Error::Unsure)));
            }
            Err(Error::Database(DbError::Conflict(_) | DbError::RolledBack) | Error::Busy) => {
                jobs.into_iter().for_each(|job| tell(job, Err(Error::Busy)));
            }
            // One of them cannot be written; the others are not to blame.
            Err(error) if jobs.len() > 1 => {
                tracing::error!(%error, operations = jobs.len(), "a group failed, trying one by one");
                for job in jobs {
                    let alone = self.transaction(std::slice::from_ref(&job)).await;
                    let answer = alone.and_then(|group| group.answers.into_iter().next().unwrap_or(Err(Error::Busy)));
                    tell(job, answer);
                }
            }
            Err(error) => {
                if let Some(job) = jobs.into_iter().next() {
                    tell(job, Err(error));
                }
            }
        }
    }

    async fn transaction(&self, jobs: &[Job]) -> Result<Group, Error> {
        let ops: Vec<&Op> = jobs.iter().map(|job| &job.op).collect();
        self.inner.db.write("ledger", async |tx: Tx| slow::perform(&self.inner, &tx, &ops).await).await
    }

    fn keep(&mut self, accounts: Vec<(WalletId, i64, Account)>) {
        for (id, _, mut account) in accounts {
            // Whoever asks about one that has ended is told from the table.
            account.holds.retain(|_, hold| hold.state == State::Open);
            if account.spending.len() > MAX_KEYS {
                account.spending.clear();
            }
            self.memory.put(id, account);
        }
    }

    /// The same, with the holds of wallets that nobody else has changed since they were remembered.
    fn keep_with(&mut self, mut accounts: Vec<(WalletId, i64, Account)>, mut known: HashMap<WalletId, Account>) {
        for (id, before, account) in &mut accounts {
            if let Some(known) = known.remove(id)
                && known.wallet.version == *before
            {
                for (hold_id, hold) in known.holds {
                    account.holds.entry(hold_id).or_insert(hold);
                }
                for (key_id, spending) in known.spending {
                    account.spending.entry(key_id).or_insert(spending);
                }
            }
        }
        self.keep(accounts);
    }
}

impl Op {
    /// Whether memory may decide it: what concerns one wallet, and happens often.
    fn is_fast(&self) -> bool {
        !matches!(
            self.act,
            Act::Touch | Act::Transfer { .. } | Act::ClawBack { .. } | Act::Restore { .. } | Act::Expire { .. }
        )
    }
}

fn tell(job: Job, answer: Result<Done, Error>) {
    // Whoever asked may have gone; what happened is under the key.
    let _gone = job.answer.send(answer);
}
