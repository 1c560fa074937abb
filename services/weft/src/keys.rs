//! The names of the settings, read from the configuration structs themselves.
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// The environment variables that a configuration struct reads, in upper case.
pub fn keys_of<'de, T: Deserialize<'de>>() -> Vec<String> {
    match T::deserialize(FieldNames) {
        Err(Names(names)) => names.iter().map(|name| name.to_uppercase()).collect(),
        Ok(_) => Vec::new(),
    }
}

/// A deserializer that only listens to which fields a struct asks for.
struct FieldNames;

/// What was heard; an error, since no value was made.
#[derive(Debug)]
struct Names(&'static [&'static str]);

impl fmt::Display for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

impl std::error::Error for Names {}

impl de::Error for Names {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Names(&[])
    }
}

impl<'de> Deserializer<'de> for FieldNames {
    type Error = Names;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Names> {
        Err(Names(&[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Names> {
        Err(Names(fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
