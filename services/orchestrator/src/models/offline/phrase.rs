//! Small parts of sentences: openings, endings, quotes, dates.
use crate::domain::day::Day;

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
/// Furthest day that "in … days" may mean.
const DAYS_AHEAD: i64 = 3_660;

/// The rest after one of these openings, which may be in any case and must end at the end of a word.
pub fn after<'a>(text: &'a str, openings: &[&str]) -> Option<&'a str> {
    let rest_of = |opening: &&str| {
        let head = text.get(..opening.len())?;
        let rest = &text[opening.len()..];
        let at_end =
            rest.chars().next().is_none_or(|next| !next.is_alphanumeric()) || !opening.ends_with(char::is_alphanumeric);
        (head.eq_ignore_ascii_case(opening) && at_end).then(|| rest.trim_start())
    };
    openings.iter().find_map(rest_of)
}

/// The same as often as an opening fits.
pub fn after_all<'a>(mut text: &'a str, openings: &[&str]) -> &'a str {
    while let Some(rest) = after(text, openings) {
        text = rest;
    }
    text
}

/// The rest before one of these endings, which may be in any case and must begin at the beginning of a word.
pub fn before<'a>(text: &'a str, endings: &[&str]) -> Option<&'a str> {
    let rest_of = |ending: &&str| {
        let at = text.len().checked_sub(ending.len())?;
        let tail = text.get(at..)?;
        let rest = &text[..at];
        let at_start = rest.chars().next_back().is_none_or(char::is_whitespace);
        (tail.eq_ignore_ascii_case(ending) && at_start).then(|| rest.trim_end())
    };
    endings.iter().find_map(rest_of)
}

/// What stands before and after the last of these separators (` to `, `: ` …, in any case), neither empty.
pub fn split_last<'a>(text: &'a str, separators: &[&str]) -> Option<(&'a str, &'a str)> {
    let lower = text.to_ascii_lowercase();
    let found = separators.iter().filter_map(|separator| Some((lower.rfind(separator)?, separator.len())));
    let (at, length) = found.max()?;
    let (left, right) = (text[..at].trim(), text[at + length..].trim());
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}

/// The same for the first of them.
pub fn split_first<'a>(text: &'a str, separators: &[&str]) -> Option<(&'a str, &'a str)> {
    let lower = text.to_ascii_lowercase();
    let found = separators.iter().filter_map(|separator| Some((lower.find(separator)?, separator.len())));
    let (at, length) = found.min()?;
    let (left, right) = (text[..at].trim(), text[at + length..].trim());
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}

/// What stands between quotes, or the text itself.
pub fn unquoted(text: &str) -> &str {
    let text = text.trim();
    [('"', '"'), ('\'', '\''), ('“', '”'), ('‘', '’'), ('«', '»'), ('`', '`')]
        .iter()
        .find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close))
        .map_or(text, str::trim)
}

/// The same text beginning with a capital.
pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Takes a day off the end of a text: "call Ana tomorrow", "… by next Friday", "… in 3 days", "… on 2026-12-24".
/// A time after it ("tomorrow at 5pm") stays in the text. A weekday is the next one after today.
pub fn take_day(text: &str, today: Day) -> (String, Option<Day>) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let time =
        words.iter().rposition(|word| word.eq_ignore_ascii_case("at")).filter(|at| *at > 0 && at + 1 < words.len());
    for end in [Some(words.len()), time].into_iter().flatten() {
        for length in (1..=4.min(end)).rev() {
            let Some(day) = day_of(&words[end - length..end], today) else { continue };
            let kept = without_preposition(&words[..end - length]);
            let rest: Vec<&str> = kept.iter().chain(&words[end..]).copied().collect();
            return (rest.join(" ").trim_end_matches([',', ';']).to_owned(), Some(day));
        }
    }
    (text.trim().to_owned(), None)
}

fn without_preposition<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    let mut words = words;
    while let Some((last, rest)) = words.split_last() {
        let word = last.trim_matches([',', '(']).to_ascii_lowercase();
        if !["due", "by", "for", "on", "until", "till", "before"].contains(&word.as_str()) {
            break;
        }
        words = rest;
    }
    words
}

fn day_of(words: &[&str], today: Day) -> Option<Day> {
    let lower: Vec<String> =
        words.iter().map(|word| word.trim_matches([',', '.', '(', ')']).to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower[..] {
        ["today" | "tonight"] => Some(today),
        ["tomorrow"] => Some(today.plus(1)),
        ["the", "day", "after", "tomorrow"] => Some(today.plus(2)),
        ["next", "week"] => Some(today.plus(7)),
        ["in", count, unit] => Some(today.plus(days_in(count, unit)?)),
        ["next" | "this", weekday] | [weekday] => match weekday_of(weekday) {
            Some(weekday) => Some(today.next(weekday)),
            None if lower.len() == 1 => Day::parse(weekday),
            None => None,
        },
        _ => None,
    }
}

fn weekday_of(word: &str) -> Option<i64> {
    WEEKDAYS.iter().position(|known| *known == word).and_then(|at| i64::try_from(at).ok())
}

fn days_in(count: &str, unit: &str) -> Option<i64> {
    let count = match count {
        "a" | "an" => 1,
        word => match NUMBERS.iter().position(|known| *known == word) {
            Some(number) => i64::try_from(number).ok()?,
            None => word.parse().ok().filter(|number| (0..=DAYS_AHEAD).contains(number))?,
        },
    };
    match unit {
        "day" | "days" => Some(count),
        "week" | "weeks" => Some(count * 7),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn friday() -> Day {
        Day::parse("2026-11-20").unwrap()
    }

    #[test]
    fn a_day_is_taken_off_the_end() {
        for (text, rest, day) in [
            ("call Ana tomorrow", "call Ana", "2026-11-21"),
            ("call Ana today", "call Ana", "2026-11-20"),
            ("send it by next Friday", "send it", "2026-11-27"),
            ("send it on monday", "send it", "2026-11-23"),
            ("pay rent, due 2026-12-01", "pay rent", "2026-12-01"),
            ("water the plants in 3 days", "water the plants", "2026-11-23"),
            ("renew in two weeks", "renew", "2026-12-04"),
            ("call Ana tomorrow at 5 pm", "call Ana at 5 pm", "2026-11-21"),
            ("fly the day after tomorrow", "fly", "2026-11-22"),
            ("report (due Friday)", "report", "2026-11-27"),
        ] {
            let (left, found) = take_day(text, friday());
            assert_eq!((left.as_str(), found.map(|day| day.to_string()).as_deref()), (rest, Some(day)), "{text}");
        }
    }

    #[test]
    fn a_text_without_a_day_stays_as_it_is() {
        for text in ["call Ana", "prepare tomorrow's meeting", "look at", "at", "", "plan 2026-13-40", "in 99999 days"]
        {
            assert_eq!(take_day(text, friday()), (text.to_owned(), None), "{text}");
        }
    }

    #[test]
    fn openings_end_at_the_end_of_a_word() {
        assert_eq!(after("Add a task", &["add"]), Some("a task"));
        assert_eq!(after("address Bo", &["add"]), None);
        assert_eq!(after("éa", &["ea"]), None);
        assert_eq!(after_all("please, could you list", &["please", "could you", ","]), "list");
        assert_eq!(before("do it Please", &["please"]), Some("do it"));
    }

    #[test]
    fn quotes_come_off_in_pairs() {
        assert_eq!(unquoted(" “Call Ana” "), "Call Ana");
        assert_eq!(unquoted("'Call"), "'Call");
        assert_eq!(unquoted("\""), "\"");
    }
}
