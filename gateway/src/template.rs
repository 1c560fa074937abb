//! Path templates of `google.api.http`: `/v1/{name=shelves/*}/books/{id}:verb`.

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this.
    Literal(String),
    /// Any one segment.
    One,
    /// All the rest, one segment at least.
    Rest,
}

/// A variable and the segments it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Dotted field path.
    pub field: String,
    /// First segment.
    pub from: usize,
    /// Behind its last segment.
    pub to: usize,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The segments in order.
    pub segments: Vec<Segment>,
    /// What stands behind the last colon.
    pub verb: Option<String>,
    /// The variables in order.
    pub variables: Vec<Variable>,
}

impl Template {
    /// Parses a template; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let wrong = |what: &str| format!("path template `{text}`: {what}");
        let rest = text.strip_prefix('/').ok_or_else(|| wrong("must begin with a slash"))?;
        let (rest, verb) = split_verb(rest);
        let mut template = Template { segments: Vec::new(), verb: verb.map(str::to_owned), variables: Vec::new() };
        for part in split_outside_braces(rest) {
            match part.strip_prefix('{') {
                Some(inner) => {
                    let inner = inner.strip_suffix('}').ok_or_else(|| wrong("a brace is not closed"))?;
                    let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
                    let from = template.segments.len();
                    for one in pattern.split('/') {
                        template.push(one).map_err(wrong)?;
                    }
                    let to = template.segments.len();
                    template.variables.push(Variable { field: field.to_owned(), from, to });
                }
                None => template.push(part).map_err(wrong)?,
            }
        }
        Ok(template)
    }

    fn push(&mut self, segment: &str) -> Result<(), &'static str> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err("`**` must come last");
        }
        self.segments.push(match segment {
            "" => return Err("has an empty segment"),
            "*" => Segment::One,
            "**" => Segment::Rest,
            other if other.contains(['{', '}', '*', '%', '?', '#']) => {
                return Err("has a character that means nothing here");
            }
            other => Segment::Literal(other.to_owned()),
        });
        Ok(())
    }

    /// Whether only one path matches.
    pub fn is_literal(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }
}

/// Splits off `:verb`; a colon inside braces or before a slash is not one.
fn split_verb(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((rest, verb)) if !verb.contains(['/', '}']) && !verb.is_empty() && !rest.is_empty() => (rest, Some(verb)),
        _ => (text, None),
    }
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|one: char| {
        match one {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        one == '/' && depth == 0
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    #[test]
    fn a_template_has_literals_variables_and_a_verb() {
        let template = Template::parse("/v1/{name=shelves/*}/books/{book.id}:open").unwrap();
        assert_eq!(
            template.segments,
            [literal("v1"), literal("shelves"), Segment::One, literal("books"), Segment::One]
        );
        assert_eq!(template.verb.as_deref(), Some("open"));
        let fields: Vec<_> = template.variables.iter().map(|one| (one.field.as_str(), one.from, one.to)).collect();
        assert_eq!(fields, [("name", 1, 3), ("book.id", 4, 5)]);
        assert!(Template::parse("/v1/orders:price").unwrap().is_literal());
    }

    #[test]
    fn broken_templates_are_refused() {
        for bad in ["v1", "/v1//x", "/v1/{id", "/{rest=**}/more", "/v1/a*b", "/"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
