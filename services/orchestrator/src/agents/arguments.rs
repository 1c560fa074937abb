//! How tools read what a model wrote: `-1` stands for an absent number, an empty text for an absent text.
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::agents::schema::{LIST_DEFAULT, LIST_MOST, TITLE_CHARS};
use crate::agents::tool::Misfit;

/// Longest id, in bytes.
const ID_BYTES: usize = 200;
/// So much of a text is shown in a list, in characters.
const SHOWN_CHARS: usize = 300;

/// The arguments of a tool in their type.
pub fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, Misfit> {
    Ok(serde_json::from_value(Value::Object(arguments))?)
}

/// An id: text, or the whole number that a client counts by.
pub fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Number(number) if number.is_i64() => number.to_string(),
        _ => return Err(D::Error::custom("an id is a text")),
    };
    if id.is_empty() || id.len() > ID_BYTES {
        return Err(D::Error::custom("an id is 1 to 200 bytes long"));
    }
    Ok(id)
}

/// A value, or nothing for `""` and null.
pub fn or_blank<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<T>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        value => serde_json::from_value(value).map(Some).map_err(D::Error::custom),
    }
}

/// A whole number from 0, or nothing for -1 and null.
pub fn or_minus_one<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    match Option::<i64>::deserialize(from)? {
        None | Some(-1) => Ok(None),
        Some(number) if number >= 0 => Ok(Some(number)),
        Some(_) => Err(D::Error::custom("a number is at least 0, or -1 for none")),
    }
}

/// Yes (1, true) or no (0, false), or nothing for -1 and null.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(flag)),
        value => match value.as_i64() {
            Some(-1) => Ok(None),
            Some(number @ (0 | 1)) => Ok(Some(number == 1)),
            _ => Err(D::Error::custom("a flag is 1, 0 or -1 for none")),
        },
    }
}

/// Names of people as the client keeps them, a JSON array as text. Models often write the array itself.
pub fn assignees<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let names: Vec<String> = match Value::deserialize(from)? {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(&text),
        value => serde_json::from_value(value),
    }
    .map_err(|_| D::Error::custom("assignees is a JSON array of names as text, such as [\"Ana\"]"))?;
    serde_json::to_string(&names).map(Some).map_err(D::Error::custom)
}

/// How many items a list shows for its `limit`.
pub fn most(limit: Option<i64>) -> usize {
    limit.map_or(LIST_DEFAULT, |limit| usize::try_from(limit).unwrap_or(LIST_MOST).min(LIST_MOST))
}

/// As much of a text as a list shows.
pub fn beginning(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A title or a name, without the blanks around it.
pub fn title(name: &str, text: &str) -> Result<String, Misfit> {
    let title = text.trim();
    if title.is_empty() {
        return Err(Misfit(format!("{name} must not be empty")));
    }
    within(name, title, TITLE_CHARS)?;
    Ok(title.to_owned())
}

/// The fields that change, as the client's table has them.
pub fn changed<const N: usize>(fields: [(&str, Option<Value>); N]) -> Result<Map<String, Value>, Misfit> {
    let changed: Map<String, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if changed.is_empty() { Err(Misfit("give at least one field to change".to_owned())) } else { Ok(changed) }
}

/// Refuses a text that is too long.
pub fn within(name: &str, text: &str, chars: usize) -> Result<(), Misfit> {
    if text.chars().count() > chars {
        return Err(Misfit(format!("{name} is longer than {chars} characters")));
    }
    Ok(())
}
