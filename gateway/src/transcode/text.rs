//! Values that stand in a path or a query, onto the wire.
use prost::Message as _;
use prost_reflect::DynamicMessage;

use super::number::{expected, put_base64, put_integer, put_number_text};
use super::table::{FieldPath, Kind, Label, MessageId, Shape, Tables};
use super::wire::{BYTES, close, open, put_tag, put_varint};

/// What is wrong with a text: the sentence ends "… must be {this}".
#[derive(Debug, thiserror::Error)]
#[error("must be {0}")]
pub struct TextError(String);

/// Appends one value of a field. For a repeated field each call appends an element; several calls for parts of
/// one nested message merge, as protobuf does with any field that comes twice.
pub fn set_text(
    tables: &Tables,
    id: MessageId,
    path: &FieldPath,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), TextError> {
    let mut message = tables.message(id);
    let mut opened = Vec::new();
    for (place, index) in path.0.iter().enumerate() {
        let Some(field) = message.fields.get(*index as usize) else { break };
        if place + 1 == path.0.len() {
            if matches!(field.label, Label::Map(_)) {
                return Err(TextError("given in the body".to_owned()));
            }
            put_tag(out, field.number, field.kind.wire_type());
            put_one(tables, field.kind, text, out)?;
        } else if let Kind::Message(next) = field.kind {
            put_tag(out, field.number, BYTES);
            opened.push(open(out));
            message = tables.message(next);
        }
    }
    opened.into_iter().rev().for_each(|begun| close(out, begun));
    Ok(())
}

fn put_one(tables: &Tables, kind: Kind, text: &str, out: &mut Vec<u8>) -> Result<(), TextError> {
    let fits = |what: &str| TextError(what.to_owned());
    match kind {
        Kind::String => {
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Kind::Bytes => put_base64(out, text).map_err(fits)?,
        Kind::Bool => match text {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return Err(fits(expected(kind))),
        },
        Kind::Enum(id) => {
            let one = tables.enumeration(id);
            let number = one
                .number(text)
                .or_else(|| text.parse().ok())
                .ok_or_else(|| TextError(format!("a value of {}", one.name)))?;
            put_integer(out, kind, number.into()).map_err(fits)?;
        }
        Kind::Message(id) => {
            let message = tables.message(id);
            if message.shape != Shape::WellKnown {
                return Err(fits("given in the body"));
            }
            let quoted = serde_json::Value::String(text.to_owned());
            // Wrappers of bools take no string; their text is JSON as it stands.
            let value = DynamicMessage::deserialize(message.descriptor.clone(), quoted).or_else(|error| {
                let json = serde_json::from_str::<serde_json::Value>(text).map_err(|_error| error)?;
                DynamicMessage::deserialize(message.descriptor.clone(), json)
            });
            let value = value.map_err(|_error| TextError(format!("a {}", message.descriptor.full_name())))?;
            let begun = open(out);
            value.encode(out).map_err(|error| TextError(error.to_string()))?;
            close(out, begun);
        }
        _ => put_number_text(out, kind, text).map_err(fits)?,
    }
    Ok(())
}
