//! What a group of operations does to wallets that are known: all decisions, no I/O.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;
use weft_core::{Seldom, new_id};

use super::{Act, Done, Op, answer};
use crate::domain::day::day_of;
use crate::domain::hold::{Hold, State};
use crate::domain::idempotency::Key;
use crate::domain::ledger::{Bucket, Entry, Kind};
use crate::domain::spending::{KeyBudget, Spending};
use crate::domain::wallet::{INITIAL, Movement, Refusal, Wallet};
use crate::error::Error;
use crate::store::batch::{Batch, NewEntry};
use crate::store::wallet::WalletId;

/// A wallet with what is known about it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// As it is, with the changes of this group.
    pub wallet: Wallet,
    /// What the plan gives; none if it was not asked for, or too long ago.
    pub terms: Option<Terms>,
    /// Some of its holds: all that the group needs, if they exist.
    pub holds: HashMap<String, Hold>,
    /// What some of its API keys have spent.
    pub spending: HashMap<String, Spending>,
}

/// What a plan gives, in micro-credits.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Once.
    pub initial: i64,
    /// Each UTC day.
    pub daily: i64,
    /// When the tables said so.
    pub read_at: Instant,
}

/// Why an operation is not part of the group.
#[derive(Debug)]
pub enum Stop {
    /// It may not happen.
    Refused(Error),
    /// What is known does not say.
    Unknown,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Refused(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(match refusal {
            Refusal::Insufficient { needed, available } => Error::InsufficientCredits { needed, available },
            Refusal::TooMuch => Error::Invalid("amount is more than the wallet can take".to_owned()),
            Refusal::Ended(state) => Error::NotNow(format!("the hold was {}, make a new one", state.as_str())),
        })
    }
}

type KeyId = (String, String, &'static str, String);

struct Known {
    request: [u8; 32],
    answer: Vec<u8>,
}

/// A group in the making.
pub struct Plan {
    /// The wallets.
    pub accounts: HashMap<WalletId, Account>,
    known: HashMap<KeyId, Known>,
    /// The version that each changed wallet has in the table.
    changed: BTreeMap<WalletId, i64>,
    /// Which of the changed holds are not in the table.
    opened: BTreeSet<String>,
    changed_holds: BTreeSet<(WalletId, String)>,
    changed_spending: BTreeSet<(WalletId, String)>,
    batch: Batch,
    /// Holds that did not cover what their call has cost.
    capped: Vec<String>,
}

impl Plan {
    /// Nothing yet.
    pub fn new(now_ms: i64, shard: i64) -> Plan {
        Plan {
            accounts: HashMap::new(),
            known: HashMap::new(),
            changed: BTreeMap::new(),
            opened: BTreeSet::new(),
            changed_holds: BTreeSet::new(),
            changed_spending: BTreeSet::new(),
            batch: Batch { now_ms, shard, ..Batch::default() },
            capped: Vec::new(),
        }
    }

    /// The UTC day.
    pub fn today(&self) -> i64 {
        day_of(self.batch.now_ms)
    }

    /// A key that has an answer already.
    pub fn know(&mut self, key: &Key, request: &[u8], answer: Vec<u8>) {
        // A request that cannot be a hash is nobody's.
        let request = request.try_into().unwrap_or_default();
        self.known.insert(key_id(key), Known { request, answer });
    }

    /// Adds an operation, all of it or nothing.
    pub fn perform(&mut self, op: &Op) -> Result<Done, Stop> {
        if let Some(done) = self.repeated(op)? {
            return Ok(done);
        }
        let id = (op.product.clone(), op.user_id.clone());
        // The day's credits depend on the plan, and that on which of the payer's events have arrived: a wallet learns
        // of its plan when it is next used or read, so that no order of events matters.
        if !is_payments(&op.act) {
            self.refresh(&id)?;
        }
        let wallet = self.account(&id)?.wallet;
        let done = match &op.act {
            Act::Touch => self.done(&id, String::new(), None)?,
            Act::Reserve { amount, ttl_ms, key } => self.reserve(&id, *amount, *ttl_ms, key.as_ref(), &op.reference)?,
            Act::Progress { hold_id, progress, ttl_ms } => self.progress(&id, hold_id, *progress, *ttl_ms)?,
            Act::Settle { hold_id, amount } => self.end(&id, hold_id, State::Settled, *amount, &op.reference)?,
            Act::Void { hold_id } => self.end(&id, hold_id, State::Voided, 0, &op.reference)?,
            Act::Expire { hold_id } => self.expire(&id, hold_id, &op.reference)?,
            Act::Transfer { to, amount } => self.transfer(&id, to, *amount, &op.reference)?,
            Act::Grant { bucket, amount, kind } => {
                self.moving(&id, wallet, &op.reference, |wallet| wallet.give(*bucket, *amount, *kind))?
            }
            Act::Debit { amount, kind } => {
                self.moving(&id, wallet, &op.reference, |wallet| wallet.take(*amount, *kind))?
            }
            Act::ClawBack { bucket, amount } => {
                self.moving(&id, wallet, &op.reference, |wallet| wallet.claw_back(*bucket, *amount))?
            }
            Act::Restore { bucket, amount } => {
                self.moving(&id, wallet, &op.reference, |wallet| wallet.restore(*bucket, *amount))?
            }
        };
        if let Some(key) = &op.key {
            let answer = done.encode();
            self.know(key, &key.request, answer.clone());
            self.batch.keys.push((key.clone(), answer));
        }
        Ok(done)
    }

    /// What is to be written, and the wallets with the version that each had before. The operations that were added
    /// have happened once it is.
    pub fn finish(self, overdrafts: &Seldom) -> (Batch, Vec<(WalletId, i64, Account)>) {
        let Plan { mut accounts, changed, opened, changed_holds, changed_spending, mut batch, capped, .. } = self;
        for (id, before) in &changed {
            if let Some(account) = accounts.get_mut(id) {
                account.wallet.version = before + 1;
                batch.wallets.push((id.clone(), *before, account.wallet));
            }
        }
        for (id, hold_id) in changed_holds {
            if let Some(hold) = accounts.get(&id).and_then(|account| account.holds.get(&hold_id)) {
                let part = if opened.contains(&hold_id) { &mut batch.opened } else { &mut batch.holds };
                part.push((id, hold.clone()));
            }
        }
        for (id, key_id) in changed_spending {
            if let Some(spending) = accounts.get(&id).and_then(|account| account.spending.get(&key_id)) {
                batch.spending.push((id, key_id, *spending));
            }
        }
        for hold_id in capped {
            metrics::counter!("weft_billing_holds_capped_total").increment(1);
            if let Some(left_out) = overdrafts.turn(batch.now_ms) {
                tracing::error!(
                    hold_id,
                    left_out,
                    "a call has cost more than its hold covers, only the hold is charged"
                );
            }
        }
        let before = |id: &WalletId, account: &Account| changed.get(id).copied().unwrap_or(account.wallet.version);
        let accounts = accounts.into_iter().map(|(id, account)| (before(&id, &account), id, account));
        (batch, accounts.map(|(before, id, account)| (id, before, account)).collect())
    }

    /// The answer of an earlier call with the same key.
    fn repeated(&self, op: &Op) -> Result<Option<Done>, Stop> {
        let Some(key) = &op.key else { return Ok(None) };
        match self.known.get(&key_id(key)) {
            None => Ok(None),
            Some(known) if known.request != key.request => Err(Error::IdempotencyKeyReused.into()),
            Some(known) => Done::decode(&known.answer).map(Some).ok_or(Stop::Refused(Error::IdempotencyKeyReused)),
        }
    }

    fn account(&self, id: &WalletId) -> Result<&Account, Stop> {
        self.accounts.get(id).ok_or(Stop::Unknown)
    }

    fn hold(&self, id: &WalletId, hold_id: &str) -> Result<Hold, Stop> {
        self.account(id)?.holds.get(hold_id).cloned().ok_or(Stop::Unknown)
    }

    fn spending(&self, id: &WalletId, key_id: &str) -> Result<Spending, Stop> {
        self.account(id)?.spending.get(key_id).copied().ok_or(Stop::Unknown)
    }

    /// Keeps what an API key has spent. Written with the wallet, whose version says whether it is still so.
    fn spend(&mut self, id: &WalletId, key_id: &str, spending: Spending) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.spending.insert(key_id.to_owned(), spending);
            self.changed_spending.insert((id.clone(), key_id.to_owned()));
        }
    }

    /// The first use of a day, or of the wallet, or after a raise.
    fn refresh(&mut self, id: &WalletId) -> Result<(), Stop> {
        let today = self.today();
        let account = self.account(id)?;
        let before = account.wallet;
        let Some(terms) = account.terms else {
            return if before.day < today { Err(Stop::Unknown) } else { Ok(()) };
        };
        let mut wallet = before;
        if before.day == 0 && terms.initial > 0 {
            let moved = wallet.give(Bucket::Bonus, terms.initial, Kind::Grant)?;
            self.post(id, wallet, &moved, INITIAL)?;
            wallet = self.account(id)?.wallet;
        }
        let moved = wallet.refresh(today, terms.daily)?;
        if wallet.day != before.day || !moved.is_empty() {
            self.post(id, wallet, &moved, "")?;
        }
        Ok(())
    }

    fn moving(
        &mut self,
        id: &WalletId,
        mut wallet: Wallet,
        reference: &str,
        rule: impl FnOnce(&mut Wallet) -> Result<Vec<Movement>, Refusal>,
    ) -> Result<Done, Stop> {
        let moved = rule(&mut wallet)?;
        let first = self.post(id, wallet, &moved, reference)?;
        self.done(id, first, None)
    }

    fn reserve(
        &mut self,
        id: &WalletId,
        amount: i64,
        ttl_ms: i64,
        key: Option<&KeyBudget>,
        reference: &str,
    ) -> Result<Done, Stop> {
        let mut wallet = self.account(id)?.wallet;
        let held = match key {
            Some(key) => Some((&key.key_id, self.under_budget(id, amount, key)?)),
            None => None,
        };
        let [daily, bonus, purchased] = wallet.reserve(amount)?;
        let now_ms = self.batch.now_ms;
        let hold = Hold {
            id: new_id(),
            daily,
            bonus,
            purchased,
            day: wallet.day,
            ttl_ms,
            created_at: now_ms,
            expires_at: now_ms.saturating_add(ttl_ms),
            reference: reference.to_owned(),
            key_id: key.map_or_else(String::new, |key| key.key_id.clone()),
            ..Hold::default()
        };
        self.post(id, wallet, &[], reference)?;
        if let Some((key_id, spending)) = held {
            self.spend(id, key_id, spending);
        }
        self.opened.insert(hold.id.clone());
        self.with_hold(id, String::new(), hold)
    }

    /// What an API key has spent once it holds so much more, if its budget allows that.
    fn under_budget(&self, id: &WalletId, amount: i64, key: &KeyBudget) -> Result<Spending, Stop> {
        let before = self.spending(id, &key.key_id)?;
        before.hold(amount, key.limit).ok_or_else(|| {
            let limit = key.limit.unwrap_or(i64::MAX);
            let left = before.left(limit);
            Stop::Refused(match before.spent.saturating_add(amount) <= limit {
                // Calls that run have set it aside, and will give most of it back.
                true => Error::KeyBudgetHeld,
                false => Error::KeyBudgetExceeded { needed: amount, left },
            })
        })
    }

    fn progress(&mut self, id: &WalletId, hold_id: &str, progress: i64, ttl_ms: i64) -> Result<Done, Stop> {
        let mut hold = self.hold(id, hold_id)?;
        if hold.state != State::Open {
            return Err(Refusal::Ended(hold.state).into());
        }
        hold.progress = hold.progress.max(progress.min(hold.amount()));
        let ttl_ms = if ttl_ms > 0 { ttl_ms } else { hold.ttl_ms };
        hold.expires_at = self.batch.now_ms.saturating_add(ttl_ms);
        self.post(id, self.account(id)?.wallet, &[], "")?;
        self.with_hold(id, String::new(), hold)
    }

    fn end(&mut self, id: &WalletId, hold_id: &str, state: State, cost: i64, reference: &str) -> Result<Done, Stop> {
        let mut hold = self.hold(id, hold_id)?;
        if hold.state == state && hold.reported == cost {
            return self.done(id, String::new(), Some(&hold));
        }
        if hold.state == State::Settled && state == State::Settled {
            let charged = "the hold was settled with another amount, make a new one";
            return Err(Error::NotNow(charged.to_owned()).into());
        }
        let mut wallet = self.account(id)?.wallet;
        let spending = if hold.key_id.is_empty() { None } else { Some(self.spending(id, &hold.key_id)?) };
        let moved = wallet.charge(&mut hold, cost, state)?;
        if hold.capped {
            self.capped.push(hold.id.clone());
        }
        let reference = if reference.is_empty() { hold.reference.clone() } else { reference.to_owned() };
        let first = self.post(id, wallet, &moved, &reference)?;
        if let Some(spending) = spending {
            self.spend(id, &hold.key_id, spending.end(&hold));
        }
        self.with_hold(id, first, hold)
    }

    fn expire(&mut self, id: &WalletId, hold_id: &str, reference: &str) -> Result<Done, Stop> {
        let hold = self.hold(id, hold_id)?;
        if hold.state != State::Open || hold.expires_at > self.batch.now_ms {
            return self.done(id, String::new(), Some(&hold));
        }
        self.end(id, hold_id, State::Expired, hold.progress, reference)
    }

    fn transfer(&mut self, from: &WalletId, to: &str, amount: i64, reference: &str) -> Result<Done, Stop> {
        let to = (from.0.clone(), to.to_owned());
        if *from == to {
            return Err(Error::Invalid("to_user_id must be another account".to_owned()).into());
        }
        self.refresh(&to)?;
        let (mut giving, mut getting) = (self.account(from)?.wallet, self.account(&to)?.wallet);
        let (parts, out) = giving.send(amount)?;
        let into = getting.receive(parts)?;
        let first = self.post(from, giving, &out, reference)?;
        self.post(&to, getting, &into, reference)?;
        self.done(from, first, None)
    }

    /// Keeps what happened to a wallet; answers the id of the first movement.
    fn post(&mut self, id: &WalletId, mut wallet: Wallet, moved: &[Movement], reference: &str) -> Result<String, Stop> {
        let account = self.accounts.get_mut(id).ok_or(Stop::Unknown)?;
        wallet.updated_at = wallet.updated_at.max(self.batch.now_ms);
        let mut first = String::new();
        for movement in moved {
            let Movement { bucket, kind, amount, balance_after } = *movement;
            wallet.seq += 1;
            let entry_id = new_id();
            let entry = Entry {
                product: &id.0,
                user_id: &id.1,
                seq: wallet.seq,
                id: &entry_id,
                bucket: bucket.as_str(),
                kind: kind.as_str(),
                account: kind.account(),
                amount,
                balance_after,
                reference,
                created_at: wallet.updated_at,
            };
            wallet.head = entry.hash(&wallet.head);
            let total = self.batch.totals.entry((id.0.clone(), kind.account())).or_default();
            *total = total.saturating_sub(amount);
            if first.is_empty() {
                first.clone_from(&entry_id);
            }
            self.batch.entries.push(NewEntry {
                wallet: id.clone(),
                seq: wallet.seq,
                id: entry_id,
                bucket,
                kind,
                amount,
                balance_after,
                reference: reference.to_owned(),
                created_at: wallet.updated_at,
                hash: wallet.head,
            });
        }
        self.changed.entry(id.clone()).or_insert(account.wallet.version);
        account.wallet = wallet;
        Ok(first)
    }

    fn with_hold(&mut self, id: &WalletId, first: String, hold: Hold) -> Result<Done, Stop> {
        let done = self.done(id, first, Some(&hold))?;
        self.changed_holds.insert((id.clone(), hold.id.clone()));
        if let Some(account) = self.accounts.get_mut(id) {
            account.holds.insert(hold.id.clone(), hold);
        }
        Ok(done)
    }

    fn done(&self, id: &WalletId, transaction_id: String, hold: Option<&Hold>) -> Result<Done, Stop> {
        let balance = answer::balance(&self.account(id)?.wallet, self.today());
        Ok(Done { transaction_id, balance, hold: hold.map(|hold| answer::hold(id, hold)) })
    }
}

fn key_id(key: &Key) -> KeyId {
    (key.product.clone(), key.user_id.clone(), key.method, key.key.clone())
}

/// Whether it is an event of the payment provider that does this.
fn is_payments(act: &Act) -> bool {
    matches!(
        act,
        Act::Grant { kind: Kind::Purchase | Kind::SubscriptionBonus, .. } | Act::ClawBack { .. } | Act::Restore { .. }
    )
}
