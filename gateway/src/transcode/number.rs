//! Scalars onto the wire, with their ranges.
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::decimal;
use super::table::Kind;
use super::wire::{close, open, put_varint};

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, ANY_PADDING);

/// Why a value does not fit its field. The sentence ends "… expected {this}".
pub type Expected = &'static str;

/// What a field of this kind takes.
pub fn expected(kind: Kind) -> Expected {
    match kind {
        Kind::Double | Kind::Float => "a number",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit integer",
        Kind::Decimal(decimals) => decimal::expected(decimals),
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        Kind::Bool => "true or false",
        Kind::String => "a string",
        Kind::Bytes => "a base64 string",
        Kind::Enum(_) => "a name or number of the enum",
        Kind::Message(_) => "an object",
    }
}

/// Appends an integer to a numeric field.
pub fn put_integer(out: &mut Vec<u8>, kind: Kind, value: i128) -> Result<(), Expected> {
    let range = || expected(kind);
    match kind {
        Kind::Double => out.extend_from_slice(&(value as f64).to_le_bytes()),
        Kind::Float => out.extend_from_slice(&(value as f32).to_le_bytes()),
        Kind::Int32 | Kind::Enum(_) => {
            put_varint(out, i64::from(i32::try_from(value).map_err(|_range| range())?) as u64)
        }
        Kind::Int64 => put_varint(out, i64::try_from(value).map_err(|_range| range())? as u64),
        Kind::Uint32 => put_varint(out, u64::from(u32::try_from(value).map_err(|_range| range())?)),
        Kind::Uint64 => put_varint(out, u64::try_from(value).map_err(|_range| range())?),
        Kind::Sint32 => {
            let value = i32::try_from(value).map_err(|_range| range())?;
            put_varint(out, u64::from((value << 1 ^ value >> 31) as u32));
        }
        Kind::Sint64 => {
            let value = i64::try_from(value).map_err(|_range| range())?;
            put_varint(out, (value << 1 ^ value >> 63) as u64);
        }
        Kind::Fixed32 => out.extend_from_slice(&u32::try_from(value).map_err(|_range| range())?.to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&u64::try_from(value).map_err(|_range| range())?.to_le_bytes()),
        Kind::Sfixed32 => out.extend_from_slice(&i32::try_from(value).map_err(|_range| range())?.to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&i64::try_from(value).map_err(|_range| range())?.to_le_bytes()),
        Kind::Decimal(_) | Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => return Err(range()),
    }
    Ok(())
}

/// Appends a number with a point or an exponent. Integer fields take it when nothing is lost (`1e3`, `2.0`).
pub fn put_float(out: &mut Vec<u8>, kind: Kind, value: f64) -> Result<(), Expected> {
    match kind {
        Kind::Double => out.extend_from_slice(&value.to_le_bytes()),
        Kind::Float => {
            let narrow = value as f32;
            if narrow.is_infinite() && value.is_finite() {
                return Err("a number that fits 32 bits");
            }
            out.extend_from_slice(&narrow.to_le_bytes());
        }
        // Past 2^64 no integer field can hold it, and below it the conversion to i128 is exact.
        _ if value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0 => {
            return put_integer(out, kind, value as i128);
        }
        _ => return Err(expected(kind)),
    }
    Ok(())
}

/// Appends a number that is written as text: in a JSON string, a map key, a path or a query.
pub fn put_number_text(out: &mut Vec<u8>, kind: Kind, text: &str) -> Result<(), Expected> {
    if let Kind::Decimal(decimals) = kind {
        put_varint(out, decimal::read(text, decimals)? as u64);
        return Ok(());
    }
    if let Ok(value) = text.parse::<i128>()
        && !text.starts_with('+')
    {
        return put_integer(out, kind, value);
    }
    let floating = matches!(kind, Kind::Double | Kind::Float);
    let value = match text {
        "NaN" if floating => f64::NAN,
        "Infinity" if floating => f64::INFINITY,
        "-Infinity" if floating => f64::NEG_INFINITY,
        // Rust would read `inf`, `nan` and `+1`, JSON does not.
        _ if !text.starts_with(|first: char| first.is_ascii_digit() || first == '-')
            || text.ends_with(|last: char| last.is_alphabetic()) =>
        {
            return Err(expected(kind));
        }
        _ => text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(expected(kind))?,
    };
    put_float(out, kind, value)
}

/// Appends decoded base64 with its length in front. Both alphabets, padded or not.
pub fn put_base64(out: &mut Vec<u8>, text: &str) -> Result<(), Expected> {
    let engine = if text.bytes().any(|byte| byte == b'-' || byte == b'_') { &URL_SAFE } else { &STANDARD };
    let begun = open(out);
    engine.decode_vec(text, out).map_err(|_invalid| expected(Kind::Bytes))?;
    close(out, begun);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, text: &str) -> Result<Vec<u8>, Expected> {
        let mut out = Vec::new();
        put_number_text(&mut out, kind, text).map(|()| out)
    }

    #[test]
    fn integers_keep_their_ranges() {
        assert!(text(Kind::Int32, "2147483647").is_ok());
        assert!(text(Kind::Int32, "2147483648").is_err());
        assert!(text(Kind::Uint64, "18446744073709551615").is_ok());
        assert!(text(Kind::Uint64, "18446744073709551616").is_err());
        assert!(text(Kind::Uint32, "-1").is_err());
        assert_eq!(text(Kind::Sint32, "-1").unwrap(), [1]);
        assert_eq!(text(Kind::Int64, "1e3").unwrap(), text(Kind::Int64, "1000").unwrap());
        assert!(text(Kind::Int64, "1.5").is_err());
    }

    #[test]
    fn numbers_that_are_not_json_are_refused() {
        for bad in ["", "+1", "inf", "nan", "0x10", "1e400", "1_000", " 1", "1f"] {
            assert!(text(Kind::Double, bad).is_err(), "{bad}");
        }
        assert!(text(Kind::Double, "NaN").is_ok());
        assert!(text(Kind::Int32, "NaN").is_err());
        assert!(text(Kind::Float, "1e39").is_err());
    }

    #[test]
    fn base64_comes_in_both_alphabets_padded_or_not() {
        for good in ["+/8=", "-_8=", "+/8", "-_8"] {
            let mut out = Vec::new();
            put_base64(&mut out, good).unwrap();
            assert_eq!(out, [2, 0xfb, 0xff], "{good}");
        }
        for bad in ["*", "a", "+_8=", "aGk=="] {
            assert!(put_base64(&mut Vec::new(), bad).is_err(), "{bad}");
        }
    }
}
