//! JSON as messages carry it: `google.protobuf.Struct`, `Value` and `ListValue`.
//!
//! On the wire they are the well-known types; here the fields of an object keep the order in which they came, and two
//! objects are equal only if theirs is the same. Most models fill the properties of a schema in their order, so a client
//! means something by it.
use prost::{Message, Oneof};

/// An object.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// Its fields. Of two with one name the last counts.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
}

/// A field of an object.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it holds; None: null.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// Any value.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// What it is; None: null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// What a value is.
#[derive(Clone, PartialEq, Oneof)]
pub enum Kind {
    /// `null`; always 0.
    #[prost(int32, tag = "1")]
    NullValue(i32),
    /// A number; all of them are 64-bit floats.
    #[prost(double, tag = "2")]
    NumberValue(f64),
    /// A text.
    #[prost(string, tag = "3")]
    StringValue(String),
    /// `true` or `false`.
    #[prost(bool, tag = "4")]
    BoolValue(bool),
    /// An object.
    #[prost(message, tag = "5")]
    StructValue(Struct),
    /// A list.
    #[prost(message, tag = "6")]
    ListValue(ListValue),
}

/// A list.
#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    /// What is in it.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

impl Struct {
    /// Sorts the fields by name, to the last level: objects that mean the same to whoever ignores their order then are the
    /// same bytes.
    pub fn sort(&mut self) {
        self.fields.sort_by(|one, other| one.key.cmp(&other.key));
        self.fields.iter_mut().filter_map(|field| field.value.as_mut()).for_each(Value::sort);
    }
}

impl Value {
    fn sort(&mut self) {
        match &mut self.kind {
            Some(Kind::StructValue(object)) => object.sort(),
            Some(Kind::ListValue(list)) => list.values.iter_mut().for_each(Value::sort),
            _ => {}
        }
    }
}

impl FromIterator<(String, Value)> for Struct {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(fields: I) -> Struct {
        let field = |(key, value)| Field { key, value: Some(value) };
        Struct { fields: fields.into_iter().map(field).collect() }
    }
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }
}
