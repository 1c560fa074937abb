//! Sequences of operations against a small model that knows nothing of the ledger.
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use weft_db::{DbOptions, sql};
use weft_runtime::{MeshConfig, Shutdown};
use weft_testing::{Database, on_both_databases};

use super::*;

on_both_databases! {
    any_sequence_leaves_what_a_simple_model_says
}

/// What the free plan of `companion` gives.
const DAILY: i64 = 10_000_000;
/// Sequences of a run; `WEFT_PROVE_SEQUENCES` says another number.
const SEQUENCES: u32 = 150;
const TTL_MS: i64 = 60_000;

#[derive(Clone, Debug)]
enum Step {
    Give(usize, Bucket, Kind, i64),
    Spend(usize, i64),
    Hold(usize, i64),
    Mark(usize, i64),
    Settle(usize, i64),
    Void(usize),
    Send(usize, usize, i64),
    Refund(usize, Bucket, i64),
    Undo(usize, Bucket, i64),
    Expire,
    Midnight,
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop_oneof![1..20i64, 1..30_000_000i64];
    let paid = || prop_oneof![Just(Bucket::Bonus), Just(Bucket::Purchased)];
    let kind = prop_oneof![Just(Kind::Grant), Just(Kind::Purchase), Just(Kind::SubscriptionBonus)];
    let wallet = || 0..3usize;
    let hold = || 0..6usize;
    prop_oneof![
        3 => (wallet(), paid(), kind, amount()).prop_map(|(at, bucket, kind, amount)| Step::Give(at, bucket, kind, amount)),
        3 => (wallet(), amount()).prop_map(|(at, amount)| Step::Spend(at, amount)),
        4 => (wallet(), amount()).prop_map(|(at, amount)| Step::Hold(at, amount)),
        2 => (hold(), amount()).prop_map(|(at, amount)| Step::Mark(at, amount)),
        3 => (hold(), 0..30_000_000i64).prop_map(|(at, amount)| Step::Settle(at, amount)),
        2 => hold().prop_map(Step::Void),
        2 => (wallet(), wallet(), amount()).prop_map(|(from, to, amount)| Step::Send(from, to, amount)),
        2 => (wallet(), paid(), amount()).prop_map(|(at, bucket, amount)| Step::Refund(at, bucket, amount)),
        1 => (wallet(), paid(), amount()).prop_map(|(at, bucket, amount)| Step::Undo(at, bucket, amount)),
        1 => Just(Step::Expire),
        1 => Just(Step::Midnight),
    ]
}

/// What can be spent of daily, bonus, purchased; what is owed; the day of the daily one.
#[derive(Clone, Debug, Default)]
struct Purse {
    free: [i64; 3],
    owed: i64,
    day: i64,
}

#[derive(Clone, Debug)]
struct Promise {
    id: String,
    of: usize,
    parts: [i64; 3],
    day: i64,
    mark: i64,
    until: i64,
}

#[derive(Default)]
struct Model {
    purses: [Purse; 3],
    open: Vec<Promise>,
}

impl Model {
    fn wake(&mut self, at: usize, day: i64) {
        if self.purses[at].day < day {
            self.purses[at].day = day;
            self.purses[at].free[0] = DAILY;
        }
    }

    /// Takes from the pots in order if they have enough.
    fn grab(&mut self, at: usize, amount: i64, pots: &[usize]) -> Option<[i64; 3]> {
        let free = &mut self.purses[at].free;
        if pots.iter().map(|pot| free[*pot]).sum::<i64>() < amount {
            return None;
        }
        let (mut parts, mut rest) = ([0; 3], amount);
        for &pot in pots {
            let part = rest.min(free[pot]);
            free[pot] -= part;
            parts[pot] = part;
            rest -= part;
        }
        Some(parts)
    }

    fn close(&mut self, at: usize, cost: i64) {
        let promise = self.open.remove(at);
        let purse = &mut self.purses[promise.of];
        let mut cost = cost;
        for pot in 0..3 {
            let used = promise.parts[pot].min(cost);
            cost -= used;
            if pot > 0 || promise.day == purse.day {
                purse.free[pot] += promise.parts[pot] - used;
            }
        }
    }

    fn take_back(&mut self, at: usize, first: usize, amount: i64) {
        let purse = &mut self.purses[at];
        let mut rest = amount;
        for pot in [first, 3 - first] {
            let part = rest.min(purse.free[pot]);
            purse.free[pot] -= part;
            rest -= part;
        }
        purse.owed += rest;
    }

    fn give(&mut self, at: usize, pot: usize, amount: i64, repays: bool) {
        let purse = &mut self.purses[at];
        let repaid = if repays { purse.owed.min(amount) } else { 0 };
        purse.owed -= repaid;
        purse.free[pot] += amount - repaid;
    }

    fn held(&self, at: usize) -> i64 {
        self.open.iter().filter(|promise| promise.of == at).flat_map(|promise| promise.parts).sum()
    }
}

struct World {
    db: Db,
    ledger: Ledger,
    clock: Clock,
    shutdown: Shutdown,
    _database: Database,
}

impl World {
    async fn on(database: Database) -> World {
        let options = DbOptions { url: database.url.clone(), schema: "billing", max_connections: 8 };
        let db = Db::connect(&options).await.unwrap();
        db.migrate(crate::MIGRATIONS).await.unwrap();
        let (products, clock, shutdown) =
            (Arc::new(Products::builtin()), Clock::manual(1_790_000_000_123), Shutdown::new());
        crate::seed::seed(&db, &products, clock.now_ms()).await.unwrap();
        let mesh = Mesh::new("billing", MeshConfig::default(), clock.clone(), shutdown.clone());
        World { ledger: Ledger::start(&db, &mesh, &products), db, clock, shutdown, _database: database }
    }

    async fn act(&self, user_id: &str, act: Act) -> Result<Done, Error> {
        let (product, user_id) = ("companion".to_owned(), user_id.to_owned());
        self.ledger.submit(Op { product, user_id, key: None, reference: "a step".to_owned(), act }).await
    }
}

fn pot(bucket: Bucket) -> usize {
    if bucket == Bucket::Bonus { 1 } else { 2 }
}

/// One step on both; the answers agree on whether it happened.
async fn go(world: &World, model: &mut Model, users: &[String; 3], step: Step) {
    let now = world.clock.now_ms();
    let day = now / 86_400_000;
    match step {
        Step::Give(at, bucket, kind, amount) => {
            model.wake(at, day);
            model.give(at, pot(bucket), amount, true);
            world.act(&users[at], Act::Grant { bucket, amount, kind }).await.unwrap();
        }
        Step::Spend(at, amount) => {
            model.wake(at, day);
            let fits = model.grab(at, amount, &[0, 1, 2]).is_some();
            let done = world.act(&users[at], Act::Debit { amount, kind: Kind::Usage }).await;
            assert_eq!(done.is_ok(), fits, "{done:?}");
        }
        Step::Send(from, to, amount) if from != to => {
            model.wake(from, day);
            model.wake(to, day);
            let parts = model.grab(from, amount, &[1, 2]);
            let done = world.act(&users[from], Act::Transfer { to: users[to].clone(), amount }).await;
            assert_eq!(done.is_ok(), parts.is_some(), "{done:?}");
            parts.unwrap_or_default().iter().enumerate().for_each(|(pot, part)| model.give(to, pot, *part, false));
        }
        Step::Refund(at, bucket, amount) => {
            model.wake(at, day);
            model.take_back(at, pot(bucket), amount);
            world.act(&users[at], Act::ClawBack { bucket, amount }).await.unwrap();
        }
        Step::Undo(at, bucket, amount) => {
            model.wake(at, day);
            model.give(at, pot(bucket), amount, true);
            world.act(&users[at], Act::Restore { bucket, amount }).await.unwrap();
        }
        Step::Expire => end_overdue(world, model, users).await,
        Step::Midnight => world.clock.advance(Duration::from_hours(24)),
        Step::Send(..) => {}
        of_hold => go_on(world, model, users, of_hold).await,
    }
}

/// Time goes by, and what is overdue by then ends.
async fn end_overdue(world: &World, model: &mut Model, users: &[String; 3]) {
    world.clock.advance(Duration::from_millis(40_000));
    let (now, day) = (world.clock.now_ms(), world.clock.now_ms() / 86_400_000);
    for promise in model.open.clone() {
        model.wake(promise.of, day);
        world.act(&users[promise.of], Act::Expire { hold_id: promise.id.clone() }).await.unwrap();
        if promise.until <= now {
            let at = model.open.iter().position(|open| open.id == promise.id).unwrap();
            model.close(at, promise.mark);
        }
    }
}

/// A step on the holds: a new one, or one of those that are open if there is one.
async fn go_on(world: &World, model: &mut Model, users: &[String; 3], step: Step) {
    let now = world.clock.now_ms();
    let day = now / 86_400_000;
    match step {
        Step::Hold(at, amount) => {
            model.wake(at, day);
            let parts = model.grab(at, amount, &[0, 1, 2]);
            // Every other hold is an API key's; what it has spent is recounted in the end.
            let key = (amount % 2 == 0).then(|| KeyBudget { key_id: format!("key {}", amount % 3), limit: None });
            let done = world.act(&users[at], Act::Reserve { amount, ttl_ms: TTL_MS, key }).await;
            assert_eq!(done.is_ok(), parts.is_some(), "{done:?}");
            if let Some(parts) = parts {
                let id = done.unwrap().hold.unwrap().id;
                model.open.push(Promise { id, of: at, parts, day, mark: 0, until: now + TTL_MS });
            }
        }
        Step::Mark(at, progress) if !model.open.is_empty() => {
            let at = at % model.open.len();
            model.wake(model.open[at].of, day);
            let promise = &mut model.open[at];
            promise.mark = promise.mark.max(progress.min(promise.parts.iter().sum()));
            promise.until = now + TTL_MS;
            let act = Act::Progress { hold_id: promise.id.clone(), progress, ttl_ms: 0 };
            world.act(&users[promise.of], act).await.unwrap();
        }
        Step::Settle(at, amount) if !model.open.is_empty() => {
            let at = at % model.open.len();
            let Promise { id: hold_id, of, .. } = model.open[at].clone();
            model.wake(of, day);
            model.close(at, amount);
            let act = Act::Settle { hold_id, amount };
            let done = world.act(&users[of], act.clone()).await.unwrap();
            assert_eq!(world.act(&users[of], act).await.unwrap().hold, done.hold);
        }
        Step::Void(at) if !model.open.is_empty() => {
            let at = at % model.open.len();
            let Promise { id: hold_id, of, .. } = model.open[at].clone();
            model.wake(of, day);
            model.close(at, 0);
            world.act(&users[of], Act::Void { hold_id: hold_id.clone() }).await.unwrap();
            world.act(&users[of], Act::Settle { hold_id, amount: 1 }).await.unwrap_err();
        }
        _ => {}
    }
}

async fn compare(world: &World, model: &mut Model, users: &[String; 3], step: &Step) {
    let day = world.clock.now_ms() / 86_400_000;
    for (at, user) in users.iter().enumerate() {
        model.wake(at, day);
        let balance = world.ledger.balance("companion", user).await.unwrap();
        let purse = &model.purses[at];
        let told = ([balance.daily, balance.bonus, balance.purchased], balance.held, balance.debt);
        assert_eq!(told, (purse.free, model.held(at), purse.owed), "wallet {at} after {step:?}");
    }
    let sum = "SELECT CAST((SELECT COALESCE(SUM(daily + bonus + purchased - debt), 0) FROM wallets) \
               + (SELECT COALESCE(SUM(balance), 0) FROM ledger_totals) AS BIGINT)";
    assert_eq!(sql(sum).one::<i64>(&world.db).await.unwrap(), 0, "after {step:?}");
}

async fn any_sequence_leaves_what_a_simple_model_says(world: &World) {
    #[expect(clippy::disallowed_methods, reason = "a longer proof is asked for by the environment of a test")]
    let asked = std::env::var("WEFT_PROVE_SEQUENCES").ok().and_then(|number| number.parse().ok());
    let cases = Cases { cases: asked.unwrap_or(SEQUENCES), failure_persistence: None, ..Cases::default() };
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        TestRunner::new(cases).run(&proptest::collection::vec(step(), 1..25), |steps| {
            handle.block_on(async {
                let users = [(); 3].map(|()| weft_core::new_id());
                let mut model = Model::default();
                for step in steps {
                    go(world, &mut model, &users, step.clone()).await;
                    compare(world, &mut model, &users, &step).await;
                }
            });
            Ok(())
        })
    })
    .unwrap();
    let report = verify::verify(&world.db, "companion", None).await.unwrap();
    assert!(report.is_ok(), "{:?}", report.faults);
    assert!(report.transactions > i64::from(SEQUENCES), "{report:?}");
    let differ = "SELECT COUNT(*) FROM key_spending k WHERE spent <> (SELECT SUM(charged) FROM holds h \
                  WHERE h.product = k.product AND h.user_id = k.user_id AND h.key_id = k.key_id)";
    assert_eq!(sql(differ).one::<i64>(&world.db).await.unwrap(), 0);
    assert!(sql("SELECT COUNT(*) FROM key_spending WHERE spent > 0").one::<i64>(&world.db).await.unwrap() > 0);
    let touched: BTreeMap<String, i64> = sql("SELECT kind, COUNT(*) FROM ledger_entries GROUP BY kind LIMIT 100")
        .all::<(String, i64)>(&world.db)
        .await
        .unwrap()
        .into_iter()
        .collect();
    for kind in ["daily_refresh", "daily_expiry", "purchase", "usage", "refund", "transfer_in", "debt_repaid"] {
        assert!(touched.contains_key(kind), "no sequence had {kind}");
    }
    world.shutdown.trigger();
}
