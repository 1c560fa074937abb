//! Where credits move: callers' operations are committed in groups, each exactly once.
//!
//! An operation waits in the queue of its wallet's lane. The lane takes all that waits, decides it (`plan`), commits it
//! as one and only then answers. On PostgreSQL a lane remembers the wallets that it uses and commits what it can decide
//! from memory in one statement, which does nothing if a wallet has changed meanwhile; everything else, every refusal,
//! and all on SQLite, goes through a transaction that reads under locks (`slow`).
mod answer;
mod lane;
mod memory;
mod plan;
mod slow;
mod terms;
#[cfg(test)]
mod tests;
pub mod verify;

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weft_core::{Clock, Seldom};
use weft_db::{Db, DbError, Tx};
use weft_product::Products;
use weft_proto::billing::v1;
use weft_runtime::Mesh;

use crate::domain::day::day_of;
use crate::domain::idempotency::Key;
use crate::domain::ledger::{Bucket, Kind};
use crate::domain::spending::KeyBudget;
use crate::error::Error;
use crate::gather::Waiting;
use crate::store::batch::SHARDS;
use crate::store::wallet::{WalletId, wallet_find};

use self::lane::{Job, Lane};

/// Something that is to happen to a wallet.
#[derive(Clone, Debug)]
pub struct Op {
    /// Slug of a product that exists.
    pub product: String,
    /// Whose wallet.
    pub user_id: String,
    /// So that it happens once; an operation on a hold needs none.
    pub key: Option<Key>,
    /// What for; kept in the ledger.
    pub reference: String,
    /// What.
    pub act: Act,
}

/// What happens. Amounts are micro-credits, checked by `domain::amount`.
#[derive(Clone, Debug)]
pub enum Act {
    /// Brings the daily bucket up to date, and makes the wallet if there is none.
    Touch,
    /// Gives.
    Grant {
        /// To which bucket, bonus or purchased.
        bucket: Bucket,
        /// How much.
        amount: i64,
        /// Why. Whatever it is, what is owed is paid first.
        kind: Kind,
    },
    /// Takes from daily, bonus, purchased in this order.
    Debit {
        /// How much.
        amount: i64,
        /// Why; a [`Kind::Adjustment`] leaves daily alone.
        kind: Kind,
    },
    /// Sets aside.
    Reserve {
        /// How much; may be 0.
        amount: i64,
        /// For how long without a sign of life, in ms.
        ttl_ms: i64,
        /// The API key that asks, if one does.
        key: Option<KeyBudget>,
    },
    /// Raises a hold's mark and gives it time.
    Progress {
        /// The hold.
        hold_id: String,
        /// What was delivered so far.
        progress: i64,
        /// From now, in ms; 0 is what it was made with.
        ttl_ms: i64,
    },
    /// Ends a hold and charges.
    Settle {
        /// The hold.
        hold_id: String,
        /// What the call has cost; more than the hold is charged up to it.
        amount: i64,
    },
    /// Ends a hold without a charge.
    Void {
        /// The hold.
        hold_id: String,
    },
    /// Ends a hold at its mark if its time is over.
    Expire {
        /// The hold.
        hold_id: String,
    },
    /// Moves bonus, then purchased, to another account.
    Transfer {
        /// The account.
        to: String,
        /// How much.
        amount: i64,
    },
    /// Takes what is unspent of the bucket, then of the other paid one; the rest becomes debt.
    ClawBack {
        /// Bonus or purchased.
        bucket: Bucket,
        /// How much.
        amount: i64,
    },
    /// Undoes a claw-back: what is owed first, the rest to the bucket.
    Restore {
        /// The one that it was clawed back from.
        bucket: Bucket,
        /// How much.
        amount: i64,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Id of the first movement in the wallet; empty if nothing moved.
    pub transaction_id: String,
    /// The wallet afterwards.
    pub balance: v1::Balance,
    /// The hold that it was about.
    pub hold: Option<v1::Hold>,
}

impl Act {
    /// The hold that it is about, if it is about one that exists.
    fn hold_id(&self) -> Option<&str> {
        match self {
            Act::Progress { hold_id, .. }
            | Act::Settle { hold_id, .. }
            | Act::Void { hold_id }
            | Act::Expire { hold_id } => Some(hold_id),
            _ => None,
        }
    }

    /// The API key that it asks for, if it is known without a look at a hold.
    fn key_id(&self) -> Option<&str> {
        match self {
            Act::Reserve { key: Some(key), .. } => Some(&key.key_id),
            _ => None,
        }
    }
}

impl Op {
    fn wallet(&self) -> WalletId {
        (self.product.clone(), self.user_id.clone())
    }

    /// Every wallet that it changes.
    fn wallets(&self) -> Vec<WalletId> {
        let mut wallets = vec![self.wallet()];
        if let Act::Transfer { to, .. } = &self.act {
            wallets.push((self.product.clone(), to.clone()));
        }
        wallets
    }

    /// Refuses what would fail the whole group.
    fn check(&self, products: &Products) -> Result<(), Error> {
        if products.get(&self.product).is_none() {
            return Err(Error::UnknownProduct(self.product.clone()));
        }
        let key = self.key.as_ref().map_or("", |key| &key.key);
        let to = if let Act::Transfer { to, .. } = &self.act { to } else { "" };
        let (hold_id, key_id) = (self.act.hold_id().unwrap_or_default(), self.act.key_id().unwrap_or_default());
        let texts = [&self.user_id, &self.reference, hold_id, key_id, key, to];
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(DbError::NulInText.into());
        }
        if self.user_id.is_empty() { Err(Error::NoUser) } else { Ok(()) }
    }
}

/// Lanes on PostgreSQL: while one waits for its commit another fills.
const POSTGRES_LANES: usize = 2;

/// The ledger of this process. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
    lanes: Arc<[mpsc::Sender<Job>]>,
}

struct Inner {
    db: Db,
    products: Arc<Products>,
    clock: Clock,
    /// Our part of the totals.
    shard: i64,
    /// Calls that have cost more than their holds.
    overdrafts: Seldom,
}

impl Ledger {
    /// Starts its lanes among the background work of `mesh`.
    pub fn start(db: &Db, mesh: &Mesh, products: &Arc<Products>) -> Ledger {
        let shard = i64::try_from(RandomState::new().hash_one(0) % SHARDS.unsigned_abs()).unwrap_or(0);
        let inner = Arc::new(Inner {
            db: db.clone(),
            products: Arc::clone(products),
            clock: mesh.clock().clone(),
            shard,
            overdrafts: Seldom::default(),
        });
        let lanes = if db.is_postgres() { POSTGRES_LANES } else { 1 };
        let lanes = (0..lanes).map(|_| {
            let (jobs, waiting) = Waiting::new(mesh.shutdown());
            let lane = Lane::new(Arc::clone(&inner), waiting);
            mesh.tasks().spawn("ledger", lane.run());
            jobs
        });
        let lanes = lanes.collect();
        Ledger { inner, lanes }
    }

    /// Does it together with whatever else is waiting; `Ok` only once it is durable.
    ///
    /// # Errors
    /// Refusals; [`Error::Overloaded`] at once if too much waits; [`Error::Unsure`] if it may or may not have happened.
    pub async fn submit(&self, op: Op) -> Result<Done, Error> {
        op.check(&self.inner.products)?;
        let mut hasher = DefaultHasher::new();
        (&op.product, &op.user_id).hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % (self.lanes.len() as u64)).unwrap_or(0);
        let (answer, done) = oneshot::channel();
        self.lanes[lane].try_send(Job { op, answer }).map_err(|_| Error::Overloaded)?;
        done.await.unwrap_or(Err(Error::Unsure))
    }

    /// The same inside a transaction of the caller's: its effects and these movements commit together. In their order;
    /// the first that is refused ends all.
    ///
    /// # Errors
    /// Refusals, and the database.
    pub async fn apply(&self, tx: &Tx, ops: Vec<Op>) -> Result<Vec<Done>, Error> {
        for op in &ops {
            op.check(&self.inner.products)?;
        }
        let ops: Vec<&Op> = ops.iter().collect();
        slow::perform(&self.inner, tx, &ops).await?.answers.into_iter().collect()
    }

    /// What an account can spend. Only reads, unless its daily bucket is due.
    ///
    /// # Errors
    /// The database.
    pub async fn balance(&self, product: &str, user_id: &str) -> Result<v1::Balance, Error> {
        let Inner { db, clock, .. } = &*self.inner;
        let wallet = wallet_find(db, product, user_id).await?;
        let id = (product.to_owned(), user_id.to_owned());
        let terms = terms::read(&self.inner, db, &[id].into()).await?.into_values().next();
        let (initial, daily) = terms.map_or((0, 0), |terms| (terms.initial, terms.daily));
        let today = day_of(clock.now_ms());
        let is_due = wallet.map_or(initial > 0 || daily > 0, |wallet| wallet.is_due(today, initial, daily));
        if !is_due {
            return Ok(answer::balance(&wallet.unwrap_or_default(), today));
        }
        let (product, user_id) = (product.to_owned(), user_id.to_owned());
        let touch = Op { product, user_id, key: None, reference: String::new(), act: Act::Touch };
        Ok(self.submit(touch).await?.balance)
    }
}
