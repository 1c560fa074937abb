//! Days of the calendar, in UTC.
use std::fmt;

/// Length of a day in ms.
const DAY_MS: i64 = 86_400_000;
/// Days in the 400 years after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_FROM_MARCH_0: i64 = 719_468;

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    /// The day of an instant in ms since 1970.
    pub fn of_ms(ms: i64) -> Day {
        Day(ms.div_euclid(DAY_MS))
    }

    /// 00:00 UTC of the day, in ms since 1970.
    pub fn start_ms(self) -> i64 {
        self.0.saturating_mul(DAY_MS)
    }

    /// So many days later.
    pub fn plus(self, days: i64) -> Day {
        Day(self.0.saturating_add(days))
    }

    /// Whether an instant in ms since 1970 lies on this day.
    pub fn contains(self, ms: i64) -> bool {
        Day::of_ms(ms) == self
    }

    /// 0 for Monday to 6 for Sunday.
    pub fn weekday(self) -> i64 {
        // 1970-01-01 was a Thursday.
        (self.0 + 3).rem_euclid(7)
    }

    /// The next day after this one that is this weekday (0 for Monday).
    pub fn next(self, weekday: i64) -> Day {
        let ahead = (weekday - self.weekday()).rem_euclid(7);
        self.plus(if ahead == 0 { 7 } else { ahead })
    }

    /// The day written as `YYYY-MM-DD`, if there is such a day.
    pub fn parse(text: &str) -> Option<Day> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits: usize| {
            let part = parts.next()?;
            let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| part.parse::<i64>().ok()).flatten()
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        if !(1..=12).contains(&month) {
            return None;
        }
        let parsed = Day::of_date(year, month, day);
        (parsed.date() == (year, month, day)).then_some(parsed)
    }

    /// Years are counted from March, so that the leap day is the last one and months follow one formula.
    fn of_date(year: i64, month: i64, day: i64) -> Day {
        let march_year = if month > 2 { year } else { year - 1 };
        let march_month = (month + 9) % 12;
        let era = march_year.div_euclid(400);
        let year_of_era = march_year.rem_euclid(400);
        let day_of_year = (153 * march_month + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Day(era * ERA_DAYS + day_of_era - EPOCH_FROM_MARCH_0)
    }

    /// Year, month and day of month.
    fn date(self) -> (i64, i64, i64) {
        let days = self.0.saturating_add(EPOCH_FROM_MARCH_0);
        let era = days.div_euclid(ERA_DAYS);
        let day_of_era = days.rem_euclid(ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        (year, month, day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_800_years_is_written_and_read_back() {
        for count in -146_097..146_097 {
            let day = Day(count);
            let (year, month, date) = day.date();
            assert_eq!(Day::of_date(year, month, date), day);
            if count.rem_euclid(997) == 0 {
                assert_eq!(Day::parse(&day.to_string()), Some(day));
            }
        }
    }

    #[test]
    fn known_days_are_where_they_belong() {
        assert_eq!(Day(0).to_string(), "1970-01-01");
        assert_eq!(Day::parse("2000-02-29").unwrap().start_ms(), 951_782_400_000);
        assert_eq!(Day::parse("2026-11-20").unwrap().weekday(), 4);
        assert_eq!(Day::of_ms(-1).to_string(), "1969-12-31");
    }

    #[test]
    fn a_day_that_does_not_exist_is_refused() {
        for text in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "26-01-01",
            "2026-1-1",
            "2026-01-01T",
            "+026-01-01",
            "",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_next_friday_of_a_friday_is_a_week_away() {
        let friday = Day::parse("2026-11-20").unwrap();
        assert_eq!(friday.next(4).to_string(), "2026-11-27");
        assert_eq!(friday.next(0).to_string(), "2026-11-23");
    }
}
