//! Between `google.protobuf.Struct`, as messages carry JSON, and `serde_json`, as tools and models use it.
use serde_json::{Map, Number, Value};
use weft_proto::json::{Kind, ListValue, Struct};

/// Up to here an f64 holds every integer exactly.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// A JSON object from a message. Whole numbers become integers; what JSON cannot say (NaN) becomes null.
pub fn object(message: Struct) -> Map<String, Value> {
    message.fields.into_iter().map(|field| (field.key, field.value.map_or(Value::Null, value))).collect()
}

/// Any JSON value from a message, in the same way.
pub fn value(message: weft_proto::json::Value) -> Value {
    match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::NumberValue(given)) => number(given),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value).collect()),
        Some(Kind::StructValue(fields)) => Value::Object(object(fields)),
    }
}

/// The message of a JSON object.
pub fn message(object: Map<String, Value>) -> Struct {
    object.into_iter().map(|(key, field)| (key, message_value(field))).collect()
}

fn message_value(value: Value) -> weft_proto::json::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(message_value).collect() }),
        Value::Object(fields) => Kind::StructValue(message(fields)),
    };
    kind.into()
}

/// A JSON number from the only kind of number that a message knows.
fn number(given: f64) -> Value {
    if given.fract() == 0.0 && given.abs() <= EXACT_INTEGERS {
        return Value::from(given as i64);
    }
    Number::from_f64(given).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn as_object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    #[test]
    fn json_survives_the_way_there_and_back() {
        let told =
            as_object(json!({"a": 1, "b": -2.5, "c": [true, null, {"d": "é"}], "due_date": 1_795_219_200_000_i64}));
        assert_eq!(object(message(told.clone())), told);
    }

    #[test]
    fn what_json_cannot_say_becomes_null() {
        let fields = [("n".to_owned(), Kind::NumberValue(f64::NAN).into())];
        assert_eq!(object(Struct::from_iter(fields)), as_object(json!({"n": null})));
    }
}
