//! How the money of a sale is divided, what a refund takes back of it, and what a period pays out. Money is in minor
//! units of an ISO currency.
use super::day::{date, day_of};
use crate::error::Error;

/// The dearest item, in minor units.
pub const MAX_SALE_MINOR: i64 = 1_000_000_000;
/// The developer's part of a sale, in percent; the rest is the platform's.
const DEVELOPER_PERCENT: i64 = 70;
/// Longest id of a buyer, a developer or an item, in bytes.
const MAX_ID_BYTES: usize = 200;

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was bought.
    Sale,
    /// It was paid back.
    Refund,
    /// The buyer's bank took it.
    Dispute,
    /// The bank gave it back.
    DisputeWon,
}

impl Kind {
    /// The name in the table and for callers.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Sale => "sale",
            Kind::Refund => "refund",
            Kind::Dispute => "dispute",
            Kind::DisputeWon => "dispute_won",
        }
    }
}

/// Where a dispute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisputeStatus {
    /// The bank asks; no money has moved.
    Inquiry,
    /// The bank has the money and decides.
    Open,
    /// The money is back, or never left.
    Won,
    /// The bank keeps the money.
    Lost,
}

impl DisputeStatus {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            DisputeStatus::Inquiry => "inquiry",
            DisputeStatus::Open => "open",
            DisputeStatus::Won => "won",
            DisputeStatus::Lost => "lost",
        }
    }

    /// A dispute only goes up.
    pub fn rank(self) -> i64 {
        match self {
            DisputeStatus::Inquiry => 0,
            DisputeStatus::Open => 1,
            DisputeStatus::Won | DisputeStatus::Lost => 2,
        }
    }
}

/// An amount and how it is divided; negative when it is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// All of it.
    pub amount: i64,
    /// The developer's.
    pub developer: i64,
    /// The platform's.
    pub platform: i64,
}

/// Divides what is kept of a sale: 0 to [`MAX_SALE_MINOR`].
pub fn split(kept: i64) -> Split {
    let developer = kept * DEVELOPER_PERCENT / 100;
    Split { amount: kept, developer, platform: kept - developer }
}

/// What moves when of a sale of `amount` first `before` and now `after` is taken back, both 0 to `amount`. Any row of
/// steps from 0 to the same end moves the same in sum.
pub fn movement(amount: i64, before: i64, after: i64) -> Split {
    let (old, new) = (split(amount - before), split(amount - after));
    Split {
        amount: new.amount - old.amount,
        developer: new.developer - old.developer,
        platform: new.platform - old.platform,
    }
}

/// What of a sale is not there: paid back, with a bank, or kept by one. Never more than the sale.
pub fn taken_back(amount: i64, refunded: i64, disputed: i64, lost: i64) -> i64 {
    refunded.saturating_add(disputed).saturating_add(lost).min(amount)
}

/// What callers are told about a sale that was paid.
pub fn sale_status(amount: i64, refunded: i64, disputed: i64) -> &'static str {
    match refunded {
        _ if disputed > 0 => "disputed",
        0 => "paid",
        _ if refunded >= amount => "refunded",
        _ => "partly_refunded",
    }
}

/// What a period pays out: what was earned up to its end and is not paid, but not more than what is left of everything
/// earned since. 0 if there is a debt.
pub fn due(earned_until: i64, earned: i64, paid: i64) -> i64 {
    earned_until.min(earned).saturating_sub(paid).max(0)
}

/// The UTC month of a time in ms since 1970, such as `2026-11`.
pub fn period_of(now_ms: i64) -> String {
    let mut month = date(day_of(now_ms));
    month.truncate("2026-11".len());
    month
}

/// A period that can be paid out: a month that is over.
///
/// # Errors
/// [`Error::Invalid`] for what is no month, [`Error::NotNow`] for one that is not over.
pub fn finished_period(period: &str, now_ms: i64) -> Result<(), Error> {
    let month = match period.as_bytes() {
        [year @ .., b'-', tens, ones] if year.len() == 4 && year.iter().all(u8::is_ascii_digit) => [*tens, *ones],
        _ => [0, 0],
    };
    let is_month = matches!(month, [b'0', b'1'..=b'9'] | [b'1', b'0'..=b'2']);
    match period_of(now_ms).as_str() {
        _ if !is_month => Err(Error::Invalid("period must be a month such as 2026-11".to_owned())),
        current if period >= current => Err(Error::NotNow(format!("{period} is not over, pay it out afterwards"))),
        _ => Ok(()),
    }
}

/// Refuses what is no currency: three upper case letters.
pub fn currency(currency: &str) -> Result<(), Error> {
    if currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(Error::Invalid("currency must be an ISO 4217 code in upper case such as USD".to_owned()))
}

/// Refuses ids that are empty or too long; `name` is the field's.
pub fn id(name: &str, id: &str) -> Result<(), Error> {
    match id.len() {
        0 => Err(Error::Invalid(format!("{name} is required"))),
        1..=MAX_ID_BYTES => Ok(()),
        _ => Err(Error::Invalid(format!("{name} must have at most {MAX_ID_BYTES} bytes"))),
    }
}

/// Refuses prices that nothing can have.
pub fn price(amount_minor: i64) -> Result<(), Error> {
    if (0..=MAX_SALE_MINOR).contains(&amount_minor) {
        return Ok(());
    }
    Err(Error::Invalid(format!("amount_minor must be 0 to {MAX_SALE_MINOR}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_developers_share_is_rounded_down() {
        let of = |amount| {
            let Split { developer, platform, .. } = split(amount);
            (developer, platform)
        };
        assert_eq!(of(500), (350, 150));
        assert_eq!(of(333), (233, 100));
        assert_eq!(of(1), (0, 1));
        assert_eq!(of(0), (0, 0));
        assert_eq!(of(MAX_SALE_MINOR), (700_000_000, 300_000_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000_000))]

        #[test]
        fn any_price_and_any_refunds_sum_and_never_take_more_than_was_given(
            amount in 0..=MAX_SALE_MINOR,
            cuts in proptest::collection::vec(0..=MAX_SALE_MINOR, 0..6),
            disputed in 0..=MAX_SALE_MINOR,
        ) {
            let share = split(amount);
            prop_assert_eq!(share.developer, i64::try_from(i128::from(amount) * 70 / 100).unwrap());
            prop_assert_eq!(share.developer + share.platform, amount);
            let mut steps: Vec<i64> = cuts.iter().map(|cut| cut % (amount + 1)).collect();
            steps.sort_unstable();
            // A dispute takes some for a while and is won: up and down again.
            steps.push(taken_back(amount, steps.last().copied().unwrap_or(0), disputed, 0));
            steps.push(steps.len().checked_sub(2).map_or(0, |before| steps[before]));
            let (mut at, mut sum) = (0, share);
            for step in steps {
                let moved = movement(amount, at, step);
                prop_assert_eq!(moved.amount, moved.developer + moved.platform);
                prop_assert_eq!(moved.amount, at - step);
                (sum.amount, sum.developer) = (sum.amount + moved.amount, sum.developer + moved.developer);
                sum.platform += moved.platform;
                at = step;
                prop_assert_eq!(sum, split(amount - at));
                prop_assert!((0..=share.developer).contains(&sum.developer));
                prop_assert!((0..=share.platform).contains(&sum.platform));
            }
            let rest = movement(amount, at, amount);
            prop_assert_eq!((sum.developer + rest.developer, sum.platform + rest.platform), (0, 0));
        }
    }

    proptest! {
        #[test]
        fn a_period_never_pays_what_is_not_there(
            until in -1_000..1_000_i64, since in -1_000..1_000_i64, paid in 0..1_000_i64,
        ) {
            let pays = due(until, until + since, paid);
            prop_assert!(pays >= 0);
            prop_assert!(pays == 0 || (paid + pays <= until && paid + pays <= until + since));
        }
    }

    #[test]
    fn a_month_is_the_one_of_utc() {
        for (ms, period) in [
            (0, "1970-01"),
            (951_782_399_999, "2000-02"),
            (951_868_799_999, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_767_225_599_999, "2025-12"),
            (1_767_225_600_000, "2026-01"),
            (1_790_000_000_123, "2026-09"),
        ] {
            assert_eq!(period_of(ms), period, "{ms}");
        }
    }

    #[test]
    fn only_a_month_that_is_over_is_paid_out() {
        let now = 1_790_000_000_123;
        assert!(finished_period("2026-08", now).is_ok());
        assert!(finished_period("1999-12", now).is_ok());
        for early in ["2026-09", "2026-10", "2027-01"] {
            assert!(matches!(finished_period(early, now), Err(Error::NotNow(_))), "{early}");
        }
        for wrong in
            ["", "2026", "2026-8", "2026-00", "2026-13", "2026-1x", "2o26-08", "12026-08", "2026-08-01", "2026/08"]
        {
            assert!(matches!(finished_period(wrong, now), Err(Error::Invalid(_))), "{wrong}");
        }
    }

    #[test]
    fn fields_that_mean_nothing_are_refused() {
        for wrong in ["", "usd", "US", "USDX", "U$D", "ÄÖ"] {
            assert!(currency(wrong).is_err(), "{wrong}");
        }
        assert!(currency("USD").is_ok());
        assert!(price(-1).is_err() && price(MAX_SALE_MINOR + 1).is_err() && price(0).is_ok());
        assert!(id("buyer_id", "").is_err() && id("buyer_id", &"x".repeat(201)).is_err());
        assert!(id("buyer_id", &"x".repeat(200)).is_ok());
    }
}
