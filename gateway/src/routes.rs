//! Which RPC a path means. Built once from the annotations of every method; what cannot be told apart is refused
//! at start.
use std::collections::HashMap;
use std::sync::Arc;

use http::Method as Verb;

use crate::http_rule::HttpRule;
use crate::methods::Method;
use crate::path::{self, BadPath};
use crate::template::{Segment, Template};
use crate::transcode::{FieldPath, Kind, Label};

/// How one path reaches one RPC.
pub struct Binding {
    /// The RPC.
    pub method: Arc<Method>,
    /// Fields that the path fills.
    captures: Vec<(FieldPath, usize, usize)>,
    /// What the HTTP body fills.
    pub body: BodyRule,
    /// The field of the answer that becomes the body; None is all of it.
    pub response: Option<FieldPath>,
    /// The request body is a `google.api.HttpBody`, taken as it is.
    pub raw_request: bool,
    /// The answer's body is a `google.api.HttpBody`, given as it is.
    pub raw_response: bool,
    /// The same path to the RPC that answers where the body says `"stream": true`.
    pub streamed_by: Option<Arc<Binding>>,
    template: String,
}

/// What the HTTP body fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// Nothing: the rest comes from the query.
    None,
    /// The whole request.
    All,
    /// One field.
    Field(FieldPath),
}

/// Every route.
#[derive(Default)]
pub struct Routes {
    /// Paths without variables, the usual case: one look-up of the path as it came.
    exact: HashMap<String, Leaf>,
    root: Node,
}

type Leaf = Vec<(Verb, Arc<Binding>)>;

#[derive(Default)]
struct Node {
    literals: HashMap<String, Node>,
    one: Option<Box<Node>>,
    /// Leaves of `**`, by verb.
    rest: HashMap<Option<String>, Leaf>,
    /// Leaves that end here, by verb.
    here: HashMap<Option<String>, Leaf>,
}

/// What a path means.
pub enum Found<'a> {
    /// This binding, and the path's decoded segments if it has variables.
    Binding(&'a Arc<Binding>, Vec<String>),
    /// The path exists with these methods only.
    WrongVerb(Vec<Verb>),
    /// There is no such path.
    Nothing,
    /// It cannot be a path of ours.
    Bad(BadPath),
}

impl Binding {
    /// Checks a rule against its method's messages.
    pub fn new(method: Arc<Method>, rule: &HttpRule) -> Result<(Self, Template), String> {
        let template = Template::parse(&rule.template).map_err(|what| format!("{}: {what}", method.rpc))?;
        let wrong = |what: String| format!("{}: {what} (path `{}`)", method.rpc, rule.template);
        let field = |message, name: &str| {
            method.tables.path(message, name).ok_or_else(|| wrong(format!("there is no field `{name}`")))
        };
        let mut captures = Vec::new();
        for variable in &template.variables {
            let path = field(method.input, &variable.field)?;
            if !matches!(method.tables.at(method.input, &path), Some((_, kind, Label::Plain | Label::Optional)) if !matches!(kind, Kind::Message(_)))
            {
                return Err(wrong(format!("the field `{}` cannot stand in a path", variable.field)));
            }
            captures.push((path, variable.from, variable.to));
        }
        let body = match rule.body.as_str() {
            "" => BodyRule::None,
            "*" => BodyRule::All,
            name => BodyRule::Field(field(method.input, name)?),
        };
        let response =
            if rule.response_body.is_empty() { None } else { Some(field(method.output, &rule.response_body)?) };
        let is_raw = |message, path: Option<&FieldPath>| {
            let id = match path {
                None => Some(message),
                Some(path) => method
                    .tables
                    .at(message, path)
                    .and_then(|(_, kind, _)| if let Kind::Message(id) = kind { Some(id) } else { None }),
            };
            id.is_some_and(|id| method.tables.name(id) == "google.api.HttpBody")
        };
        let raw_request = match &body {
            BodyRule::None => false,
            BodyRule::All => is_raw(method.input, None),
            BodyRule::Field(path) => is_raw(method.input, Some(path)),
        };
        if raw_request && rule.body.contains('.') {
            return Err(wrong(format!("`{}` has to be a field of the request itself", rule.body)));
        }
        let raw_response = is_raw(method.output, response.as_ref());
        if method.client_streaming {
            return Err(wrong("an RPC that streams requests has no HTTP path".to_owned()));
        }
        let binding = Binding {
            method: method.clone(),
            captures,
            body,
            response,
            raw_request,
            raw_response,
            streamed_by: None,
            template: rule.template.clone(),
        };
        Ok((binding, template))
    }

    /// The binding whose RPC answers a JSON body with a stream of messages, if one does.
    pub fn talks(self: &Arc<Self>) -> Option<&Arc<Binding>> {
        let binding = self.streamed_by.as_ref().unwrap_or(self);
        let fits = binding.method.server_streaming && binding.body == BodyRule::All;
        (fits && !binding.raw_request && !binding.raw_response).then_some(binding)
    }

    /// The fields that the path fills, with their texts.
    pub fn captured(&self, segments: &[String]) -> impl Iterator<Item = (&FieldPath, String)> {
        self.captures.iter().map(|(field, from, to)| {
            let to = if *to == usize::MAX { segments.len() } else { *to };
            (field, segments.get(*from..to).unwrap_or_default().join("/"))
        })
    }

    /// Whether the path fills this field.
    pub fn captures(&self, field: &FieldPath) -> bool {
        self.captures.iter().any(|(captured, _, _)| captured == field)
    }
}

impl Routes {
    /// Adds a binding, unless its path is taken.
    pub fn add(&mut self, verb: Verb, mut binding: Binding, template: &Template) -> Result<(), String> {
        if template.segments.last() == Some(&Segment::Rest) {
            let end = template.segments.len();
            binding.captures.iter_mut().filter(|(_, _, to)| *to == end).for_each(|(_, _, to)| *to = usize::MAX);
        }
        let binding = Arc::new(binding);
        if template.is_literal() {
            insert(self.exact.entry(binding.template.clone()).or_default(), &verb, &binding)?;
        }
        let mut node = &mut self.root;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => return insert(node.rest.entry(template.verb.clone()).or_default(), &verb, &binding),
            };
        }
        insert(node.here.entry(template.verb.clone()).or_default(), &verb, &binding)
    }

    /// The first of the edge's own paths that an annotation claims, and by which RPC.
    pub fn taken<'a>(&'a self, own: &'a [&'a str]) -> Option<(&'a str, &'a str)> {
        own.iter().find_map(|path| {
            let (_, binding) = self.exact.get(*path)?.first()?;
            Some((*path, binding.method.rpc.as_str()))
        })
    }

    /// What a request's method and path mean. Literal segments win over variables.
    pub fn find(&self, verb: &Verb, path: &str) -> Found<'_> {
        // HEAD is GET without the body, which the connection leaves out by itself.
        let verb = if verb == Verb::HEAD { &Verb::GET } else { verb };
        if let Some(leaf) = self.exact.get(path)
            && let Some((_, binding)) = leaf.iter().find(|(one, _)| one == verb)
        {
            return Found::Binding(binding, Vec::new());
        }
        let mut segments = match path::segments(path) {
            Ok(segments) => segments,
            Err(BadPath::Segment) => return Found::Nothing,
            Err(bad) => return Found::Bad(bad),
        };
        let mut allowed = Vec::new();
        if let Some((head, custom)) = segments.last().and_then(|last| last.rsplit_once(':'))
            && !head.is_empty()
        {
            let (head, custom) = (head.to_owned(), Some(custom.to_owned()));
            let mut without = segments.clone();
            without.pop();
            without.push(head);
            if let Some(binding) = self.root.find(verb, &without, &custom, &mut allowed) {
                return Found::Binding(binding, without);
            }
        }
        if let Some(binding) = self.root.find(verb, &segments, &None, &mut allowed) {
            return Found::Binding(binding, std::mem::take(&mut segments));
        }
        if allowed.is_empty() {
            return Found::Nothing;
        }
        allowed.sort_by_key(Verb::to_string);
        allowed.dedup();
        Found::WrongVerb(allowed)
    }
}

impl Node {
    fn find(
        &self,
        verb: &Verb,
        segments: &[String],
        custom: &Option<String>,
        allowed: &mut Vec<Verb>,
    ) -> Option<&Arc<Binding>> {
        let Some((first, more)) = segments.split_first() else { return pick(self.here.get(custom)?, verb, allowed) };
        if let Some(found) = self.literals.get(first).and_then(|node| node.find(verb, more, custom, allowed)) {
            return Some(found);
        }
        if let Some(found) = self.one.as_ref().and_then(|node| node.find(verb, more, custom, allowed)) {
            return Some(found);
        }
        pick(self.rest.get(custom)?, verb, allowed)
    }
}

fn pick<'a>(leaf: &'a Leaf, verb: &Verb, allowed: &mut Vec<Verb>) -> Option<&'a Arc<Binding>> {
    allowed.extend(leaf.iter().map(|(one, _)| one.clone()));
    leaf.iter().find(|(one, _)| one == verb).map(|(_, binding)| binding)
}

fn insert(leaf: &mut Leaf, verb: &Verb, binding: &Arc<Binding>) -> Result<(), String> {
    if let Some((_, other)) = leaf.iter().find(|(one, _)| one == verb) {
        return Err(format!(
            "{verb} {} of {} is the same as {} of {}",
            binding.template, binding.method.rpc, other.template, other.method.rpc
        ));
    }
    leaf.push((verb.clone(), binding.clone()));
    Ok(())
}
