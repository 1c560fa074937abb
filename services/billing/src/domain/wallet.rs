//! The rules of a wallet: what each operation moves, or why it may not. All amounts are micro-credits.
use super::hold::{Hold, State};
use super::ledger::{Bucket, HASH_BYTES, Kind};

/// The most that a bucket takes: three of them and a debt still fit into one number.
pub const MAX_BUCKET: i64 = 1_000_000_000_000_000_000;
/// What the first grant of a new wallet is for.
pub const INITIAL: &str = "initial";

/// What an account has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wallet {
    /// Grows with every change; 0: nothing has happened to it yet.
    pub version: i64,
    /// Number of its last movement.
    pub seq: i64,
    /// Hash of its last movement.
    pub head: [u8; HASH_BYTES],
    /// Daily, bonus, purchased; what is held of them included.
    pub buckets: [i64; 3],
    /// What is held of each.
    pub held: [i64; 3],
    /// What is owed.
    pub debt: i64,
    /// The UTC day of the daily bucket.
    pub day: i64,
    /// What the plan gave for that day.
    pub daily_granted: i64,
    /// When it last changed, ms since 1970.
    pub updated_at: i64,
}

/// Credits that came into a bucket or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which.
    pub bucket: Bucket,
    /// Why.
    pub kind: Kind,
    /// Negative when they left it.
    pub amount: i64,
    /// The buckets together afterwards, debt deducted.
    pub balance_after: i64,
}

/// What an operation moved.
pub type Movements = Vec<Movement>;

/// Why an operation may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not enough is there.
    Insufficient {
        /// What was asked for.
        needed: i64,
        /// What could be spent.
        available: i64,
    },
    /// A bucket would hold more than [`MAX_BUCKET`].
    TooMuch,
    /// The hold has ended otherwise.
    Ended(State),
}

const DAILY: usize = 0;
const PAID: [usize; 2] = [1, 2];
const ALL: [usize; 3] = [0, 1, 2];
const BUCKETS: [Bucket; 3] = [Bucket::Daily, Bucket::Bonus, Bucket::Purchased];

impl Wallet {
    /// The buckets together, debt deducted.
    pub fn balance(&self) -> i64 {
        self.buckets.iter().sum::<i64>() - self.debt
    }

    /// What can be spent of each bucket.
    pub fn free(&self) -> [i64; 3] {
        ALL.map(|at| self.buckets[at] - self.held[at])
    }

    /// What is held together.
    pub fn held(&self) -> i64 {
        self.held.iter().sum()
    }

    /// Whether it can be: nothing is held that is not there, and nothing is below 0. No rule leads anywhere else.
    pub fn is_sound(&self) -> bool {
        ALL.into_iter().all(|at| (0..=self.buckets[at]).contains(&self.held[at])) && self.debt >= 0
    }

    /// Whether the plan's number for `today` is not yet what the daily bucket was set to, or a first grant is to come: a
    /// wallet that a payment has made has no day yet.
    pub fn is_due(&self, today: i64, initial: i64, daily: i64) -> bool {
        (self.day == 0 && initial > 0)
            || (self.day < today && self.free()[DAILY] != daily)
            || (self.day == today && self.daily_granted < daily)
    }

    /// Sets the daily bucket for the first use of a day, or raises it within the day; a lower number waits for the
    /// next day. What is held of an earlier day's bucket stays held.
    pub fn refresh(&mut self, today: i64, daily: i64) -> Result<Movements, Refusal> {
        let mut moved = Movements::new();
        let difference =
            if self.day < today { daily - self.free()[DAILY] } else { (daily - self.daily_granted).max(0) };
        if self.day < today || difference > 0 {
            self.day = self.day.max(today);
            self.daily_granted = daily;
        }
        self.move_of(DAILY, difference, Kind::DailyRefresh, &mut moved)?;
        Ok(moved)
    }

    /// Gives; what is owed is paid first, whatever it is for, so that no order of what comes and goes matters.
    pub fn give(&mut self, bucket: Bucket, amount: i64, kind: Kind) -> Result<Movements, Refusal> {
        let mut moved = Movements::new();
        let at = place(bucket);
        self.move_of(at, amount, kind, &mut moved)?;
        let repaid = self.debt.min(amount);
        if repaid > 0 {
            self.move_of(at, -repaid, Kind::DebtRepaid, &mut moved)?;
            self.owe(-repaid, Kind::DebtRepaid, &mut moved)?;
        }
        Ok(moved)
    }

    /// Takes from the buckets in their order; an adjustment leaves the daily one alone.
    pub fn take(&mut self, amount: i64, kind: Kind) -> Result<Movements, Refusal> {
        let from = if kind == Kind::Adjustment { &PAID[..] } else { &ALL };
        let parts = self.split(amount, from)?;
        self.take_parts(parts, kind)
    }

    /// Sets aside, of the buckets in their order; answers what of each.
    pub fn reserve(&mut self, amount: i64) -> Result<[i64; 3], Refusal> {
        let parts = self.split(amount, &ALL)?;
        for at in ALL {
            self.held[at] += parts[at];
        }
        Ok(parts)
    }

    /// Ends an open hold by charging `cost`, at most what it covers. What is left of an earlier day's bucket is gone;
    /// the rest is back where it was, and pays nothing that is owed.
    pub fn charge(&mut self, hold: &mut Hold, cost: i64, state: State) -> Result<Movements, Refusal> {
        if hold.state != State::Open {
            return Err(Refusal::Ended(hold.state));
        }
        let charged = cost.min(hold.amount());
        let mut moved = Movements::new();
        let mut left = charged;
        for (at, part) in [hold.daily, hold.bonus, hold.purchased].into_iter().enumerate() {
            let used = part.min(left);
            left -= used;
            self.held[at] -= part;
            self.move_of(at, -used, Kind::Usage, &mut moved)?;
            if at == DAILY && hold.day < self.day {
                self.move_of(at, used - part, Kind::DailyExpiry, &mut moved)?;
            }
        }
        hold.state = state;
        hold.charged = charged;
        hold.reported = cost;
        hold.capped = cost > charged;
        Ok(moved)
    }

    /// Takes bonus, then purchased credits for another account; answers what of each bucket.
    pub fn send(&mut self, amount: i64) -> Result<([i64; 3], Movements), Refusal> {
        let parts = self.split(amount, &PAID)?;
        Ok((parts, self.take_parts(parts, Kind::TransferOut)?))
    }

    /// Gets what another account has sent. It pays nothing that is owed: a debt is the account's own.
    pub fn receive(&mut self, parts: [i64; 3]) -> Result<Movements, Refusal> {
        let mut moved = Movements::new();
        for at in ALL {
            self.move_of(at, parts[at], Kind::TransferIn, &mut moved)?;
        }
        Ok(moved)
    }

    /// Takes back what is unspent of the bucket, then of the other paid one; the rest is owed.
    pub fn claw_back(&mut self, bucket: Bucket, amount: i64) -> Result<Movements, Refusal> {
        let first = place(bucket).max(PAID[0]);
        let other = PAID[0] + PAID[1] - first;
        let mut moved = Movements::new();
        let mut left = amount;
        for at in [first, other] {
            let taken = self.free()[at].min(left);
            left -= taken;
            self.move_of(at, -taken, Kind::Refund, &mut moved)?;
        }
        self.owe(left, Kind::Refund, &mut moved)?;
        Ok(moved)
    }

    /// Gives back what was clawed back: what is owed first, the rest to the bucket that it was clawed back from.
    pub fn restore(&mut self, bucket: Bucket, amount: i64) -> Result<Movements, Refusal> {
        let mut moved = Movements::new();
        let owed = self.debt.min(amount);
        self.owe(-owed, Kind::Refund, &mut moved)?;
        self.move_of(place(bucket).max(PAID[0]), amount - owed, Kind::Refund, &mut moved)?;
        Ok(moved)
    }

    /// What of each bucket makes up `amount`.
    fn split(&self, amount: i64, from: &[usize]) -> Result<[i64; 3], Refusal> {
        let free = self.free();
        let mut parts = [0; 3];
        let mut left = amount;
        for &at in from {
            parts[at] = free[at].min(left);
            left -= parts[at];
        }
        if left > 0 {
            return Err(Refusal::Insufficient { needed: amount, available: amount - left });
        }
        Ok(parts)
    }

    fn take_parts(&mut self, parts: [i64; 3], kind: Kind) -> Result<Movements, Refusal> {
        let mut moved = Movements::new();
        for at in ALL {
            self.move_of(at, -parts[at], kind, &mut moved)?;
        }
        Ok(moved)
    }

    fn move_of(&mut self, at: usize, amount: i64, kind: Kind, moved: &mut Movements) -> Result<(), Refusal> {
        if amount == 0 {
            return Ok(());
        }
        let after = self.buckets[at].checked_add(amount).filter(|after| *after <= MAX_BUCKET);
        self.buckets[at] = after.ok_or(Refusal::TooMuch)?;
        moved.push(Movement { bucket: BUCKETS[at], kind, amount, balance_after: self.balance() });
        Ok(())
    }

    /// Owes more, or less.
    fn owe(&mut self, amount: i64, kind: Kind, moved: &mut Movements) -> Result<(), Refusal> {
        if amount == 0 {
            return Ok(());
        }
        let after = self.debt.checked_add(amount).filter(|after| *after <= MAX_BUCKET);
        self.debt = after.ok_or(Refusal::TooMuch)?;
        moved.push(Movement { bucket: Bucket::Debt, kind, amount: -amount, balance_after: self.balance() });
        Ok(())
    }
}

fn place(bucket: Bucket) -> usize {
    match bucket {
        Bucket::Daily => DAILY,
        Bucket::Bonus => PAID[0],
        Bucket::Purchased | Bucket::Debt => PAID[1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wallet(daily: i64, bonus: i64, purchased: i64) -> Wallet {
        Wallet { buckets: [daily, bonus, purchased], day: 1, daily_granted: daily, ..Wallet::default() }
    }

    fn hold(wallet: &mut Wallet, amount: i64) -> Hold {
        let [daily, bonus, purchased] = wallet.reserve(amount).unwrap();
        Hold { daily, bonus, purchased, day: wallet.day, ..Hold::default() }
    }

    fn brief(moved: &[Movement]) -> Vec<(&'static str, &'static str, i64)> {
        moved.iter().map(|one| (one.kind.as_str(), one.bucket.as_str(), one.amount)).collect()
    }

    #[test]
    fn credits_are_spent_daily_then_bonus_then_purchased() {
        let mut wallet = wallet(10, 5, 20);
        let moved = wallet.take(18, Kind::Usage).unwrap();
        assert_eq!(brief(&moved), [("usage", "daily", -10), ("usage", "bonus", -5), ("usage", "purchased", -3)]);
        assert_eq!(moved.last().unwrap().balance_after, 17);
        assert_eq!(wallet.take(18, Kind::Usage), Err(Refusal::Insufficient { needed: 18, available: 17 }));
    }

    #[test]
    fn a_wallet_is_sound_while_nothing_is_held_that_is_not_there() {
        let full = Wallet { held: [10, 5, 20], ..wallet(10, 5, 20) };
        assert!(full.is_sound() && Wallet::default().is_sound());
        for held in [[11, 0, 0], [0, 6, 0], [0, 0, 21], [-1, 0, 0]] {
            assert!(!Wallet { held, ..full }.is_sound(), "{held:?}");
        }
        assert!(!Wallet { debt: -1, ..full }.is_sound());
        assert!(!wallet(0, -1, 0).is_sound());
    }

    #[test]
    fn an_adjustment_leaves_the_daily_bucket_alone() {
        let mut wallet = wallet(10, 5, 20);
        assert_eq!(wallet.take(26, Kind::Adjustment), Err(Refusal::Insufficient { needed: 26, available: 25 }));
        wallet.take(6, Kind::Adjustment).unwrap();
        assert_eq!(wallet.buckets, [10, 0, 19]);
    }

    #[test]
    fn what_is_held_cannot_be_spent_and_comes_back() {
        let mut wallet = wallet(10, 5, 0);
        let mut hold = hold(&mut wallet, 12);
        assert_eq!(wallet.free(), [0, 3, 0]);
        let moved = wallet.charge(&mut hold, 4, State::Settled).unwrap();
        assert_eq!(brief(&moved), [("usage", "daily", -4)]);
        assert_eq!((wallet.buckets, wallet.held), ([6, 5, 0], [0, 0, 0]));
        assert_eq!(wallet.charge(&mut hold, 4, State::Settled), Err(Refusal::Ended(State::Settled)));
    }

    #[test]
    fn more_than_the_hold_is_charged_up_to_the_hold() {
        let mut wallet = wallet(10, 5, 0);
        let mut hold = hold(&mut wallet, 12);
        wallet.charge(&mut hold, 40, State::Settled).unwrap();
        assert_eq!((hold.charged, hold.reported, hold.capped), (12, 40, true));
        assert_eq!(wallet.buckets, [0, 3, 0]);
    }

    #[test]
    fn what_is_left_of_yesterdays_bucket_is_not_carried_over() {
        let mut wallet = wallet(10, 5, 0);
        let mut hold = hold(&mut wallet, 8);
        assert_eq!(brief(&wallet.refresh(2, 10).unwrap()), [("daily_refresh", "daily", 8)]);
        assert_eq!(wallet.free(), [10, 5, 0]);
        let moved = wallet.charge(&mut hold, 3, State::Settled).unwrap();
        assert_eq!(brief(&moved), [("usage", "daily", -3), ("daily_expiry", "daily", -5)]);
        assert_eq!((wallet.buckets, wallet.held), ([10, 5, 0], [0; 3]));
    }

    #[test]
    fn a_raise_counts_at_once_and_a_lower_number_tomorrow() {
        let mut wallet = wallet(10, 0, 0);
        wallet.take(4, Kind::Usage).unwrap();
        assert_eq!(brief(&wallet.refresh(1, 100).unwrap()), [("daily_refresh", "daily", 90)]);
        assert_eq!(wallet.buckets[0], 96);
        assert_eq!(wallet.refresh(1, 10).unwrap(), []);
        assert_eq!(wallet.refresh(1, 100).unwrap(), []);
        assert_eq!(brief(&wallet.refresh(2, 10).unwrap()), [("daily_refresh", "daily", -86)]);
        assert_eq!(wallet.refresh(1, 10).unwrap(), [], "a clock that is behind");
        assert_eq!(wallet.day, 2);
    }

    #[test]
    fn credits_that_were_spent_before_they_were_refunded_are_owed_and_what_comes_next_pays_them() {
        let mut wallet = wallet(3, 5, 10);
        let moved = wallet.claw_back(Bucket::Purchased, 40).unwrap();
        assert_eq!(brief(&moved), [("refund", "purchased", -10), ("refund", "bonus", -5), ("refund", "debt", -25)]);
        assert_eq!((wallet.buckets, wallet.debt, wallet.balance()), ([3, 0, 0], 25, -22));
        let moved = wallet.give(Bucket::Purchased, 30, Kind::Purchase).unwrap();
        assert_eq!(
            brief(&moved),
            [("purchase", "purchased", 30), ("debt_repaid", "purchased", -25), ("debt_repaid", "debt", 25)]
        );
        assert_eq!((wallet.buckets, wallet.debt, wallet.balance()), ([3, 0, 5], 0, 8));
        wallet.claw_back(Bucket::Purchased, 15).unwrap();
        for kind in [Kind::SubscriptionBonus, Kind::Grant, Kind::Adjustment] {
            wallet.give(Bucket::Bonus, 3, kind).unwrap();
        }
        assert_eq!((wallet.buckets, wallet.debt), ([3, 0, 0], 1));
        wallet.receive([0, 2, 0]).unwrap();
        assert_eq!((wallet.buckets, wallet.debt), ([3, 2, 0], 1), "what is sent is not for a debt");
    }

    #[test]
    fn a_claw_back_undone_pays_what_is_owed_first() {
        let mut wallet = wallet(0, 0, 10);
        wallet.claw_back(Bucket::Purchased, 15).unwrap();
        let moved = wallet.restore(Bucket::Purchased, 15).unwrap();
        assert_eq!(brief(&moved), [("refund", "debt", 5), ("refund", "purchased", 10)]);
        assert_eq!((wallet.buckets, wallet.debt), ([0, 0, 10], 0));
        wallet.give(Bucket::Bonus, 4, Kind::SubscriptionBonus).unwrap();
        wallet.claw_back(Bucket::Bonus, 4).unwrap();
        wallet.restore(Bucket::Bonus, 4).unwrap();
        assert_eq!(wallet.buckets, [0, 4, 10], "what was given is not bought by a dispute");
    }

    #[test]
    fn a_wallet_that_a_payment_made_waits_for_its_first_grant() {
        let mut made = Wallet::default();
        made.give(Bucket::Purchased, 5, Kind::Purchase).unwrap();
        assert!(made.is_due(7, 1, 0) && made.is_due(7, 0, 1) && !made.is_due(7, 0, 0));
        assert!(!wallet(0, 0, 5).is_due(1, 1, 0), "it had its first day");
    }

    /// What may come to a wallet in any order; the last follows the one before it.
    const EVENTS: [&str; 4] = ["purchase", "bonus", "refund", "dispute won"];

    /// Every order of the events in which the won dispute follows the refund that it undoes.
    fn orders() -> Vec<Vec<&'static str>> {
        let mut orders = vec![Vec::new()];
        for _ in EVENTS {
            orders = orders
                .into_iter()
                .flat_map(|order: Vec<&str>| {
                    let next = EVENTS.into_iter().filter(|event| !order.contains(event)).collect::<Vec<_>>();
                    next.into_iter().map(move |event| [order.clone(), vec![event]].concat())
                })
                .collect();
        }
        let at = |order: &[&str], event| order.iter().position(|one| *one == event);
        orders.retain(|order| at(order, "refund") < at(order, "dispute won"));
        orders
    }

    proptest::proptest! {
        #[test]
        fn no_order_of_what_comes_and_goes_matters(
            had in [0..50i64, 0..50i64, 0..50i64], spent in 0..200i64, bought in 1..100i64, bonus in 1..100i64,
            refunded in 1..100i64, won in 0..100i64,
        ) {
            let run = |events: &[&str]| {
                let mut wallet = wallet(had[0], had[1], had[2]);
                wallet.take(spent.min(had.iter().sum()), Kind::Usage).unwrap();
                for event in events {
                    match *event {
                        "purchase" => wallet.give(Bucket::Purchased, bought, Kind::Purchase),
                        "bonus" => wallet.give(Bucket::Bonus, bonus, Kind::SubscriptionBonus),
                        "refund" => wallet.claw_back(Bucket::Purchased, refunded),
                        _ => wallet.restore(Bucket::Purchased, won.min(refunded)),
                    }
                    .unwrap();
                    proptest::prop_assert!(wallet.debt == 0 || wallet.buckets[1..] == [0, 0], "{events:?}: {wallet:?}");
                }
                Ok((wallet.balance(), wallet.debt, wallet.buckets))
            };
            let orders = orders();
            proptest::prop_assert_eq!(orders.len(), 12);
            let (balance, debt, buckets) = run(&orders[0])?;
            for order in &orders {
                let (now_balance, now_debt, now) = run(order)?;
                proptest::prop_assert_eq!((now_balance, now_debt, now[0]), (balance, debt, buckets[0]), "{:?}", order);
                proptest::prop_assert_eq!(now[1] + now[2], buckets[1] + buckets[2], "{:?}", order);
                // A refund that the purchased bucket covers in every order leaves each bucket what it was.
                let spent_of_paid = (spent - had[0]).max(0);
                if refunded + (spent_of_paid - had[1]).max(0) <= had[2] {
                    proptest::prop_assert_eq!(now, buckets, "{:?}", order);
                }
            }
        }
    }

    #[test]
    fn what_is_sent_stays_what_it_was() {
        let (mut from, mut to) = (wallet(9, 5, 10), wallet(0, 1, 1));
        let (parts, moved) = from.send(7).unwrap();
        assert_eq!(brief(&moved), [("transfer_out", "bonus", -5), ("transfer_out", "purchased", -2)]);
        to.receive(parts).unwrap();
        assert_eq!((from.buckets, to.buckets), ([9, 0, 8], [0, 6, 3]));
        assert_eq!(from.send(9), Err(Refusal::Insufficient { needed: 9, available: 8 }));
    }

    #[test]
    fn a_bucket_has_a_limit() {
        let mut wallet = wallet(0, MAX_BUCKET - 1, 0);
        assert_eq!(wallet.give(Bucket::Bonus, 2, Kind::Grant), Err(Refusal::TooMuch));
        assert_eq!(wallet.give(Bucket::Bonus, i64::MAX, Kind::Grant), Err(Refusal::TooMuch));
        assert_eq!(wallet.claw_back(Bucket::Bonus, i64::MAX), Err(Refusal::TooMuch));
    }
}
