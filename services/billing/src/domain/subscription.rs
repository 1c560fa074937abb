//! Which word about a subscription counts, and which subscription counts for its account.

/// How sure a word about a subscription is; the greater one counts. Words are compared as wholes, so whatever order
/// they arrive in, the same one is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// 0: inferred from a payment; 1: told of the subscription itself; 2: that it ended, which is final.
    pub source: i64,
    /// When it happened, s since 1970.
    pub created: i64,
    /// Within a second: a beginning before a change, and within those what waits before what is settled.
    pub rank: i64,
    /// Between what cannot be told apart.
    pub event_id: String,
}

impl Evidence {
    /// The evidence of an event of this kind about a subscription in this state.
    pub fn of(kind: &str, status: &str, created: i64, event_id: &str) -> Evidence {
        let (source, step) = match kind {
            "customer.subscription.deleted" => (2, 0),
            "customer.subscription.created" => (1, 0),
            kind if kind.starts_with("customer.subscription.") => (1, 1),
            "invoice.payment_failed" => (0, 0),
            _ => (0, 1),
        };
        let settled = match status {
            "incomplete" => 0,
            "trialing" => 1,
            "active" => 2,
            "past_due" => 3,
            _ => 4,
        };
        Evidence { source, created, rank: step * 10 + settled, event_id: event_id.to_owned() }
    }
}

/// Whether a subscription in this state gives its plan: paid, tried out, or owed for while Stripe still collects.
pub fn gives_plan(status: &str) -> bool {
    matches!(status, "active" | "trialing" | "past_due")
}

/// Whether Stripe still has the subscription, so that it is changed and not bought again.
pub fn is_living(status: &str) -> bool {
    gives_plan(status) || matches!(status, "unpaid" | "paused")
}

/// Seats of a subscription, as asked for: 0 is 1.
pub const MAX_SEATS: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_final_and_what_is_told_beats_what_is_inferred() {
        let of = |kind, status, created| Evidence::of(kind, status, created, "evt");
        let ended = of("customer.subscription.deleted", "canceled", 1);
        let updated = of("customer.subscription.updated", "active", 100);
        let created = of("customer.subscription.created", "incomplete", 100);
        let paid = of("invoice.paid", "active", 1000);
        assert!(ended > updated && updated > created && created > paid);
        assert!(of("customer.subscription.updated", "past_due", 100) > updated);
        assert!(of("customer.subscription.created", "active", 101) > updated);
    }

    #[test]
    fn a_subscription_gives_its_plan_while_it_is_paid_or_collected() {
        for (status, gives, lives) in [
            ("active", true, true),
            ("trialing", true, true),
            ("past_due", true, true),
            ("unpaid", false, true),
            ("paused", false, true),
            ("incomplete", false, false),
            ("incomplete_expired", false, false),
            ("canceled", false, false),
            ("none", false, false),
        ] {
            assert_eq!((gives_plan(status), is_living(status)), (gives, lives), "{status}");
        }
    }
}
