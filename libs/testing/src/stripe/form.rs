//! Stripe's requests: form fields with bracket notation (`items[0][price]=…`), in a body or in a query.
use serde_json::{Map, Value};

use super::state::Refusal;

/// The parameters of a request, or a part of them.
#[derive(Clone, Debug)]
pub(super) struct Params {
    tree: Value,
    /// Where this part stands, in brackets, for the errors.
    at: String,
}

/// The decoded fields in the order they were sent.
pub(super) fn fields(encoded: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://form/?{encoded}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

impl Params {
    pub(super) fn of(fields: &[(String, String)]) -> Params {
        let mut tree = Value::Object(Map::new());
        for (name, value) in fields {
            put(&mut tree, &segments(name), value);
        }
        Params { tree: with_lists(tree), at: String::new() }
    }

    /// A text at a path such as `price_data.currency`; an empty one counts as absent.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.given(path).filter(|text| !text.is_empty())
    }

    /// A text that may be empty, which is how Stripe is told to unset something.
    pub(super) fn given(&self, path: &str) -> Option<&str> {
        self.value(path)?.as_str()
    }

    pub(super) fn need(&self, path: &str) -> Result<&str, Refusal> {
        self.text(path).ok_or_else(|| Refusal::missing(&self.name(path)))
    }

    pub(super) fn number(&self, path: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(path) else { return Ok(None) };
        let wrong =
            || Refusal::param("parameter_invalid_integer", &self.name(path), &format!("Invalid integer: {text}"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    pub(super) fn need_number(&self, path: &str) -> Result<i64, Refusal> {
        self.number(path)?.ok_or_else(|| Refusal::missing(&self.name(path)))
    }

    pub(super) fn flag(&self, path: &str) -> Option<bool> {
        self.text(path).map(|text| text == "true")
    }

    /// A text as JSON: itself or null.
    pub(super) fn json(&self, path: &str) -> Value {
        self.text(path).into()
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.value(path).is_some()
    }

    /// The map of texts at a path, empty if it is absent.
    pub(super) fn map(&self, path: &str) -> Value {
        self.value(path).filter(|value| value.is_object()).cloned().unwrap_or_else(|| Map::new().into())
    }

    /// The texts of a list.
    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        let list = self.value(path).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The parts of a list of maps.
    pub(super) fn list(&self, path: &str) -> Vec<Params> {
        let list = self.value(path).and_then(Value::as_array).into_iter().flatten().enumerate();
        list.map(|(at, tree)| Params { tree: tree.clone(), at: format!("{}[{at}]", self.name(path)) }).collect()
    }

    /// The part below a path; without fields if it is absent.
    pub(super) fn part(&self, path: &str) -> Params {
        Params { tree: self.map(path), at: self.name(path) }
    }

    /// How Stripe names a parameter in an error.
    pub(super) fn name(&self, path: &str) -> String {
        let mut parts = path.split('.');
        let first = parts.next().unwrap_or_default();
        let start = if self.at.is_empty() { first.to_owned() } else { format!("{}[{first}]", self.at) };
        parts.fold(start, |name, part| format!("{name}[{part}]"))
    }

    fn value(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.tree, |value, part| value.get(part))
    }
}

/// `a[b][0]` as `a`, `b`, `0`; `[]` as an empty text.
fn segments(name: &str) -> Vec<&str> {
    let (first, rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    let inner = rest.split('[').skip(1).map(|part| part.trim_end_matches(']'));
    std::iter::once(first).chain(inner).collect()
}

fn put(tree: &mut Value, path: &[&str], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        *tree = text.into();
        return;
    };
    if !tree.is_object() {
        *tree = Map::new().into();
    }
    if let Some(map) = tree.as_object_mut() {
        let key = if first.is_empty() { map.len().to_string() } else { (*first).to_owned() };
        put(map.entry(key).or_insert(Value::Null), rest, text);
    }
}

/// Maps whose keys are all numbers become lists.
fn with_lists(tree: Value) -> Value {
    let Value::Object(map) = tree else { return tree };
    let map: Map<String, Value> = map.into_iter().map(|(key, value)| (key, with_lists(value))).collect();
    let mut numbered: Vec<(u64, Value)> =
        map.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value.clone()))).collect();
    if map.is_empty() || numbered.len() < map.len() {
        return map.into();
    }
    numbered.sort_by_key(|(at, _)| *at);
    numbered.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_become_maps_and_lists_whatever_their_order_and_encoding() {
        let sent = "line_items[1][quantity]=2&line_items%5B0%5D%5Bprice_data%5D%5Bunit_amount%5D=999\
                    &expand[]=a&expand[]=b.c&metadata[user]=u+1%26";
        let params = Params::of(&fields(sent));
        let lines = params.list("line_items");
        assert_eq!(lines[0].number("price_data.unit_amount").unwrap(), Some(999));
        assert_eq!(lines[1].text("quantity"), Some("2"));
        assert_eq!(params.texts("expand"), ["a", "b.c"]);
        assert_eq!(params.map("metadata")["user"], "u 1&");
        assert_eq!(lines[1].name("price_data.currency"), "line_items[1][price_data][currency]");
    }
}
