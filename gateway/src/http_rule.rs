//! `google.api.http` of a method, read from the descriptors by name: an operator's own copy of the annotation
//! serves as well as ours.
use http::Method;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};

/// One HTTP binding of a method.
#[derive(Clone, Debug)]
pub struct HttpRule {
    /// HTTP method.
    pub verb: Method,
    /// Path template.
    pub template: String,
    /// `*`, a field, or empty.
    pub body: String,
    /// A field of the answer, or empty for all of it.
    pub response_body: String,
}

/// Every binding of a method, the first one first. The error says which annotation cannot be understood.
pub fn http_rules(method: &MethodDescriptor) -> Result<Vec<HttpRule>, String> {
    let Some(extension) = method.parent_pool().get_extension_by_name("google.api.http") else { return Ok(Vec::new()) };
    let options = method.options();
    if !options.has_extension(&extension) {
        return Ok(Vec::new());
    }
    let value = options.get_extension(&extension);
    let Value::Message(rule) = value.as_ref() else { return Ok(Vec::new()) };
    let mut rules = vec![one(rule).map_err(|what| format!("{}: {what}", method.full_name()))?];
    if let Some(more) = rule.get_field_by_name("additional_bindings")
        && let Value::List(more) = more.as_ref()
    {
        for rule in more.iter().filter_map(Value::as_message) {
            rules.push(one(rule).map_err(|what| format!("{}: {what}", method.full_name()))?);
        }
    }
    Ok(rules)
}

fn one(rule: &DynamicMessage) -> Result<HttpRule, String> {
    let text = |name: &str| {
        rule.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let verbs = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    for (name, verb) in verbs {
        let template = text(name);
        if !template.is_empty() {
            return Ok(HttpRule { verb, template, body: text("body"), response_body: text("response_body") });
        }
    }
    Err("its google.api.http names no path with get, put, post, delete or patch".to_owned())
}
