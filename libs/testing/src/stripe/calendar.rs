//! When a period ends: Stripe counts months by the calendar and keeps the day of the anchor where the month has it.

const DAY_S: i64 = 86_400;

/// The end of the period that begins at `start`, for a subscription anchored at `anchor` (all in seconds since 1970).
pub(super) fn period_end(start: i64, interval: &str, count: i64, anchor: i64) -> i64 {
    match interval {
        "day" => start + count * DAY_S,
        "week" => start + 7 * count * DAY_S,
        "year" => months_later(start, 12 * count, anchor),
        _ => months_later(start, count, anchor),
    }
}

fn months_later(start: i64, months: i64, anchor: i64) -> i64 {
    let (year, month, _) = civil(start.div_euclid(DAY_S));
    let (_, _, day) = civil(anchor.div_euclid(DAY_S));
    let month = year * 12 + month - 1 + months;
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
    let first = days(year, month, 1);
    let length = days(year, month + 1, 1) - first;
    (first + day.min(length) - 1) * DAY_S + start.rem_euclid(DAY_S)
}

/// Days since 1970 of a date of the Gregorian calendar; month 13 is January of the next year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year is counted from March, so that the leap day is its last.
    let from_march = month - 3;
    let year = year + from_march.div_euclid(12);
    let day_of_year = (153 * from_march.rem_euclid(12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Year, month and day of a day since 1970.
fn civil(day: i64) -> (i64, i64, i64) {
    // Never before the right year, and at most one after it.
    let mut year = 1970 + day.div_euclid(365);
    while days(year, 1, 1) > day {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= day).unwrap_or(1);
    (year, month, day - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_keeps_the_day_of_the_anchor_where_there_is_one() {
        // 2024-01-31T12:00:00Z; expected from `date -u -d … +%s`.
        let anchor = 1_706_702_400;
        let february = period_end(anchor, "month", 1, anchor);
        assert_eq!(february, 1_709_208_000, "2024-02-29T12:00:00Z");
        assert_eq!(period_end(february, "month", 1, anchor), 1_711_886_400, "2024-03-31T12:00:00Z");
        assert_eq!(period_end(february, "year", 1, february), 1_740_744_000, "2025-02-28T12:00:00Z");
        assert_eq!(period_end(anchor, "week", 2, anchor), anchor + 14 * DAY_S);
        assert_eq!(period_end(1_735_560_000, "month", 2, 1_735_560_000), 1_740_744_000, "2024-12-30 to 2025-02-28");
    }
}
