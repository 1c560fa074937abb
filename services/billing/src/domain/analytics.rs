//! How numbers of analytics are made of sums.
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How many days the latest activity has, today included.
pub const DAYS: i64 = 30;

/// The last [`DAYS`] days up to today, as days since 1970.
pub fn last_days(today: i64) -> RangeInclusive<i64> {
    today - (DAYS - 1)..=today
}

/// `part` of `all`, 0 to 1, to four places, a half up; 0 of nothing. More than all is all.
pub fn rate(part: i64, all: i64) -> f64 {
    const PLACES: i128 = 10_000;
    if all <= 0 || part <= 0 {
        return 0.0;
    }
    let (part, all) = (i128::from(part.min(all)), i128::from(all));
    let rounded = (part * PLACES + all / 2) / all;
    // At most 10,000.
    f64::from(i32::try_from(rounded).unwrap_or_default()) / 10_000.0
}

/// What an account did on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    /// Micro-credits.
    pub credits_used: i64,
    /// Model calls.
    pub calls: i64,
    /// Tokens, in and out.
    pub tokens: i64,
    /// Of all kinds.
    pub events: i64,
}

/// Every day of `days`, also one that nothing is known of.
pub fn filled(days: RangeInclusive<i64>, known: &BTreeMap<i64, Day>) -> Vec<(i64, Day)> {
    days.map(|day| (day, known.get(&day).copied().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reply_to_thirty_messages_is_a_rate_of_0_0333() {
        let shown = |part, all| rate(part, all).to_string();
        assert_eq!(shown(1, 30), "0.0333");
        assert_eq!(shown(2, 3), "0.6667");
        assert_eq!(shown(1, 20_000), "0.0001");
        assert_eq!(shown(1, 20_001), "0");
    }

    #[test]
    fn a_rate_is_never_below_0_above_1_or_of_nothing() {
        let cases = [(0, 0), (5, 0), (0, 5), (7, 5), (-3, 5), (i64::MAX, i64::MAX), (i64::MAX, 1)];
        let rates: Vec<String> = cases.iter().map(|(part, all)| rate(*part, *all).to_string()).collect();
        assert_eq!(rates, ["0", "0", "0", "1", "0", "1", "1"]);
    }

    #[test]
    fn the_last_days_are_thirty_and_end_today() {
        let days = filled(last_days(20_000), &BTreeMap::from([(20_000, Day { calls: 1, ..Day::default() })]));
        assert_eq!(days.len(), 30);
        assert_eq!(days[0], (19_971, Day::default()));
        assert_eq!(days[29].1.calls, 1);
    }
}
