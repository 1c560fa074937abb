//! What a client's tables hold, as it comes with a request: fields read one by one, without repeating a value in an error.
use serde::Deserialize;
use serde_json::{Map, Value};

/// A record of one of the client's tables.
pub trait Record {
    /// Name of the table.
    const TABLE: &'static str;

    /// The client's id, as it was sent: text or a whole number.
    fn id(&self) -> &Value;

    /// The fields as the client's table has them.
    fn record(&self) -> Map<String, Value>;

    /// The id as text, however it was sent.
    fn id_text(&self) -> String {
        as_text(self.id().clone())
    }
}

/// The fields of a record that came with a request. Those that are absent, null or empty have their defaults.
pub struct Fields(pub Map<String, Value>);

impl Fields {
    /// A field, unless it is null or empty.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null() && value.as_str().is_none_or(|text| !text.is_empty()))
    }

    /// An id.
    ///
    /// # Errors
    /// That it is missing or of another kind, as with the other readers.
    pub fn id(&mut self, name: &str) -> Result<Value, String> {
        let id = self.take(name).filter(|value| value.is_string() || value.is_i64());
        id.ok_or_else(|| format!("{name} must be text or a whole number"))
    }

    /// Text, empty if absent.
    pub fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(format!("{name} must be text")),
        }
    }

    /// One of the names of `T`, or its default; `otherwise` is the error.
    pub fn named<T: Default + for<'de> Deserialize<'de>>(&mut self, name: &str, otherwise: &str) -> Result<T, String> {
        // serde's own error would repeat the value.
        let named = self.take(name).map(|value| serde_json::from_value(value).map_err(|_| otherwise.to_owned()));
        named.unwrap_or_else(|| Ok(T::default()))
    }

    /// An instant in ms since 1970. `-1` is how clients without null write "none".
    pub fn date(&mut self, name: &str) -> Result<Option<i64>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let ms = value.as_i64().ok_or_else(|| format!("{name} must be a whole number of ms since 1970, or -1"))?;
        Ok((ms != -1).then_some(ms))
    }

    /// Clients keep flags as booleans or as 0 and 1, with -1 for unknown.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(value) => match value.as_i64() {
                Some(-1) => Ok(default),
                Some(number @ (0 | 1)) => Ok(number == 1),
                _ => Err(format!("{name} must be true, false, 0, 1 or -1")),
            },
        }
    }
}

/// A JSON value as text; text itself without quotes.
pub fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
