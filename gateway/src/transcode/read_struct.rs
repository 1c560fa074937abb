//! `google.protobuf.Struct`, `ListValue` and `Value` from JSON: any JSON, of which chats are full.
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::read::Reading;
use super::wire::{BYTES, FIXED64, VARINT, close, open, put_bytes_field, put_tag};

/// The fields of a `Struct`: a map of strings to values.
pub(super) struct StructBody<'r, 'a>(pub &'r mut Reading<'a>);

impl<'de> Visitor<'de> for StructBody<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let reading = self.0;
        reading.deeper()?;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            // The entry and the value in it.
            reading.sink(2)?;
            put_tag(&mut reading.out, 1, BYTES);
            let entry = open(&mut reading.out);
            put_bytes_field(&mut reading.out, 1, key.as_bytes());
            put_tag(&mut reading.out, 2, BYTES);
            let value = open(&mut reading.out);
            map.next_value_seed(AnyValue(reading))?;
            close(&mut reading.out, value);
            close(&mut reading.out, entry);
            reading.surface(2);
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is given twice")));
            }
        }
        reading.depth -= 1;
        Ok(())
    }
}

/// The values of a `ListValue`.
pub(super) struct ListBody<'r, 'a>(pub &'r mut Reading<'a>);

impl<'de> Visitor<'de> for ListBody<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let reading = self.0;
        reading.deeper()?;
        reading.sink(1)?;
        while elements.next_element_seed(ListElement(reading))?.is_some() {}
        reading.surface(1);
        reading.depth -= 1;
        Ok(())
    }
}

struct ListElement<'r, 'a>(&'r mut Reading<'a>);

impl<'de> DeserializeSeed<'de> for ListElement<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        put_tag(&mut self.0.out, 1, BYTES);
        let begun = open(&mut self.0.out);
        text.deserialize_any(ValueBody(self.0))?;
        close(&mut self.0.out, begun);
        Ok(())
    }
}

struct AnyValue<'r, 'a>(&'r mut Reading<'a>);

impl<'de> DeserializeSeed<'de> for AnyValue<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        text.deserialize_any(ValueBody(self.0))
    }
}

/// The one field of a `google.protobuf.Value`.
pub(super) struct ValueBody<'r, 'a>(pub &'r mut Reading<'a>);

impl ValueBody<'_, '_> {
    fn number<E>(self, value: f64) -> Result<(), E> {
        put_tag(&mut self.0.out, 2, FIXED64);
        self.0.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueBody<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        put_tag(&mut self.0.out, 1, VARINT);
        self.0.out.push(0);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        put_tag(&mut self.0.out, 4, VARINT);
        self.0.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.number(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        put_bytes_field(&mut self.0.out, 3, value.as_bytes());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.sink(1)?;
        put_tag(&mut self.0.out, 5, BYTES);
        let begun = open(&mut self.0.out);
        StructBody(&mut *self.0).visit_map(map)?;
        close(&mut self.0.out, begun);
        self.0.surface(1);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error> {
        self.0.sink(1)?;
        put_tag(&mut self.0.out, 6, BYTES);
        let begun = open(&mut self.0.out);
        ListBody(&mut *self.0).visit_seq(elements)?;
        close(&mut self.0.out, begun);
        self.0.surface(1);
        Ok(())
    }
}
