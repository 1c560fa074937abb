//! Whether bytes are a message, without making one of them.
//!
//! A service that cannot decode a request can only say that it failed, as if it were its own fault. The edge looks
//! first, with the same rules and the same limit of nesting, and says whose fault it is.
use super::WireError;
use super::table::{Kind, Label, MessageId, Tables};
use super::wire::{BYTES, Reader};

/// Messages inside each other that services decode; prost's limit.
pub const MAX_WIRE_DEPTH: u32 = 100;

/// Checks the wire bytes of a message: tags, lengths, wire types, UTF-8, nesting.
pub fn check_message(tables: &Tables, id: MessageId, wire: &[u8]) -> Result<(), WireError> {
    check(tables, id, wire, 0)
}

fn check(tables: &Tables, id: MessageId, wire: &[u8], depth: u32) -> Result<(), WireError> {
    if depth > MAX_WIRE_DEPTH {
        return Err(WireError::TooDeep);
    }
    let message = tables.message(id);
    let mut reader = Reader::new(wire);
    let mut hint = 0;
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        let value = reader.value(wire_type)?;
        let Some(index) = message.by_number(number, hint) else { continue };
        hint = index + 1;
        let field = &message.fields[index];
        if let Label::Map(key) = field.label {
            check_entry(tables, key, field.kind, value, depth + 1)?;
            continue;
        }
        let packed =
            matches!(field.label, Label::Repeated { .. }) && wire_type == BYTES && field.kind.wire_type() != BYTES;
        if packed {
            let mut run = Reader::new(value);
            while !run.is_empty() {
                run.value(field.kind.wire_type())?;
            }
        } else if wire_type == field.kind.wire_type() {
            check_value(tables, field.kind, value, depth)?;
        } else {
            return Err(WireError::Malformed);
        }
    }
    Ok(())
}

fn check_value(tables: &Tables, kind: Kind, value: &[u8], depth: u32) -> Result<(), WireError> {
    match kind {
        Kind::String if std::str::from_utf8(value).is_err() => Err(WireError::Malformed),
        Kind::Message(id) => check(tables, id, value, depth + 1),
        _ => Ok(()),
    }
}

fn check_entry(tables: &Tables, key: Kind, kind: Kind, wire: &[u8], depth: u32) -> Result<(), WireError> {
    if depth > MAX_WIRE_DEPTH {
        return Err(WireError::TooDeep);
    }
    let mut reader = Reader::new(wire);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        let value = reader.value(wire_type)?;
        let kind = match number {
            1 => key,
            2 => kind,
            _ => continue,
        };
        if wire_type != kind.wire_type() {
            return Err(WireError::Malformed);
        }
        check_value(tables, kind, value, depth)?;
    }
    Ok(())
}
