//! Wire bytes in, JSON out: one scan to find the fields, one walk to print them in order.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde::Serialize;

use super::WireError;
use super::decimal;
use super::table::{Absent, Field, FieldPath, Kind, Label, Message, MessageId, Shape, Tables};
use super::wire::{BYTES, Reader};

/// Levels of nesting that are printed. More than requests may have, less than the stack has.
const MAX_DEPTH: u32 = 128;

/// Prints the wire bytes of a message as a JSON object at the end of `out`.
pub fn write_message(tables: &Tables, id: MessageId, wire: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
    Writing { tables, out, spans: Vec::with_capacity(32) }.message(tables.message(id), wire, 0)
}

/// Prints one field of a message, `null` if it is a message that is absent.
pub fn write_field(
    tables: &Tables,
    id: MessageId,
    path: &FieldPath,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut writing = Writing { tables, out, spans: Vec::new() };
    let mut message = tables.message(id);
    let mut wire = std::borrow::Cow::Borrowed(wire);
    for (place, index) in path.0.iter().enumerate() {
        let Some(field) = message.fields.get(*index as usize) else { break };
        let spans = writing.scan(message, &wire)?;
        let found: Vec<Span> = writing.spans[spans..].iter().filter(|span| span.field == *index).copied().collect();
        if place + 1 == path.0.len() {
            if found.is_empty() && field.label == Label::Optional {
                writing.out.extend_from_slice(b"null");
                return Ok(());
            }
            return writing.value(field, &found, &wire, 0);
        }
        let inner = merged(&found, &wire).into_owned();
        if let Kind::Message(next) = field.kind {
            message = tables.message(next);
        }
        wire = std::borrow::Cow::Owned(inner);
    }
    Ok(())
}

/// The last occurrence of a length-delimited field by its number, as it stands on the wire.
pub fn find_bytes(wire: &[u8], number: u32) -> Result<Option<&[u8]>, WireError> {
    let mut reader = Reader::new(wire);
    let mut found = None;
    while !reader.is_empty() {
        let (field, wire_type) = reader.tag()?;
        let value = reader.value(wire_type)?;
        if field == number && wire_type == BYTES {
            found = Some(value);
        }
    }
    Ok(found)
}

/// Where an occurrence of a field stands on the wire.
#[derive(Clone, Copy)]
struct Span {
    field: u32,
    wire_type: u8,
    start: u32,
    end: u32,
}

impl Span {
    fn of<'w>(&self, wire: &'w [u8]) -> &'w [u8] {
        wire.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// Several occurrences of a message field are one message: their bytes in a row.
fn merged<'w>(spans: &[Span], wire: &'w [u8]) -> std::borrow::Cow<'w, [u8]> {
    match spans {
        [] => std::borrow::Cow::Borrowed(&[]),
        [one] => std::borrow::Cow::Borrowed(one.of(wire)),
        many => std::borrow::Cow::Owned(many.iter().flat_map(|span| span.of(wire)).copied().collect()),
    }
}

struct Writing<'a> {
    tables: &'a Tables,
    out: &'a mut Vec<u8>,
    /// The spans of all open messages, each message's behind its parent's.
    spans: Vec<Span>,
}

impl Writing<'_> {
    fn message(&mut self, message: &Message, wire: &[u8], depth: u32) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        match message.shape {
            Shape::Plain => {}
            Shape::Struct => return self.structure(wire, depth),
            Shape::Value => return self.any(wire, depth),
            Shape::List => return self.list(wire, depth),
            Shape::WellKnown => return self.well_known(message, wire),
        }
        let first = self.scan(message, wire)?;
        let mut next = first;
        self.out.push(b'{');
        let mut comma = false;
        for (index, field) in message.fields.iter().enumerate() {
            let begun = next;
            while self.spans.get(next).is_some_and(|span| span.field as usize == index) {
                next += 1;
            }
            if begun == next && field.absent == Absent::Omitted {
                continue;
            }
            if comma {
                self.out.push(b',');
            }
            comma = true;
            self.out.extend_from_slice(&field.key);
            match (field.label, next - begun) {
                (_, 0) if field.absent == Absent::Null => self.out.extend_from_slice(b"null"),
                // The usual cases without a copy of the spans.
                (_, 0) => self.value(field, &[], wire, depth)?,
                (Label::Plain | Label::Optional, 1) => {
                    let span = self.spans[begun];
                    self.value(field, &[span], wire, depth)?;
                }
                _ => {
                    let spans = self.spans[begun..next].to_vec();
                    self.value(field, &spans, wire, depth)?;
                }
            }
        }
        self.out.push(b'}');
        self.spans.truncate(first);
        Ok(())
    }

    /// Finds the known fields; their spans stand at the end of `self.spans` from the returned place on, by field.
    fn scan(&mut self, message: &Message, wire: &[u8]) -> Result<usize, WireError> {
        let first = self.spans.len();
        let mut reader = Reader::new(wire);
        let mut hint = 0;
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let value = reader.value(wire_type)?;
            let Some(index) = message.by_number(number, hint) else { continue };
            let field = &message.fields[index];
            let fits = wire_type == field.kind.wire_type()
                || wire_type == BYTES && matches!(field.label, Label::Repeated { .. } | Label::Map(_));
            if !fits {
                continue;
            }
            let end = reader.position() as u32;
            self.spans.push(Span { field: index as u32, wire_type, start: end - value.len() as u32, end });
            hint = if matches!(field.label, Label::Repeated { .. } | Label::Map(_)) { index } else { index + 1 };
        }
        if message.oneofs > 0 {
            self.keep_last_of_oneofs(message, first);
        }
        if !self.spans[first..].is_sorted_by_key(|span| span.field) {
            self.spans[first..].sort_by_key(|span| span.field);
        }
        Ok(first)
    }

    /// Of a oneof only the field that came last counts.
    fn keep_last_of_oneofs(&mut self, message: &Message, first: usize) {
        let mut last = vec![u32::MAX; message.oneofs as usize];
        let oneof = |span: &Span| message.fields.get(span.field as usize).and_then(|field| field.oneof);
        for span in &self.spans[first..] {
            if let Some(place) = oneof(span).and_then(|oneof| last.get_mut(oneof as usize)) {
                *place = span.field;
            }
        }
        let mut place = 0;
        self.spans.retain(|span| {
            place += 1;
            place <= first || oneof(span).is_none_or(|oneof| last.get(oneof as usize) == Some(&span.field))
        });
    }

    fn value(&mut self, field: &Field, spans: &[Span], wire: &[u8], depth: u32) -> Result<(), WireError> {
        match field.label {
            Label::Plain | Label::Optional => match field.kind {
                Kind::Message(id) => {
                    let tables = self.tables;
                    self.message(tables.message(id), &merged(spans, wire), depth + 1)
                }
                kind => self.scalar(field, kind, spans.last().map(|span| span.of(wire))),
            },
            Label::Repeated { .. } => self.repeated(field, spans, wire, depth),
            Label::Map(key) => self.map(field, key, spans, wire, depth),
        }
    }

    fn repeated(&mut self, field: &Field, spans: &[Span], wire: &[u8], depth: u32) -> Result<(), WireError> {
        self.out.push(b'[');
        let mut comma = false;
        for span in spans {
            if let Kind::Message(id) = field.kind {
                self.comma(&mut comma);
                let tables = self.tables;
                self.message(tables.message(id), span.of(wire), depth + 1)?;
            } else if span.wire_type == BYTES && field.kind.wire_type() != BYTES {
                let mut packed = Reader::new(span.of(wire));
                while !packed.is_empty() {
                    self.comma(&mut comma);
                    let one = packed.value(field.kind.wire_type())?;
                    self.scalar(field, field.kind, Some(one))?;
                }
            } else {
                self.comma(&mut comma);
                self.scalar(field, field.kind, Some(span.of(wire)))?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, field: &Field, key_kind: Kind, spans: &[Span], wire: &[u8], depth: u32) -> Result<(), WireError> {
        self.out.push(b'{');
        let mut comma = false;
        for span in spans {
            let (key, value) = entry(span.of(wire))?;
            self.comma(&mut comma);
            let quoted = key_kind == Kind::String;
            if !quoted {
                self.out.push(b'"');
            }
            self.scalar(field, key_kind, key)?;
            if !quoted {
                self.out.push(b'"');
            }
            self.out.push(b':');
            match field.kind {
                Kind::Message(id) => {
                    let tables = self.tables;
                    self.message(tables.message(id), value.unwrap_or_default(), depth + 1)?;
                }
                kind => self.scalar(field, kind, value)?,
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn comma(&mut self, needed: &mut bool) {
        if *needed {
            self.out.push(b',');
        }
        *needed = true;
    }

    /// One scalar; `None` is the default of its kind.
    fn scalar(&mut self, field: &Field, kind: Kind, raw: Option<&[u8]>) -> Result<(), WireError> {
        let mut reader = Reader::new(raw.unwrap_or(&[0; 8]));
        match kind {
            Kind::String => {
                let text = std::str::from_utf8(raw.unwrap_or_default())
                    .map_err(|_invalid| WireError::Utf8(field.name.to_string()))?;
                self.print(&text);
            }
            Kind::Bytes => self.base64(raw.unwrap_or_default()),
            Kind::Bool => self.print(&(reader.varint()? != 0)),
            Kind::Double => self.double(f64::from_bits(reader.fixed64()?)),
            Kind::Float => {
                let value = f32::from_bits(reader.fixed32()?);
                if value.is_finite() && value.fract() != 0.0 { self.print(&value) } else { self.double(value.into()) }
            }
            Kind::Int32 => self.print(&(reader.varint()? as i32)),
            Kind::Int64 => self.print(&(reader.varint()? as i64)),
            Kind::Decimal(decimals) => decimal::write(self.out, reader.varint()? as i64, decimals),
            Kind::Uint32 => self.print(&(reader.varint()? as u32)),
            Kind::Uint64 => self.print(&reader.varint()?),
            Kind::Sint32 => {
                let value = reader.varint()? as u32;
                self.print(&((value >> 1) as i32 ^ -((value & 1) as i32)));
            }
            Kind::Sint64 => {
                let value = reader.varint()?;
                self.print(&((value >> 1) as i64 ^ -((value & 1) as i64)));
            }
            Kind::Fixed32 => self.print(&reader.fixed32()?),
            Kind::Fixed64 => self.print(&reader.fixed64()?),
            Kind::Sfixed32 => self.print(&(reader.fixed32()? as i32)),
            Kind::Sfixed64 => self.print(&(reader.fixed64()? as i64)),
            Kind::Enum(id) => {
                let number = reader.varint()? as i32;
                let tables = self.tables;
                let one = tables.enumeration(id);
                match one.name_of(number) {
                    _ if one.is_null => self.out.extend_from_slice(b"null"),
                    Some(name) => self.print(&name),
                    None => self.print(&number),
                }
            }
            Kind::Message(_) => {}
        }
        Ok(())
    }

    /// Writing to a vector cannot fail, and neither can a scalar's JSON.
    fn print(&mut self, value: &impl Serialize) {
        let _written = serde_json::to_writer(&mut *self.out, value);
    }

    /// Whole numbers without a point, as other implementations print them; the three that JSON lacks as text.
    fn double(&mut self, value: f64) {
        if value.is_nan() {
            self.out.extend_from_slice(b"\"NaN\"");
        } else if value.is_infinite() {
            self.out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" as &[u8] } else { b"\"-Infinity\"" });
        } else if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            self.print(&(value as i64));
        } else {
            self.print(&value);
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let begun = self.out.len();
        self.out.resize(begun + bytes.len().div_ceil(3) * 4, 0);
        // The room is exactly what base64 with padding takes.
        let written = STANDARD.encode_slice(bytes, &mut self.out[begun..]).unwrap_or(0);
        self.out.truncate(begun + written);
        self.out.push(b'"');
    }

    fn well_known(&mut self, message: &Message, wire: &[u8]) -> Result<(), WireError> {
        let dynamic =
            DynamicMessage::decode(message.descriptor.clone(), wire).map_err(|_error| WireError::Malformed)?;
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(false);
        dynamic
            .serialize_with_options(&mut serde_json::Serializer::new(&mut *self.out), &options)
            .map_err(|_error| WireError::NoJson(message.descriptor.full_name().to_owned()))
    }

    fn structure(&mut self, wire: &[u8], depth: u32) -> Result<(), WireError> {
        self.out.push(b'{');
        let mut reader = Reader::new(wire);
        let mut comma = false;
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let one = reader.value(wire_type)?;
            if (number, wire_type) != (1, BYTES) {
                continue;
            }
            let (key, value) = entry(one)?;
            self.comma(&mut comma);
            let key = std::str::from_utf8(key.unwrap_or_default())
                .map_err(|_invalid| WireError::Utf8("fields".to_owned()))?;
            self.print(&key);
            self.out.push(b':');
            self.any(value.unwrap_or_default(), depth + 1)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn list(&mut self, wire: &[u8], depth: u32) -> Result<(), WireError> {
        self.out.push(b'[');
        let mut reader = Reader::new(wire);
        let mut comma = false;
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let one = reader.value(wire_type)?;
            if (number, wire_type) == (1, BYTES) {
                self.comma(&mut comma);
                self.any(one, depth + 1)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A `google.protobuf.Value`; the field that came last counts.
    fn any(&mut self, wire: &[u8], depth: u32) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep);
        }
        let mut reader = Reader::new(wire);
        let mut last = (1, &[0_u8] as &[u8]);
        while !reader.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let one = reader.value(wire_type)?;
            if (1..=6).contains(&number) {
                last = (number, one);
            }
        }
        let (number, raw) = last;
        match number {
            2 => self.double(f64::from_bits(Reader::new(raw).fixed64()?)),
            3 => {
                let text = std::str::from_utf8(raw).map_err(|_invalid| WireError::Utf8("string_value".to_owned()))?;
                self.print(&text);
            }
            4 => self.print(&(Reader::new(raw).varint()? != 0)),
            5 => self.structure(raw, depth + 1)?,
            6 => self.list(raw, depth + 1)?,
            _ => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }
}

type Entry<'w> = (Option<&'w [u8]>, Option<&'w [u8]>);

/// Key (1) and value (2) of a map's entry, as they stand on the wire.
fn entry(wire: &[u8]) -> Result<Entry<'_>, WireError> {
    let mut reader = Reader::new(wire);
    let (mut key, mut value) = (None, None);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        let one = reader.value(wire_type)?;
        match number {
            1 => key = Some(one),
            2 => value = Some(one),
            _ => {}
        }
    }
    Ok((key, value))
}
