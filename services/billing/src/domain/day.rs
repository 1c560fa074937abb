//! UTC days, weeks and months, as numbers of days since 1970.

/// A day in ms; UTC as computers count it has no other length.
pub const DAY_MS: i64 = 24 * 3600 * 1000;

/// The day of a time in ms since 1970.
pub fn day_of(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

/// When a day begins, ms since 1970.
pub fn begins_at(day: i64) -> i64 {
    day.saturating_mul(DAY_MS)
}

/// The Monday of the day's week.
pub fn monday_of(day: i64) -> i64 {
    // Day 0 was a Thursday.
    day - (day + 3).rem_euclid(7)
}

/// The first of the day's month.
pub fn first_of_month(day: i64) -> i64 {
    let (_, _, of_month) = civil(day);
    day - (of_month - 1)
}

/// `2026-11-21`.
pub fn date(day: i64) -> String {
    let (year, month, of_month) = civil(day);
    format!("{year:04}-{month:02}-{of_month:02}")
}

/// Year, month and day of the month in the Gregorian calendar. Counted in years that begin in March, so that the
/// leap day is a year's last: then the months before it are as long in every year.
fn civil(day: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(DAYS_OF_400_YEARS), day.rem_euclid(DAYS_OF_400_YEARS));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_hundred_years_is_the_next_of_the_one_before() {
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let (mut year, mut month, mut of_month) = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(civil(day), (year, month, of_month), "day {day}");
            assert_eq!(first_of_month(day), day - of_month + 1);
            let length = match month {
                2 if leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            of_month += 1;
            if of_month > length {
                (month, of_month) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 2026-11-21 is a Saturday.
        let saturday = day_of(1_795_219_200_000);
        assert_eq!(date(saturday), "2026-11-21");
        assert_eq!(date(monday_of(saturday)), "2026-11-16");
        assert_eq!(date(monday_of(saturday + 1)), "2026-11-16");
        assert_eq!(date(monday_of(saturday + 2)), "2026-11-23");
    }

    #[test]
    fn a_day_ends_with_its_last_millisecond() {
        assert_eq!(day_of(begins_at(20_778) - 1), 20_777);
        assert_eq!(day_of(begins_at(20_778)), 20_778);
        assert_eq!(date(0), "1970-01-01");
    }
}
