//! JSON in, wire bytes out, in one pass over the text.
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::check::MAX_WIRE_DEPTH;
use super::number::{expected, put_base64, put_float, put_integer, put_number_text};
use super::read_struct::{ListBody, StructBody, ValueBody};
use super::table::{Field, FieldPath, Kind, Label, Message, MessageId, Shape, Tables};
use super::wire::{BYTES, close, open, put_tag, put_varint};

/// Longest sentence about what is wrong; it may quote the input.
const SENTENCE_BYTES: usize = 200;
/// Names of fields in it.
const NAMES: usize = 6;
/// Longest part of a number that it quotes.
const NUMBER_BYTES: usize = 40;

/// Appends a JSON object as the wire bytes of a message. The error is a sentence that names the field.
pub fn read_message(
    tables: &Tables,
    id: MessageId,
    json: &[u8],
    max_depth: u32,
    out: Vec<u8>,
) -> Result<Vec<u8>, String> {
    read(tables, json, max_depth, out, |reading, text| {
        let message = tables.message(id);
        Body { reading, message }.deserialize(text)
    })
}

/// Appends JSON as the value of one field, as wire bytes of the message that has the field.
pub fn read_field(
    tables: &Tables,
    id: MessageId,
    path: &FieldPath,
    json: &[u8],
    max_depth: u32,
    out: Vec<u8>,
) -> Result<Vec<u8>, String> {
    read(tables, json, max_depth, out, |reading, text| {
        let mut message = tables.message(id);
        let mut opened = Vec::new();
        for (place, index) in path.0.iter().enumerate() {
            let Some(field) = message.fields.get(*index as usize) else { break };
            if place + 1 == path.0.len() {
                reading.path.push(&field.name);
                FieldValue { reading, field }.deserialize(&mut *text)?;
                reading.path.pop();
            } else if let Kind::Message(next) = field.kind {
                put_tag(&mut reading.out, field.number, BYTES);
                opened.push(open(&mut reading.out));
                message = tables.message(next);
            }
        }
        opened.into_iter().rev().for_each(|begun| close(&mut reading.out, begun));
        Ok(())
    })
}

type Text<'a> = serde_json::Deserializer<serde_json::de::SliceRead<'a>>;

fn read<'a>(
    tables: &'a Tables,
    json: &'a [u8],
    max_depth: u32,
    mut out: Vec<u8>,
    part: impl FnOnce(&mut Reading<'a>, &mut Text<'a>) -> Result<(), serde_json::Error>,
) -> Result<Vec<u8>, String> {
    // The wire is nearly always shorter than the JSON.
    out.reserve(json.len());
    let mut reading = Reading { tables, out, path: Vec::new(), depth: 0, max_depth, wire_depth: 0 };
    let mut text = serde_json::Deserializer::from_slice(json);
    match part(&mut reading, &mut text) {
        Ok(()) => text.end().map(|()| reading.out).map_err(|error| error.to_string()),
        Err(error) => Err(sentence(&reading.path, &error.to_string())),
    }
}

/// `customer.tags: invalid type: …`: of a long way its end, of what may quote the input its beginning.
fn sentence(path: &[&str], what: &str) -> String {
    let near = &path[path.len().saturating_sub(NAMES)..];
    let way = if near.len() < path.len() { format!("….{}", near.join(".")) } else { near.join(".") };
    let end = (0..=what.len().min(SENTENCE_BYTES)).rev().find(|at| what.is_char_boundary(*at)).unwrap_or(0);
    let more = if end < what.len() { "…" } else { "" };
    let colon = if way.is_empty() { "" } else { ": " };
    format!("{way}{colon}{}{more}", &what[..end])
}

/// The state of one reading.
pub(super) struct Reading<'a> {
    tables: &'a Tables,
    /// The wire bytes so far.
    pub out: Vec<u8>,
    /// Names of the fields that are open; after an error, where it happened.
    path: Vec<&'a str>,
    /// Objects and arrays that are open.
    pub depth: u32,
    max_depth: u32,
    /// Messages that are open on the wire: a level of a `Struct` is three of them.
    wire_depth: u32,
}

impl Reading<'_> {
    /// Begins messages inside each other on the wire; [`Reading::surface`] ends them.
    pub fn sink<E: Error>(&mut self, levels: u32) -> Result<(), E> {
        self.wire_depth += levels;
        if self.wire_depth > MAX_WIRE_DEPTH {
            return Err(E::custom(format_args!(
                "nested too deeply, in protobuf it is more than {MAX_WIRE_DEPTH} levels"
            )));
        }
        Ok(())
    }

    /// Ends so many messages.
    pub fn surface(&mut self, levels: u32) {
        self.wire_depth -= levels;
    }

    /// Begins an object or array; its end lowers `depth` again.
    pub fn deeper<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(E::custom(format_args!("nested deeper than {} levels", self.max_depth)));
        }
        Ok(())
    }
}

/// The fields of a message, without a length in front.
struct Body<'r, 'a> {
    reading: &'r mut Reading<'a>,
    message: &'a Message,
}

impl<'de> DeserializeSeed<'de> for Body<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        match self.message.shape {
            Shape::Plain => text.deserialize_map(self),
            Shape::Struct => text.deserialize_map(StructBody(self.reading)),
            Shape::List => text.deserialize_seq(ListBody(self.reading)),
            Shape::Value => text.deserialize_any(ValueBody(self.reading)),
            Shape::WellKnown => {
                let message = DynamicMessage::deserialize(self.message.descriptor.clone(), text)?;
                message.encode(&mut self.reading.out).map_err(D::Error::custom)
            }
        }
    }
}

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.reading.deeper()?;
        let (mut seen, mut oneofs) = (Seen::default(), Seen::default());
        let mut hint = 0;
        while let Some(index) = map.next_key_seed(FieldName { message: self.message, hint })? {
            hint = index + 1;
            let field = &self.message.fields[index];
            self.reading.path.push(&field.name);
            if seen.insert(index) {
                return Err(A::Error::custom("given twice"));
            }
            let begun = self.reading.out.len();
            map.next_value_seed(FieldValue { reading: self.reading, field })?;
            if let Some(oneof) = field.oneof
                && self.reading.out.len() > begun
                && oneofs.insert(oneof as usize)
            {
                return Err(A::Error::custom("excludes another field that is also given"));
            }
            self.reading.path.pop();
        }
        self.reading.depth -= 1;
        Ok(())
    }
}

/// A set of small numbers; no allocation for the first 64.
#[derive(Default)]
struct Seen {
    first: u64,
    more: HashSet<usize>,
}

impl Seen {
    /// Whether it was there already.
    fn insert(&mut self, index: usize) -> bool {
        if index >= 64 {
            return !self.more.insert(index);
        }
        let was = self.first & 1 << index != 0;
        self.first |= 1 << index;
        was
    }
}

/// A field's name; its place in the message.
struct FieldName<'a> {
    message: &'a Message,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<usize, D::Error> {
        text.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        self.message.by_name(name, self.hint).ok_or_else(|| E::custom(format_args!("there is no field `{name}`")))
    }
}

/// The value of a field, tags included. `null` is an absent field.
struct FieldValue<'r, 'a> {
    reading: &'r mut Reading<'a>,
    field: &'a Field,
}

impl<'de> DeserializeSeed<'de> for FieldValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        match self.field.label {
            // Here `null` is a value, not the absence of one.
            Label::Plain | Label::Optional if takes_null(self.reading.tables, self.field.kind) => self.visit_some(text),
            _ => text.deserialize_option(self),
        }
    }
}

/// Whether `null` is a value of this type.
fn takes_null(tables: &Tables, kind: Kind) -> bool {
    match kind {
        Kind::Message(id) => tables.message(id).shape == Shape::Value,
        Kind::Enum(id) => tables.enumeration(id).is_null,
        _ => false,
    }
}

impl<'de> Visitor<'de> for FieldValue<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(expected(self.field.kind))
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        let (reading, field) = (self.reading, self.field);
        match field.label {
            Label::Plain | Label::Optional => {
                put_tag(&mut reading.out, field.number, field.kind.wire_type());
                One { reading, kind: field.kind }.deserialize(text)
            }
            Label::Repeated { packed: true } => {
                put_tag(&mut reading.out, field.number, BYTES);
                let begun = open(&mut reading.out);
                text.deserialize_seq(Elements { reading, field, tagged: false })?;
                close(&mut reading.out, begun);
                Ok(())
            }
            Label::Repeated { packed: false } => text.deserialize_seq(Elements { reading, field, tagged: true }),
            Label::Map(key) => text.deserialize_map(Entries { reading, field, key }),
        }
    }
}

/// One value without its tag: a scalar, or a message with its length in front.
struct One<'r, 'a> {
    reading: &'r mut Reading<'a>,
    kind: Kind,
}

impl<'de> DeserializeSeed<'de> for One<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        match self.kind {
            Kind::Message(id) => {
                let message = self.reading.tables.message(id);
                self.reading.sink(1)?;
                let begun = open(&mut self.reading.out);
                Body { reading: self.reading, message }.deserialize(text)?;
                close(&mut self.reading.out, begun);
                self.reading.surface(1);
                Ok(())
            }
            // As it is written: a float in between would round it.
            Kind::Decimal(_) => self.decimal(<&RawValue>::deserialize(text)?.get()),
            Kind::String | Kind::Bytes => text.deserialize_str(self),
            Kind::Bool => text.deserialize_bool(self),
            _ => text.deserialize_any(self),
        }
    }
}

impl One<'_, '_> {
    /// A number, or a string that holds one.
    fn decimal<E: Error>(self, json: &str) -> Result<(), E> {
        let unquoted = if json.starts_with('"') { serde_json::from_str::<Cow<str>>(json) } else { Ok(json.into()) };
        let text = unquoted.map_err(E::custom)?;
        put_number_text(&mut self.reading.out, self.kind, &text).map_err(|fits| {
            let shown: String = text.chars().take(NUMBER_BYTES).collect();
            E::invalid_value(Unexpected::Other(&format!("`{shown}`")), &fits)
        })
    }

    fn unfit<E: Error>(&self, got: Unexpected) -> E {
        E::invalid_type(got, &expected(self.kind))
    }
}

impl<'de> Visitor<'de> for One<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(expected(self.kind))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.kind != Kind::Bool {
            return Err(self.unfit(Unexpected::Bool(value)));
        }
        self.reading.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        put_integer(&mut self.reading.out, self.kind, value.into())
            .map_err(|fits| E::invalid_value(Unexpected::Unsigned(value), &fits))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        put_integer(&mut self.reading.out, self.kind, value.into())
            .map_err(|fits| E::invalid_value(Unexpected::Signed(value), &fits))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        put_float(&mut self.reading.out, self.kind, value)
            .map_err(|fits| E::invalid_value(Unexpected::Float(value), &fits))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.kind {
            Kind::Enum(id) if self.reading.tables.enumeration(id).is_null => {
                self.reading.out.push(0);
                Ok(())
            }
            _ => Err(self.unfit(Unexpected::Unit)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let out = &mut self.reading.out;
        match self.kind {
            Kind::String => {
                put_varint(out, value.len() as u64);
                out.extend_from_slice(value.as_bytes());
                Ok(())
            }
            Kind::Bytes => put_base64(out, value).map_err(|fits| E::custom(format_args!("expected {fits}"))),
            Kind::Enum(id) => {
                let one = self.reading.tables.enumeration(id);
                let number = one
                    .number(value)
                    .ok_or_else(|| E::custom(format_args!("`{value}` is not a value of {}", one.name)))?;
                put_integer(out, self.kind, number.into()).map_err(E::custom)
            }
            _ => put_number_text(out, self.kind, value).map_err(|fits| E::invalid_value(Unexpected::Str(value), &fits)),
        }
    }
}

/// The elements of a repeated field.
struct Elements<'r, 'a> {
    reading: &'r mut Reading<'a>,
    field: &'a Field,
    tagged: bool,
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.reading.deeper()?;
        while elements
            .next_element_seed(Element { reading: self.reading, field: self.field, tagged: self.tagged })?
            .is_some()
        {}
        self.reading.depth -= 1;
        Ok(())
    }
}

struct Element<'r, 'a> {
    reading: &'r mut Reading<'a>,
    field: &'a Field,
    tagged: bool,
}

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        if self.tagged {
            put_tag(&mut self.reading.out, self.field.number, self.field.kind.wire_type());
        }
        One { reading: self.reading, kind: self.field.kind }.deserialize(text)
    }
}

/// The entries of a map field: a message of key (1) and value (2) each.
struct Entries<'r, 'a> {
    reading: &'r mut Reading<'a>,
    field: &'a Field,
    key: Kind,
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.reading.deeper()?;
        self.reading.sink(1)?;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            put_tag(&mut self.reading.out, self.field.number, BYTES);
            let entry = open(&mut self.reading.out);
            put_key(&mut self.reading.out, self.key, &key)
                .map_err(|fits| A::Error::custom(format_args!("the key `{key}` is not {fits}")))?;
            put_tag(&mut self.reading.out, 2, self.field.kind.wire_type());
            map.next_value_seed(One { reading: self.reading, kind: self.field.kind })?;
            close(&mut self.reading.out, entry);
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is given twice")));
            }
        }
        self.reading.surface(1);
        self.reading.depth -= 1;
        Ok(())
    }
}

/// A map's key, which is always text in JSON.
fn put_key(out: &mut Vec<u8>, kind: Kind, key: &str) -> Result<(), &'static str> {
    put_tag(out, 1, kind.wire_type());
    match (kind, key) {
        (Kind::String, _) => {
            put_varint(out, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
            Ok(())
        }
        (Kind::Bool, "true" | "false") => {
            out.push(u8::from(key == "true"));
            Ok(())
        }
        _ => put_number_text(out, kind, key),
    }
}
