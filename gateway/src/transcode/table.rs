//! What both directions know of every message: made once from a descriptor pool.
use std::collections::HashMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, MessageDescriptor};

use super::decimal::MAX_DECIMALS;

/// Full name of the option that says how JSON shows a field.
const JSON_OPTION: &str = "weft.options.v1.json";

/// A message's place in [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId(pub(super) u32);

/// An enum's place in [`Tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnumId(pub(super) u32);

/// Every message and enum of one descriptor pool.
#[derive(Debug)]
pub struct Tables {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<String, MessageId>,
}

/// How a message looks in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object of its fields.
    Plain,
    /// `google.protobuf.Struct`: any object.
    Struct,
    /// `google.protobuf.Value`: any JSON.
    Value,
    /// `google.protobuf.ListValue`: any array.
    List,
    /// A well-known type that prost-reflect reads and writes.
    WellKnown,
}

/// One message type.
#[derive(Debug)]
pub struct Message {
    pub descriptor: MessageDescriptor,
    pub shape: Shape,
    /// By field number.
    pub fields: Vec<Field>,
    /// snake_case and lowerCamelCase names to places in `fields`.
    pub names: HashMap<Box<str>, u32>,
    /// How many real oneofs there are.
    pub oneofs: u32,
    /// The field that names this message in its stream.
    event_id: Option<u32>,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    pub name: Box<str>,
    /// `"name":`, ready to be printed.
    pub key: Box<[u8]>,
    pub number: u32,
    pub kind: Kind,
    pub label: Label,
    /// The real oneof it belongs to.
    pub oneof: Option<u32>,
    /// What it becomes on a WebSocket with plain frames.
    pub frame: Option<Frame>,
    /// What JSON has where it has no value.
    pub absent: Absent,
}

/// What JSON has where a field has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Its default.
    Default,
    /// Nothing.
    Omitted,
    /// Null.
    Null,
}

/// What a field of a streamed message becomes on a WebSocket with plain frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A frame of the string itself.
    Text,
    /// A frame of the inner message as JSON, with `"done": true` in front.
    Done,
}

/// How often a field occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// At most once, and its absence means something (`optional`, oneof, message).
    Optional,
    /// At most once; absent is the default.
    Plain,
    /// Any number of times.
    Repeated {
        /// One length-delimited run on the wire.
        packed: bool,
    },
    /// A map with keys of this kind; the field's `kind` is that of the values.
    Map(Kind),
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    /// An int64 that JSON shows as a decimal number with at most so many places.
    Decimal(u8),
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
}

/// One enum type.
#[derive(Debug)]
pub struct Enum {
    pub name: String,
    numbers: HashMap<Box<str>, i32>,
    names: HashMap<i32, Box<str>>,
    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub is_null: bool,
}

/// A field by its way from a message: `customer.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(pub(super) Vec<u32>);

impl Tables {
    /// The tables of every message in a pool. The error is a sentence about a field's options.
    pub fn new(pool: &DescriptorPool) -> Result<Self, String> {
        let descriptors: Vec<MessageDescriptor> = pool.all_messages().collect();
        let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
        let by_name: HashMap<String, MessageId> = descriptors
            .iter()
            .enumerate()
            .map(|(index, message)| (message.full_name().to_owned(), MessageId(index as u32)))
            .collect();
        let enum_ids: HashMap<String, EnumId> =
            enums.iter().enumerate().map(|(index, one)| (one.full_name().to_owned(), EnumId(index as u32))).collect();
        let ids = Ids { messages: &by_name, enums: &enum_ids, json: pool.get_extension_by_name(JSON_OPTION) };
        let messages = descriptors.into_iter().map(|descriptor| Message::new(descriptor, &ids));
        let messages = messages.collect::<Result<_, _>>()?;
        Ok(Tables { messages, enums: enums.iter().map(Enum::new).collect(), by_name })
    }

    /// The message with this full name.
    pub fn id(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    pub(super) fn message(&self, MessageId(index): MessageId) -> &Message {
        &self.messages[index as usize]
    }

    pub(super) fn enumeration(&self, EnumId(index): EnumId) -> &Enum {
        &self.enums[index as usize]
    }

    /// The number of the string field that names this message in its stream, if it has one.
    pub fn event_id(&self, id: MessageId) -> Option<u32> {
        self.message(id).event_id
    }

    /// The fields of a message that have frames of their own on a WebSocket, by number.
    pub fn frames(&self, id: MessageId) -> impl Iterator<Item = (u32, Kind, Frame)> {
        self.message(id).fields.iter().filter_map(|field| Some((field.number, field.kind, field.frame?)))
    }

    /// The full name of a message.
    pub fn name(&self, id: MessageId) -> &str {
        self.message(id).descriptor.full_name()
    }

    /// The way to a field by its dotted names; None if a step of it does not exist.
    pub fn path(&self, from: MessageId, dotted: &str) -> Option<FieldPath> {
        let mut message = self.message(from);
        let mut steps = Vec::new();
        let mut names = dotted.split('.').peekable();
        while let Some(name) = names.next() {
            let index = *message.names.get(name)?;
            let field = message.fields.get(index as usize)?;
            steps.push(index);
            if names.peek().is_some() {
                let (Kind::Message(next), Label::Optional) = (field.kind, field.label) else { return None };
                message = self.message(next);
            }
        }
        Some(FieldPath(steps))
    }

    /// What the field at the end of a way is: number, kind and how often it occurs.
    pub fn at(&self, from: MessageId, path: &FieldPath) -> Option<(u32, Kind, Label)> {
        let mut message = self.message(from);
        let (last, way) = path.0.split_last()?;
        for index in way {
            let Kind::Message(next) = message.fields.get(*index as usize)?.kind else { return None };
            message = self.message(next);
        }
        message.fields.get(*last as usize).map(|field| (field.number, field.kind, field.label))
    }
}

struct Ids<'a> {
    messages: &'a HashMap<String, MessageId>,
    enums: &'a HashMap<String, EnumId>,
    /// The option about JSON, if the descriptors have it.
    json: Option<ExtensionDescriptor>,
}

impl Message {
    fn new(descriptor: MessageDescriptor, ids: &Ids) -> Result<Self, String> {
        let mut fields: Vec<FieldDescriptor> = descriptor.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let mut names = HashMap::new();
        for (index, field) in fields.iter().enumerate() {
            names.insert(field.json_name().into(), index as u32);
        }
        for (index, field) in fields.iter().enumerate() {
            names.insert(field.name().into(), index as u32);
        }
        let real: Vec<_> = descriptor.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        let shape = Shape::of(descriptor.full_name());
        let mut event_id = None;
        let mut known = Vec::with_capacity(fields.len());
        for field in &fields {
            let options = Json::of(field, ids.json.as_ref())?;
            if options.event_id && event_id.replace(field.number()).is_some() {
                return Err(format!("the message {} has two fields with event_id", descriptor.full_name()));
            }
            known.push(Field::new(field, ids, &real, &options));
        }
        Ok(Message { shape, fields: known, names, oneofs: real.len() as u32, event_id, descriptor })
    }

    /// The place of the field with this number; `hint` is where it probably is.
    pub fn by_number(&self, number: u32, hint: usize) -> Option<usize> {
        if self.fields.get(hint).is_some_and(|field| field.number == number) {
            return Some(hint);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }

    /// The place of the field with this name; `hint` is where it probably is.
    pub fn by_name(&self, name: &str, hint: usize) -> Option<usize> {
        if self.fields.get(hint).is_some_and(|field| *field.name == *name) {
            return Some(hint);
        }
        self.names.get(name).map(|index| *index as usize)
    }
}

impl Shape {
    fn of(full_name: &str) -> Shape {
        match full_name {
            "google.protobuf.Struct" => Shape::Struct,
            "google.protobuf.Value" => Shape::Value,
            "google.protobuf.ListValue" => Shape::List,
            "google.protobuf.Any"
            | "google.protobuf.Timestamp"
            | "google.protobuf.Duration"
            | "google.protobuf.FieldMask"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue" => Shape::WellKnown,
            _ => Shape::Plain,
        }
    }
}

impl Field {
    fn new(field: &FieldDescriptor, ids: &Ids, real: &[prost_reflect::OneofDescriptor], options: &Json) -> Self {
        let (mut kind, label) = match field.kind() {
            prost_reflect::Kind::Message(entry) if field.is_map() => {
                let key = Kind::of(&entry.map_entry_key_field().kind(), ids);
                (Kind::of(&entry.map_entry_value_field().kind(), ids), Label::Map(key))
            }
            kind if field.is_list() => (Kind::of(&kind, ids), Label::Repeated { packed: field.is_packed() }),
            kind if field.supports_presence() => (Kind::of(&kind, ids), Label::Optional),
            kind => (Kind::of(&kind, ids), Label::Plain),
        };
        if let Some(decimals) = options.decimals {
            kind = Kind::Decimal(decimals);
        }
        let oneof = field.containing_oneof().and_then(|oneof| real.iter().position(|one| *one == oneof));
        Field {
            name: field.name().into(),
            key: format!("\"{}\":", field.name()).into_bytes().into(),
            number: field.number(),
            kind,
            label,
            oneof: oneof.map(|index| index as u32),
            frame: options.frame,
            absent: options.absent.unwrap_or(if label == Label::Optional { Absent::Omitted } else { Absent::Default }),
        }
    }
}

/// What `weft.options.v1.json` says of a field.
#[derive(Default)]
struct Json {
    decimals: Option<u8>,
    event_id: bool,
    frame: Option<Frame>,
    absent: Option<Absent>,
}

impl Json {
    /// The option of a field. The error is a sentence about one that does not fit it.
    fn of(field: &FieldDescriptor, option: Option<&ExtensionDescriptor>) -> Result<Json, String> {
        use prost_reflect::Kind as Of;
        let options = field.options();
        let Some(option) = option.filter(|option| options.has_extension(option)) else { return Ok(Json::default()) };
        let stated = options.get_extension(option);
        let stated = |name: &str| stated.as_message()?.get_field_by_name(name).map(std::borrow::Cow::into_owned);
        let decimals = stated("decimals").and_then(|value| value.as_u32()).unwrap_or(0);
        let event_id = stated("event_id").and_then(|value| value.as_bool()).unwrap_or(false);
        let frame = match stated("frame").and_then(|value| value.as_enum_number()).unwrap_or(0) {
            0 => None,
            1 => Some(Frame::Text),
            2 => Some(Frame::Done),
            _ => return Err(format!("the field {} has a frame that is not known", field.full_name())),
        };
        let absent = match stated("absent").and_then(|value| value.as_enum_number()).unwrap_or(0) {
            0 => None,
            1 if field.is_list() => Some(Absent::Omitted),
            2 if field.supports_presence() => Some(Absent::Null),
            _ => return Err(format!("the field {} has absent in a way that does not fit it", field.full_name())),
        };
        let single = !field.is_list() && !field.is_map();
        if decimals == 0 && !event_id && frame.is_none() && absent.is_none()
            || decimals > 0 && (field.kind() != Of::Int64 || field.is_map() || decimals > MAX_DECIMALS)
        {
            return Err(format!(
                "the field {} has decimals = {decimals}; they are for int64 fields, 1 to {MAX_DECIMALS} of them",
                field.full_name()
            ));
        }
        if event_id && !(single && field.kind() == Of::String) {
            return Err(format!("the field {} has event_id, which is for string fields", field.full_name()));
        }
        let framed = match frame {
            None => true,
            Some(Frame::Text) => single && field.kind() == Of::String,
            Some(Frame::Done) => single && matches!(field.kind(), Of::Message(_)),
        };
        if !framed {
            return Err(format!(
                "the field {} has a frame that does not fit; FRAME_TEXT is for strings, FRAME_DONE for messages",
                field.full_name()
            ));
        }
        Ok(Json { decimals: (decimals > 0).then_some(decimals as u8), event_id, frame, absent })
    }
}

impl Kind {
    fn of(kind: &prost_reflect::Kind, ids: &Ids) -> Kind {
        use prost_reflect::Kind as Of;
        match kind {
            Of::Double => Kind::Double,
            Of::Float => Kind::Float,
            Of::Int32 => Kind::Int32,
            Of::Int64 => Kind::Int64,
            Of::Uint32 => Kind::Uint32,
            Of::Uint64 => Kind::Uint64,
            Of::Sint32 => Kind::Sint32,
            Of::Sint64 => Kind::Sint64,
            Of::Fixed32 => Kind::Fixed32,
            Of::Fixed64 => Kind::Fixed64,
            Of::Sfixed32 => Kind::Sfixed32,
            Of::Sfixed64 => Kind::Sfixed64,
            Of::Bool => Kind::Bool,
            Of::String => Kind::String,
            Of::Bytes => Kind::Bytes,
            // Every type of a pool is in the pool; the first entry never stands in for another.
            Of::Enum(one) => Kind::Enum(ids.enums.get(one.full_name()).copied().unwrap_or(EnumId(0))),
            Of::Message(one) => Kind::Message(ids.messages.get(one.full_name()).copied().unwrap_or(MessageId(0))),
        }
    }

    /// The wire type of a single value.
    pub(super) fn wire_type(self) -> u8 {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => super::wire::FIXED64,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => super::wire::FIXED32,
            Kind::String | Kind::Bytes | Kind::Message(_) => super::wire::BYTES,
            _ => super::wire::VARINT,
        }
    }
}

impl Enum {
    fn new(descriptor: &EnumDescriptor) -> Self {
        let mut names = HashMap::new();
        for value in descriptor.values() {
            // With aliases the first name is the one that is printed.
            names.entry(value.number()).or_insert_with(|| value.name().into());
        }
        Enum {
            name: descriptor.full_name().to_owned(),
            numbers: descriptor.values().map(|value| (value.name().into(), value.number())).collect(),
            names,
            is_null: descriptor.full_name() == "google.protobuf.NullValue",
        }
    }

    pub fn number(&self, name: &str) -> Option<i32> {
        self.numbers.get(name).copied()
    }

    pub fn name_of(&self, number: i32) -> Option<&str> {
        self.names.get(&number).map(AsRef::as_ref)
    }
}
