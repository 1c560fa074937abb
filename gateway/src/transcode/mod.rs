//! JSON to the protobuf wire and back, straight from the descriptors.
//!
//! A message is never built as a tree: JSON is parsed and written as wire bytes in one pass, and wire bytes are
//! scanned and written as JSON in one pass, both by tables that are made once at start. That is several times
//! cheaper than a dynamic message, and JSON is most of what the edge does. The well-known types with a JSON
//! form of their own (timestamps, wrappers, `Any`, …) go through prost-reflect, except `Struct` and its parts,
//! which chats are full of.
//!
//! Names are snake_case (lowerCamelCase is understood), 64-bit integers are numbers, bytes are base64, fields
//! without presence are always printed. An int64 with `weft.options.v1.json` is the decimal number that it stands for.
mod check;
mod decimal;
mod number;
mod read;
mod read_struct;
mod table;
mod text;
mod wire;
mod write;

pub use check::check_message;
pub use read::{read_field, read_message};
pub use table::{FieldPath, Frame, Kind, Label, MessageId, Tables};
pub use text::set_text;
pub use wire::put_bytes_field;
pub use write::{find_bytes, write_field, write_message};

/// What is wrong with wire bytes.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field, or a field has an impossible tag.
    #[error("the message is not valid protobuf")]
    Malformed,
    /// A string field is not UTF-8.
    #[error("the field {0} is not valid UTF-8")]
    Utf8(String),
    /// More levels than any honest message has.
    #[error("the message is nested too deeply")]
    TooDeep,
    /// A well-known type that has no JSON form, such as a timestamp outside its range.
    #[error("the field of type {0} has no JSON form")]
    NoJson(String),
}
