//! The rule of amounts of credits.
use crate::error::Error;

/// The most micro-credits that one call may move, a thousand million credits.
pub const MAX_MICRO_CREDITS: i64 = 1_000_000_000_000_000;

/// An amount that moves: 1 to [`MAX_MICRO_CREDITS`] micro-credits.
///
/// # Errors
/// [`Error::Invalid`] for any other.
pub fn micro_credits(amount: i64) -> Result<i64, Error> {
    if (1..=MAX_MICRO_CREDITS).contains(&amount) {
        return Ok(amount);
    }
    Err(Error::Invalid(format!("amount must be 1 to {MAX_MICRO_CREDITS} micro-credits")))
}

/// The same for amounts that may be 0: what a hold sets aside, what a call has cost.
///
/// # Errors
/// [`Error::Invalid`] for a negative or larger one.
pub fn micro_credits_or_none(amount: i64) -> Result<i64, Error> {
    if amount == 0 { Ok(0) } else { micro_credits(amount) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_and_has_a_limit() {
        for good in [1, 100_000, MAX_MICRO_CREDITS] {
            assert_eq!(micro_credits(good).unwrap(), good);
        }
        for bad in [i64::MIN, -1, 0, MAX_MICRO_CREDITS + 1, i64::MAX] {
            assert!(matches!(micro_credits(bad), Err(Error::Invalid(_))), "{bad}");
        }
        assert_eq!(micro_credits_or_none(0).unwrap(), 0);
        assert!(micro_credits_or_none(-1).is_err());
    }
}
