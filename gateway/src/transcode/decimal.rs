//! Integers that JSON shows as decimal numbers (`weft.options.v1.json`), exactly: no float lies in between.
use std::io::Write;

use super::number::Expected;

/// Most decimal places; 10^9 is a billionth.
pub const MAX_DECIMALS: u32 = 9;
/// Digits of the largest integer.
const MAX_DIGITS: usize = 19;

/// What a field with so many places takes.
pub fn expected(decimals: u8) -> Expected {
    match decimals {
        1 => "a number with at most 1 decimal place, within 64 bits without its point",
        2 => "a number with at most 2 decimal places, within 64 bits without its point",
        3 => "a number with at most 3 decimal places, within 64 bits without its point",
        4 => "a number with at most 4 decimal places, within 64 bits without its point",
        5 => "a number with at most 5 decimal places, within 64 bits without its point",
        6 => "a number with at most 6 decimal places, within 64 bits without its point",
        7 => "a number with at most 7 decimal places, within 64 bits without its point",
        8 => "a number with at most 8 decimal places, within 64 bits without its point",
        9 => "a number with at most 9 decimal places, within 64 bits without its point",
        _ => "a 64-bit integer",
    }
}

/// Appends `value` in units of 10^-decimals as a decimal number, without trailing zeros.
pub fn write(out: &mut Vec<u8>, value: i64, decimals: u8) {
    let unit = 10_u64.pow(decimals.into());
    let (whole, mut rest) = (value.unsigned_abs() / unit, value.unsigned_abs() % unit);
    let sign = if value < 0 { "-" } else { "" };
    // Writing to a vector cannot fail.
    let _written = write!(out, "{sign}{whole}");
    if rest > 0 {
        let mut places = usize::from(decimals);
        while rest % 10 == 0 {
            (rest, places) = (rest / 10, places - 1);
        }
        let _written = write!(out, ".{rest:0places$}");
    }
}

/// Reads a decimal number in units of 10^-decimals. Exponents are fine, as long as nothing is lost.
pub fn read(text: &str, decimals: u8) -> Result<i64, Expected> {
    exact(text, decimals).ok_or(expected(decimals))
}

fn exact(text: &str, decimals: u8) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || unsigned.is_empty() || ![whole, fraction, unsigned].into_iter().all(are_digits) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // Zeros to append until the unit is reached; fewer than none would lose digits.
    let exponent: i64 = exponent.parse().ok()?;
    let places = i64::try_from(fraction.len()).ok()? - i64::try_from(zeros).ok()?;
    let append = usize::try_from(i64::from(decimals).checked_sub(places)?.checked_add(exponent)?).ok()?;
    if append > MAX_DIGITS || significant.len() > MAX_DIGITS - append {
        return None;
    }
    let magnitude: i128 = format!("{significant}{}", "0".repeat(append)).parse().ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

    use super::*;
    use crate::transcode::{Tables, read_message, write_message};

    fn written(value: i64, decimals: u8) -> String {
        let mut out = Vec::new();
        write(&mut out, value, decimals);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_integer_is_written_as_the_decimal_number_itself() {
        for (value, decimals, text) in [
            (2_039_950_000, 6, "2039.95"),
            (10_000_000, 6, "10"),
            (-100_000, 6, "-0.1"),
            (1, 6, "0.000001"),
            (-1, 9, "-0.000000001"),
            (0, 6, "0"),
            (1_050, 2, "10.5"),
            (i64::MAX, 6, "9223372036854.775807"),
            (i64::MIN, 6, "-9223372036854.775808"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(written(value, decimals), text);
            assert_eq!(read(text, decimals), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_exact_is_read_however_it_is_written() {
        for (text, value) in [
            ("10.0", 10_000_000),
            ("1e3", 1_000_000_000),
            ("1.5E+3", 1_500_000_000),
            ("15e-1", 1_500_000),
            ("1e-6", 1),
            ("10e-7", 1),
            ("0.1000000000000000000000000", 100_000),
            ("-0", 0),
            ("0e99999999999999999999", 0),
            ("0.000e-5", 0),
            ("9223372036854.775807", i64::MAX),
            ("-9223372036854.775808", i64::MIN),
            ("0.09223372036854775807e14", i64::MAX),
        ] {
            assert_eq!(read(text, 6), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_loses_something_or_is_no_number_is_refused() {
        for text in [
            "0.0000001",
            "2039.9500001",
            "1e-7",
            "15e-7",
            "1.0000000000000000000000001",
            "9223372036854.775808",
            "-9223372036854.775809",
            "9223372036854775807",
            "1e13",
            "1e400",
            "1e-400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "",
            "-",
            "+1",
            ".5",
            "5.",
            "1.e3",
            "e3",
            "1e",
            "1e+",
            "--1",
            "1.2.3",
            "1e2e3",
            "1,5",
            "1_0",
            " 1",
            "1 ",
            "0x1",
            "NaN",
            "Infinity",
            "\u{661}",
            "1.\u{661}",
        ] {
            assert_eq!(read(text, 6), Err(expected(6)), "{text}");
        }
    }

    /// The shop's tables, and its message with decimal fields of every label.
    fn credits() -> (Tables, MessageDescriptor) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compiler = protox::Compiler::new([here.join("tests/proto"), here.join("../proto")]).unwrap();
        compiler.include_imports(true).open_file("shop/v1/shop.proto").unwrap();
        let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
        (Tables::new(&pool).unwrap(), pool.get_message_by_name("shop.v1.Credits").unwrap())
    }

    #[test]
    fn a_message_goes_through_json_and_back_unchanged() {
        let (tables, descriptor) = credits();
        let id = tables.id("shop.v1.Credits").unwrap();
        let many = || prop::collection::vec(any::<i64>(), 0..5);
        let fields = (any::<i64>(), prop::option::of(-3_000_000i64..3_000_000), many(), many());
        let run = TestRunner::default().run(&fields, |(balance, bonus, history, loose)| {
            let list = |all: Vec<i64>| Value::List(all.into_iter().map(Value::I64).collect());
            let mut message = DynamicMessage::new(descriptor.clone());
            message.set_field_by_name("balance", Value::I64(balance));
            message.set_field_by_name("history", list(history));
            message.set_field_by_name("loose", list(loose));
            if let Some(bonus) = bonus {
                message.set_field_by_name("bonus", Value::I64(bonus));
            }
            let mut json = Vec::new();
            write_message(&tables, id, &message.encode_to_vec(), &mut json).unwrap();
            let back = read_message(&tables, id, &json, 10, Vec::new()).unwrap();
            let back = DynamicMessage::decode(descriptor.clone(), back.as_slice()).unwrap();
            prop_assert_eq!(back.encode_to_vec(), message.encode_to_vec());
            Ok(())
        });
        run.unwrap();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any::<i64>(), small in -2_000_000i64..2_000_000, decimals in 0u8..=9) {
            for value in [value, small] {
                let text = written(value, decimals);
                prop_assert_eq!(read(&text, decimals), Ok(value));
                prop_assert!(!text.contains('.') || !text.ends_with('0'), "{}", text);
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                prop_assert!(json.is_number());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "-?[0-9]{0,30}\\.?[0-9]{0,30}([eE][+-]?[0-9]{0,25})?", decimals in 0u8..=9) {
            if let Ok(value) = read(&text, decimals) {
                let again = read(&written(value, decimals), decimals);
                prop_assert_eq!(again, Ok(value));
            }
        }
    }
}
