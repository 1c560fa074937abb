//! What an API key may spend, and has spent.
use super::hold::Hold;

/// What an API key may spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBudget {
    /// Id of the key.
    pub key_id: String,
    /// Micro-credits in all; none: no limit, but what it spends is counted.
    pub limit: Option<i64>,
}

/// What an API key has spent. Amounts are micro-credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// What its holds were charged.
    pub spent: i64,
    /// What its open holds have set aside.
    pub held: i64,
}

impl Spending {
    /// Sets aside under a limit. None: that would be more than the limit. Nothing always fits.
    pub fn hold(self, amount: i64, limit: Option<i64>) -> Option<Spending> {
        let held = self.held.checked_add(amount)?;
        let all = self.spent.checked_add(held)?;
        (amount == 0 || limit.is_none_or(|limit| all <= limit)).then_some(Spending { held, ..self })
    }

    /// What is left of a limit.
    pub fn left(self, limit: i64) -> i64 {
        limit.saturating_sub(self.spent.saturating_add(self.held)).max(0)
    }

    /// Gives back what a hold has set aside, which has just ended, and counts what it was charged.
    pub fn end(self, hold: &Hold) -> Spending {
        let held = self.held.saturating_sub(hold.amount()).max(0);
        Spending { spent: self.spent.saturating_add(hold.charged), held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_spent_never_exceeds_the_limit() {
        let before = Spending { spent: 6, held: 1 };
        assert_eq!(before.hold(3, Some(10)), Some(Spending { spent: 6, held: 4 }));
        assert_eq!(before.hold(4, Some(10)), None);
        assert_eq!(before.hold(4, None), Some(Spending { spent: 6, held: 5 }));
        assert_eq!(before.hold(0, Some(2)), Some(before), "a limit that was lowered");
        assert_eq!((before.left(10), before.left(2)), (3, 0));
        assert_eq!(before.hold(i64::MAX, None), None);
    }

    #[test]
    fn the_end_of_a_hold_gives_back_what_it_was_not_charged() {
        let hold = Hold { daily: 2, purchased: 3, charged: 4, ..Hold::default() };
        assert_eq!(Spending { spent: 1, held: 7 }.end(&hold), Spending { spent: 5, held: 2 });
    }
}
