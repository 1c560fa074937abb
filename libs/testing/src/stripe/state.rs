//! What the stub remembers: objects by id, events, clock. Objects are JSON as Stripe shows it; what Stripe shows
//! only when asked (`expand[]`) or never is kept in the object under a name that begins with `_`.
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weft_core::Clock;

use super::form::Params;

/// What async-stripe 1.0.0-rc.10 asks for.
pub(super) const API_VERSION: &str = "2026-09-30.endive";
const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

/// Which fields events and answers carry. Stripe moved some in version 2025-03-31 (basil); what a webhook carries
/// depends on
/// the version of the endpoint, not on the version of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The fields of both generations.
    #[default]
    Both,
    /// Only what Stripe sends since basil: periods on subscription items, `invoice.parent`, no `invoice.subscription`.
    Current,
    /// Events as before basil: periods on the subscription, `invoice.subscription`. Answers carry both.
    Legacy,
}

/// An error as Stripe answers it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub param: Option<String>,
    /// Whether the work had begun, so that the answer is kept for its idempotency key.
    pub begun: bool,
}

pub(super) struct State {
    pub clock: Clock,
    pub shape: Shape,
    /// Id and idempotency key of the request that is served, for the events.
    pub request: Option<(String, Option<String>)>,
    objects: BTreeMap<String, Value>,
    made: u64,
    /// Tells the ids of two stubs apart.
    tag: u16,
}

impl Refusal {
    pub(super) fn missing(param: &str) -> Refusal {
        Refusal::param("parameter_missing", param, &format!("Missing required param: {param}."))
    }

    pub(super) fn param(code: &'static str, param: &str, message: &str) -> Refusal {
        Refusal { code: Some(code), param: Some(param.to_owned()), ..Refusal::invalid(400, message) }
    }

    /// Something that cannot be done in the state things are in.
    pub(super) fn state(code: Option<&'static str>, message: &str) -> Refusal {
        Refusal { code, begun: true, ..Refusal::invalid(400, message) }
    }

    pub(super) fn no_such(what: &str, id: &str, status: u16) -> Refusal {
        let param = if status == 404 { "id" } else { what };
        let message = format!("No such {what}: '{id}'");
        Refusal { code: Some("resource_missing"), param: Some(param.to_owned()), ..Refusal::invalid(status, &message) }
    }

    pub(super) fn invalid(status: u16, message: &str) -> Refusal {
        let message = message.to_owned();
        Refusal { status, kind: "invalid_request_error", code: None, message, param: None, begun: false }
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = self.code {
            error["code"] = code.into();
            error["doc_url"] = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")).into();
        }
        if let Some(param) = &self.param {
            error["param"] = param.as_str().into();
        }
        json!({"error": error})
    }
}

impl State {
    pub(super) fn new(tag: u16) -> State {
        let (clock, shape, objects) = (Clock::System, Shape::Both, BTreeMap::new());
        State { clock, shape, request: None, objects, made: 0, tag }
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms() / 1000
    }

    /// A new id; ids made later sort later.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}_{:012}x{}", self.made, self.tag)
    }

    /// Keeps an object under its `id`, and gives the id.
    pub(super) fn keep(&mut self, object: Value) -> String {
        let id = object["id"].as_str().unwrap_or_default().to_owned();
        self.objects.insert(id.clone(), object);
        id
    }

    /// An object named by the path.
    pub(super) fn find(&self, what: &str, id: &str) -> Result<&Value, Refusal> {
        self.named(what, id, 404)
    }

    /// An object named by a parameter.
    pub(super) fn referred(&self, what: &str, id: &str) -> Result<&Value, Refusal> {
        self.named(what, id, 400)
    }

    fn named(&self, what: &str, id: &str, status: u16) -> Result<&Value, Refusal> {
        let of_kind = |object: &&Value| object["object"] == what;
        self.objects.get(id).filter(of_kind).ok_or_else(|| Refusal::no_such(what, id, status))
    }

    pub(super) fn get(&self, id: &str) -> Option<&Value> {
        self.objects.get(id)
    }

    /// Sets fields of an object.
    pub(super) fn set(&mut self, id: &str, fields: Value) {
        let Value::Object(fields) = fields else { return };
        if let Some(Value::Object(object)) = self.objects.get_mut(id) {
            object.extend(fields);
        }
    }

    /// The objects of a prefix, oldest first.
    pub(super) fn all(&self, prefix: &str) -> impl DoubleEndedIterator<Item = &Value> {
        let start = format!("{prefix}_");
        let end = format!("{prefix}`");
        self.objects.range(start..end).map(|(_, object)| object)
    }

    /// A page, newest first.
    pub(super) fn page(
        &self,
        (prefix, url): (&str, &str),
        params: &Params,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Refusal> {
        let limit = params.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let message = format!("This value must be between 1 and {MAX_LIMIT} (inclusive).");
            return Err(Refusal::param("parameter_invalid_integer", "limit", &message));
        }
        let after = params.text("starting_after");
        if let Some(after) = after.filter(|after| !self.objects.contains_key(*after)) {
            return Err(Refusal { param: Some("starting_after".to_owned()), ..Refusal::no_such("object", after, 400) });
        }
        let before = params.text("ending_before");
        let between = |object: &&Value| {
            let id = object["id"].as_str().unwrap_or_default();
            after.is_none_or(|after| id < after) && before.is_none_or(|before| id > before)
        };
        let found: Vec<&Value> = self.all(prefix).rev().filter(between).filter(|object| wanted(object)).collect();
        let limit = usize::try_from(limit).unwrap_or_default();
        let has_more = found.len() > limit;
        let skipped = if before.is_some() { found.len().saturating_sub(limit) } else { 0 };
        let data: Vec<Value> = found.into_iter().skip(skipped).take(limit).cloned().collect();
        Ok(json!({"object": "list", "data": data, "has_more": has_more, "url": url}))
    }

    /// Keeps an event about an object as it is now.
    pub(super) fn event(&mut self, kind: &str, about: &str) {
        self.event_with(kind, about, Value::Null);
    }

    /// The same, with the values that its fields had before.
    pub(super) fn event_with(&mut self, kind: &str, about: &str, before: Value) {
        let object = self.objects.get(about).cloned().unwrap_or_default();
        let account = (object["object"] == "account").then(|| object["id"].clone());
        let mut data = json!({"object": shown(object, self.shape)});
        if !before.is_null() {
            data["previous_attributes"] = before;
        }
        let request = self.request.clone().map_or((Value::Null, Value::Null), |(id, key)| (id.into(), key.into()));
        let mut event = json!({
            "id": self.id("evt"), "object": "event", "api_version": API_VERSION, "created": self.now(), "data": data,
            "livemode": false, "pending_webhooks": 1, "type": kind,
            "request": {"id": request.0, "idempotency_key": request.1},
        });
        if let Some(account) = account {
            event["account"] = account;
        }
        self.keep(event);
    }

    /// What the client sees of an answer, with what it asked to expand.
    pub(super) fn answer(&self, mut value: Value, expand: &[String]) -> Value {
        for path in expand {
            let path: Vec<&str> = path.split('.').collect();
            self.expand(&mut value, &path);
        }
        shown(value, if self.shape == Shape::Legacy { Shape::Both } else { self.shape })
    }

    fn expand(&self, value: &mut Value, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if let Value::Array(list) = value {
            list.iter_mut().for_each(|one| self.expand(one, path));
            return;
        }
        let Some(map) = value.as_object_mut() else { return };
        if let Some(hidden) = map.remove(&format!("_{first}")) {
            map.insert((*first).to_owned(), hidden);
        }
        let Some(field) = map.get_mut(*first) else { return };
        if let Some(object) = field.as_str().and_then(|id| self.objects.get(id)) {
            *field = object.clone();
        }
        self.expand(field, rest);
    }
}

/// The object with these fields too, each with this value.
pub(super) fn with_all(mut object: Value, names: &[&str], value: &Value) -> Value {
    for name in names {
        object[*name] = value.clone();
    }
    object
}

/// Without what is hidden, and in the shape that is spoken.
fn shown(value: Value, shape: Shape) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(|one| shown(one, shape)).collect(),
        Value::Object(map) => {
            let left_out = left_out(&map, shape);
            let seen = map.into_iter().filter(|(key, _)| !key.starts_with('_') && !left_out.contains(&key.as_str()));
            let texts = ["metadata", "previous_attributes"];
            let deeper = |key: &str, value| if texts.contains(&key) { value } else { shown(value, shape) };
            seen.map(|(key, value)| (key.clone(), deeper(&key, value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

/// The fields that one generation of the API does not know.
fn left_out(object: &Map<String, Value>, shape: Shape) -> &'static [&'static str] {
    match (shape, object.get("object").and_then(Value::as_str)) {
        (Shape::Current, Some("subscription")) => &["current_period_start", "current_period_end"],
        (Shape::Current, Some("invoice")) => {
            &["subscription", "subscription_details", "charge", "payment_intent", "paid"]
        }
        (Shape::Current, Some("line_item")) => &["price", "plan", "subscription_item"],
        (Shape::Current, Some("charge" | "payment_intent")) => &["invoice"],
        (Shape::Legacy, Some("subscription_item")) => &["current_period_start", "current_period_end"],
        (Shape::Legacy, Some("invoice" | "line_item")) => &["parent", "pricing"],
        _ => &[],
    }
}
