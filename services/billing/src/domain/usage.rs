//! What a model call costs and what may be counted.
use weft_product::{ModelPrice, Product};

use crate::error::Error;

/// The limit that counts the tokens of a day.
pub const TOKENS_PER_DAY: &str = "max_tokens_per_day";
/// How the names of limits of a day end.
const PER_DAY: &str = "_per_day";
/// The most tokens of one call, in and out.
pub const MAX_TOKENS: i64 = 1_000_000_000_000;
/// The most that is counted at once.
pub const MAX_COUNT: i64 = MAX_TOKENS;
/// How long a call may run before it no longer counts as running, in ms.
const TTL_MS: std::ops::RangeInclusive<i64> = 1_000..=3_600_000;
/// How long it is if the caller does not say.
const DEFAULT_TTL_MS: i64 = 600_000;
/// The longest that a model is believed to have taken, in ms.
const MAX_LATENCY_MS: i64 = 24 * 3600 * 1000;
/// The longest name of a model, a role or a session, in bytes.
const NAME_MAX: usize = 200;
/// The longest name of a kind of event.
const KIND_MAX: usize = 40;
const MILLION: i128 = 1_000_000;

/// What tokens cost in millionths of a dollar: each direction by itself, rounded to the nearest and a half up.
/// None if it is more than 64 bits hold, which no tokens up to [`MAX_TOKENS`] reach.
pub fn cost_microdollars(price: ModelPrice, input_tokens: i64, output_tokens: i64) -> Option<i64> {
    let of = |tokens: i64, price: i64| {
        i64::try_from((i128::from(tokens) * i128::from(price) + MILLION / 2).div_euclid(MILLION)).ok()
    };
    of(input_tokens, price.input)?.checked_add(of(output_tokens, price.output)?)
}

/// Tokens in and out together.
///
/// # Errors
/// [`Error::Invalid`] for a negative number and for more than [`MAX_TOKENS`].
pub fn total_tokens(input_tokens: i64, output_tokens: i64) -> Result<i64, Error> {
    let total = input_tokens.checked_add(output_tokens).filter(|total| *total <= MAX_TOKENS);
    match total {
        Some(total) if input_tokens >= 0 && output_tokens >= 0 => Ok(total),
        _ => Err(Error::Invalid(format!(
            "input_tokens and output_tokens must be from 0, and at most {MAX_TOKENS} together"
        ))),
    }
}

/// How much is counted: 0 is 1.
///
/// # Errors
/// [`Error::Invalid`] for a negative number and for more than [`MAX_COUNT`].
pub fn count(field: &str, given: i64) -> Result<i64, Error> {
    match given {
        0 => Ok(1),
        1..=MAX_COUNT => Ok(given),
        _ => Err(Error::Invalid(format!("{field} must be between 1 and {MAX_COUNT}"))),
    }
}

/// Tokens that a call may use.
///
/// # Errors
/// [`Error::Invalid`] unless it is between 1 and [`MAX_TOKENS`].
pub fn reserved_tokens(given: i64) -> Result<i64, Error> {
    match given {
        1..=MAX_TOKENS => Ok(given),
        _ => Err(Error::Invalid(format!("tokens must be between 1 and {MAX_TOKENS}"))),
    }
}

/// How long a call counts as running, in ms.
///
/// # Errors
/// [`Error::Invalid`] outside of what is documented.
pub fn ttl_ms(given: i64) -> Result<i64, Error> {
    match given {
        0 => Ok(DEFAULT_TTL_MS),
        given if TTL_MS.contains(&given) => Ok(given),
        _ => Err(Error::Invalid(format!("ttl_ms must be between {} and {}", TTL_MS.start(), TTL_MS.end()))),
    }
}

/// How long a model took, in ms.
///
/// # Errors
/// [`Error::Invalid`] for a negative number and for more than a day.
pub fn latency_ms(given: i64) -> Result<i64, Error> {
    match given {
        0..=MAX_LATENCY_MS => Ok(given),
        _ => Err(Error::Invalid(format!("latency_ms must be between 0 and {MAX_LATENCY_MS}"))),
    }
}

/// The name of a model, a role or a session: no text that somebody wrote.
///
/// # Errors
/// [`Error::Invalid`] for more than 200 bytes or anything but visible ASCII.
pub fn name(field: &str, given: &str) -> Result<(), Error> {
    if given.len() <= NAME_MAX && given.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::Invalid(format!("{field} must be at most {NAME_MAX} visible ASCII characters")))
}

/// A kind of event.
///
/// # Errors
/// [`Error::Invalid`] unless it is 1 to 40 lower case letters and `_`.
pub fn kind(given: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    if (1..=KIND_MAX).contains(&given.len()) && given.bytes().all(allowed) {
        return Ok(());
    }
    Err(Error::Invalid(format!("kind must be 1 to {KIND_MAX} lower case letters or _")))
}

/// The limits of a day that the product has.
pub fn daily_limits(product: &Product) -> impl Iterator<Item = &String> {
    product.limits.keys().filter(|name| name.ends_with(PER_DAY))
}

/// That the product has this limit of a day.
///
/// # Errors
/// [`Error::Invalid`] if it has not.
pub fn daily_limit(product: &Product, name: &str) -> Result<(), Error> {
    if daily_limits(product).any(|limit| limit == name) {
        return Ok(());
    }
    Err(Error::Invalid(format!("the product has no limit {name:?} of a day, check limit")))
}

/// Why there is no room left under a limit of a day.
pub fn exceeded(plan: String, name: &str, limit: i64) -> Error {
    match name {
        TOKENS_PER_DAY => Error::DailyTokensExceeded { limit },
        name => Error::QuotaExceeded { plan, limit, name: name.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The decimal digits of `tokens * price / 1,000,000`, a half up, by hand: multiplied digit by digit, then the
    /// last six places cut off.
    fn by_hand(tokens: i64, price: i64) -> String {
        let digits = |number: i64| number.to_string().bytes().rev().map(|digit| u32::from(digit - b'0')).collect();
        let (a, b): (Vec<u32>, Vec<u32>) = (digits(tokens), digits(price));
        let mut product = vec![0_u32; a.len() + b.len() + 8];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                product[i + j] += x * y;
            }
        }
        product[5] += 5;
        for place in 0..product.len() - 1 {
            product[place + 1] += product[place] / 10;
            product[place] %= 10;
        }
        let text: String = product[6..].iter().rev().map(|digit| digit.to_string()).collect();
        let text = text.trim_start_matches('0');
        if text.is_empty() { "0".into() } else { text.into() }
    }

    proptest! {
        #[test]
        fn a_cost_is_what_one_gets_by_hand(
            input in 0..=MAX_TOKENS, output in 0..=MAX_TOKENS, price_in in 0..=1_000_000_000_i64, price_out in 0..=1_000_000_000_i64,
        ) {
            let cost = |price, tokens, other| cost_microdollars(price, tokens, other).map(|cost| cost.to_string());
            prop_assert_eq!(cost(ModelPrice { input: price_in, output: 0 }, input, output), Some(by_hand(input, price_in)));
            prop_assert_eq!(cost(ModelPrice { input: 0, output: price_out }, input, output), Some(by_hand(output, price_out)));
            let both = cost_microdollars(ModelPrice { input: price_in, output: price_out }, input, output);
            let sum = by_hand(input, price_in).parse::<i64>().unwrap() + by_hand(output, price_out).parse::<i64>().unwrap();
            prop_assert_eq!(both, Some(sum));
        }

        #[test]
        fn small_numbers_are_rounded_a_half_up(tokens in 0..2000_i64, price in 0..2000_i64) {
            let cost = cost_microdollars(ModelPrice { input: price, output: 0 }, tokens, 0).unwrap();
            prop_assert_eq!(cost.to_string(), by_hand(tokens, price));
            let doubled = 2 * (tokens * price - cost * 1_000_000);
            prop_assert!((-1_000_000..1_000_000).contains(&doubled), "{} off", doubled);
        }

        #[test]
        fn no_number_of_tokens_makes_the_cost_wrap(
            input in 0..i64::MAX, output in 0..i64::MAX, price in 0..i64::MAX,
        ) {
            if let Some(cost) = cost_microdollars(ModelPrice { input: price, output: price }, input, output) {
                prop_assert!(cost >= 0);
            }
        }
    }

    #[test]
    fn a_half_is_rounded_up_in_each_direction() {
        let price = ModelPrice { input: 500_000, output: 500_000 };
        assert_eq!(cost_microdollars(price, 1, 1), Some(2));
        assert_eq!(cost_microdollars(ModelPrice { input: 499_999, output: 499_999 }, 1, 1), Some(0));
    }

    #[test]
    fn sixty_thousand_in_and_forty_thousand_out_cost_what_the_list_says() {
        let sonnet = ModelPrice { input: 3_000_000, output: 15_000_000 };
        assert_eq!(cost_microdollars(sonnet, 60_000, 40_000), Some(780_000));
    }

    #[test]
    fn tokens_that_cannot_be_are_refused() {
        for (input, output) in
            [(-1, 5), (5, -1), (i64::MAX, i64::MAX), (i64::MAX, 1), (MAX_TOKENS, 1), (i64::MIN, i64::MIN)]
        {
            assert!(total_tokens(input, output).is_err(), "{input} {output}");
        }
        assert_eq!(total_tokens(MAX_TOKENS - 1, 1).unwrap(), MAX_TOKENS);
        assert_eq!(total_tokens(0, 0).unwrap(), 0);
    }
}
