//! The dialects: how a request is written, where it goes, and what comes back.
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::models::event::Event;
use crate::models::openai::Cap;
use crate::models::{Call, ModelError, anthropic, gemini, openai};

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `POST /v1/chat/completions`, with this name for the cap on what is said.
    OpenAi(Cap),
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /v1beta/models/<model>:generateContent`.
    Gemini,
}

impl Dialect {
    /// The base URL with the version that the dialect's paths begin with. One that is there already stays; the OpenAI
    /// dialect is found under other paths too, so there it is added to a bare host only.
    pub fn versioned(self, mut base: Url) -> Url {
        let last = base.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let is_version =
            last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()));
        let version = match self {
            Dialect::OpenAi(_) if !last.is_empty() => return base,
            Dialect::OpenAi(_) | Dialect::Anthropic => "v1",
            Dialect::Gemini => "v1beta",
        };
        if !is_version && let Ok(mut path) = base.path_segments_mut() {
            path.pop_if_empty().push(version);
        }
        base
    }

    /// Where a request goes. The key is in a header, never here: URLs are logged everywhere.
    pub fn url(self, base: &Url, model: &str, streamed: bool) -> Url {
        let mut url = base.clone();
        // A base URL of http or https always has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            match self {
                Dialect::OpenAi(_) => path.extend(["chat", "completions"]),
                Dialect::Anthropic => path.push("messages"),
                Dialect::Gemini if streamed => path.extend(["models", &format!("{model}:streamGenerateContent")]),
                Dialect::Gemini => path.extend(["models", &format!("{model}:generateContent")]),
            };
        }
        if self == Dialect::Gemini && streamed {
            url.set_query(Some("alt=sse"));
        }
        url
    }

    /// Where texts are made into vectors; None: nobody who speaks this does that.
    pub fn embedding_url(self, base: &Url, model: &str) -> Option<Url> {
        let mut url = base.clone();
        let mut path = url.path_segments_mut().ok()?;
        path.pop_if_empty();
        match self {
            Dialect::OpenAi(_) => path.push("embeddings"),
            Dialect::Anthropic => return None,
            Dialect::Gemini => path.extend(["models", &format!("{model}:batchEmbedContents")]),
        };
        drop(path);
        Some(url)
    }

    /// The headers of every request; None if the key holds what no header may.
    pub fn headers(self, key: Option<&str>) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        if self == Dialect::Anthropic {
            headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
        }
        if let Some(key) = key {
            let (name, value) = match self {
                Dialect::OpenAi(_) => (AUTHORIZATION, format!("Bearer {key}")),
                Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
                Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), key.to_owned()),
            };
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Some(headers)
    }

    /// The body of a request.
    ///
    /// # Errors
    /// None in practice: everything in it can be written as JSON.
    pub fn body(self, call: &Call<'_>, model: &str, streamed: bool) -> serde_json::Result<Vec<u8>> {
        match self {
            Dialect::OpenAi(cap) => openai::body(call, model, cap, streamed),
            Dialect::Anthropic => anthropic::body(call, model, streamed),
            Dialect::Gemini => gemini::body(call, model),
        }
    }

    /// What a client asks for that cannot be said in this dialect, by OpenAI's name for it.
    pub fn lacks(self, call: &Call<'_>) -> Option<&'static str> {
        let wants = call.wants?;
        match self {
            Dialect::OpenAi(_) => None,
            Dialect::Anthropic => anthropic::lacks(wants),
            Dialect::Gemini => gemini::lacks(wants),
        }
    }

    /// What the data of one server-sent event says.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if it tells of an error or makes no sense.
    pub fn chunk(self, data: &[u8]) -> Result<Vec<Event>, ModelError> {
        match self {
            Dialect::OpenAi(_) => openai::chunk(data),
            Dialect::Anthropic => anthropic::chunk(data),
            Dialect::Gemini => gemini::chunk(data),
        }
    }

    /// What a plain answer says; there is always a finish in it.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] if it tells of an error or there is no answer in it.
    pub fn whole(self, data: &[u8]) -> Result<Vec<Event>, ModelError> {
        match self {
            Dialect::OpenAi(_) => openai::whole(data),
            Dialect::Anthropic => anthropic::whole(data),
            Dialect::Gemini => gemini::whole(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Aim;
    use crate::models::wants::{Effort, Format, Wants};

    const OPENAI: Dialect = Dialect::OpenAi(Cap::MaxTokens);

    #[test]
    fn what_a_dialect_has_no_word_for_is_named() {
        let lacking = |dialect: Dialect, wants: Wants| {
            let (messages, tools, aim) = (&[][..], &[][..], Aim::Answer);
            let wants = Some(&wants);
            dialect.lacks(&Call { model: "m", messages, tools, may_call: true, output_tokens: 1, aim, wants })
        };
        type Case = (fn(&mut Wants), &'static str, [bool; 2]);
        let cases: [Case; 9] = [
            (|wants| wants.temperature = Some(1.5), "temperature", [true, false]),
            (|wants| wants.temperature = Some(1.0), "temperature", [false, false]),
            (|wants| wants.presence_penalty = Some(0.1), "presence_penalty", [true, false]),
            (|wants| wants.frequency_penalty = Some(-0.1), "frequency_penalty", [true, false]),
            (|wants| wants.frequency_penalty = Some(0.0), "frequency_penalty", [false, false]),
            (|wants| wants.seed = Some(1), "seed", [true, false]),
            (|wants| wants.format = Format::Json, "response_format", [true, false]),
            (|wants| wants.effort = Some(Effort::Minimal), "reasoning_effort", [true, false]),
            (|wants| wants.parallel = Some(false), "parallel_tool_calls", [false, true]),
        ];
        for (change, name, lacks) in cases {
            let wants = || {
                let mut wants = Wants::default();
                change(&mut wants);
                wants
            };
            let named = |is_lacking: bool| is_lacking.then_some(name);
            assert_eq!(lacking(OPENAI, wants()), None, "{name}");
            assert_eq!(lacking(Dialect::Anthropic, wants()), named(lacks[0]), "{name}");
            assert_eq!(lacking(Dialect::Gemini, wants()), named(lacks[1]), "{name}");
        }
    }

    #[test]
    fn a_base_url_may_be_given_with_or_without_its_version() {
        for (dialect, base, url) in [
            (OPENAI, "http://h/v1", "http://h/v1/chat/completions"),
            (OPENAI, "http://h/v1/", "http://h/v1/chat/completions"),
            (OPENAI, "http://h", "http://h/v1/chat/completions"),
            (OPENAI, "http://h/v1beta/openai", "http://h/v1beta/openai/chat/completions"),
            (Dialect::Anthropic, "http://h", "http://h/v1/messages"),
            (Dialect::Anthropic, "http://h/v1/", "http://h/v1/messages"),
            (Dialect::Anthropic, "http://h/anthropic", "http://h/anthropic/v1/messages"),
            (Dialect::Gemini, "http://h/", "http://h/v1beta/models/m:generateContent"),
            (Dialect::Gemini, "http://h/v1beta", "http://h/v1beta/models/m:generateContent"),
            (Dialect::Gemini, "http://h/vertex/v1", "http://h/vertex/v1/models/m:generateContent"),
        ] {
            let base = dialect.versioned(base.parse().unwrap());
            assert_eq!(dialect.url(&base, "m", false).as_str(), url);
        }
    }

    #[test]
    fn a_models_name_stays_within_its_place_in_the_url() {
        let base = Dialect::Gemini.versioned("http://h".parse().unwrap());
        let url = Dialect::Gemini.url(&base, "../x?key=1#y", true);
        assert_eq!(url.as_str(), "http://h/v1beta/models/..%2Fx%3Fkey=1%23y:streamGenerateContent?alt=sse");
    }

    #[test]
    fn a_key_is_in_its_header_and_not_shown() {
        for (dialect, name) in
            [(OPENAI, "authorization"), (Dialect::Anthropic, "x-api-key"), (Dialect::Gemini, "x-goog-api-key")]
        {
            let headers = dialect.headers(Some("CANARY")).unwrap();
            assert!(headers[name].to_str().unwrap().ends_with("CANARY"));
            assert!(!format!("{headers:?}").contains("CANARY"));
            assert!(dialect.headers(Some("a\nb")).is_none());
        }
    }
}
