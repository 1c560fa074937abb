//! What of a payment's credits goes back with its money.
use sha2::{Digest, Sha256};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What was ever taken back of the credits, in micro-credits.
    pub clawed: i64,
    /// What of that was given back.
    pub restored: i64,
}

/// The id of the payment that a checkout session or an invoice of Stripe's is.
pub fn payment_id(product: &str, source: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update((product.len() as u64).to_be_bytes());
    hasher.update(product.as_bytes());
    hasher.update(source.as_bytes());
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("pay_{hash}")
}

/// The part of `credits` that belongs to `part` of the `whole` money, rounded down.
pub fn share(credits: i64, part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    let share = i128::from(credits) * i128::from(part.clamp(0, whole)) / i128::from(whole);
    i64::try_from(share).unwrap_or(credits)
}

/// Where a payment has to stand: each refund and each dispute has taken its share, each dispute that was won has given
/// its share back. Every number only grows with what is known, so the order in which it becomes known does not matter.
/// `disputes` are amounts and whether they came back.
pub fn balance(credits: i64, whole: i64, refunded: i64, disputes: &[(i64, bool)]) -> Balance {
    let mut balance = Balance { clawed: share(credits, refunded, whole), restored: 0 };
    for (amount, returned) in disputes {
        let share = share(credits, *amount, whole);
        balance.clawed = balance.clawed.saturating_add(share);
        if *returned {
            balance.restored = balance.restored.saturating_add(share);
        }
    }
    // A bank may take what was refunded already; nobody loses more than he got.
    let most = credits.saturating_add(balance.restored);
    balance.clawed = balance.clawed.min(most);
    balance
}

/// `paid`, `partly_refunded`, `refunded` or `disputed`.
pub fn status(whole: i64, refunded: i64, disputed: i64) -> &'static str {
    if disputed > 0 {
        "disputed"
    } else if refunded == 0 {
        "paid"
    } else if refunded >= whole {
        "refunded"
    } else {
        "partly_refunded"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_go_back_in_proportion_to_the_money() {
        assert_eq!(share(550_000_000, 3999, 3999), 550_000_000);
        assert_eq!(share(550_000_000, 1, 3999), 137_534);
        assert_eq!(share(550_000_000, 9999, 3999), 550_000_000);
        assert_eq!(share(i64::MAX, i64::MAX, i64::MAX), i64::MAX);
        assert_eq!(share(10, 1, 0), 0);
        assert_eq!(share(10, -1, 5), 0);
    }

    #[test]
    fn a_dispute_takes_and_a_won_one_gives_back() {
        let of = |refunded, disputes: &[(i64, bool)]| {
            let Balance { clawed, restored } = balance(1000, 10, refunded, disputes);
            (clawed, restored)
        };
        assert_eq!(of(0, &[]), (0, 0));
        assert_eq!(of(4, &[]), (400, 0));
        assert_eq!(of(4, &[(6, false)]), (1000, 0));
        assert_eq!(of(4, &[(6, true)]), (1000, 600));
        assert_eq!(of(0, &[(10, true), (10, false)]), (2000, 1000));
        assert_eq!(of(10, &[(10, false)]), (1000, 0));
    }

    #[test]
    fn a_payment_has_one_id_in_its_product() {
        assert_eq!(payment_id("p", "cs_1"), payment_id("p", "cs_1"));
        assert_ne!(payment_id("p", "cs_1"), payment_id("p", "cs_2"));
        assert_ne!(payment_id("pc", "s_1"), payment_id("p", "cs_1"));
    }
}
