//! What a provider's HTTP error means.
//!
//! Sources: <https://platform.openai.com/docs/guides/error-codes>, <https://platform.claude.com/docs/en/api/errors>,
//! <https://ai.google.dev/gemini-api/docs/troubleshooting>, <https://docs.x.ai/docs/key-information/debugging>.
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

use crate::models::ModelError;

/// Longest `retry-after` that is passed on.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3_600);
/// Anthropic has more to do than it can.
const OVERLOADED: u16 = 529;
/// Codes of a conversation that does not fit.
const TOO_LONG_WORDS: [&str; 2] = ["context_length_exceeded", "request_too_large"];
/// The same where the code does not tell, in lower case.
const TOO_LONG_SENTENCES: [&str; 5] = [
    "prompt is too long",
    "exceed context limit",
    "input token count",
    "maximum context length",
    "maximum prompt length",
];
/// Codes of a key that is wrong or has no money left, under another status than 401 to 403.
const KEY_WORDS: [&str; 2] = ["API_KEY_INVALID", "insufficient_quota"];
/// The same where the code does not tell, in lower case.
const KEY_SENTENCES: [&str; 2] = ["incorrect api key", "credit balance is too low"];

/// Codes that vendors document; any other may repeat what the user wrote.
const KNOWN_WORDS: [&str; 25] = [
    "billing_hard_limit_reached",
    "content_filter",
    "content_policy_violation",
    "integer_above_max_value",
    "integer_below_min_value",
    "invalid_request_error",
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "model_not_found",
    "not_found_error",
    "permission_error",
    "string_above_max_length",
    "unknown_parameter",
    "unsupported_country_region_territory",
    "unsupported_model",
    "unsupported_parameter",
    "unsupported_value",
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
];

/// The error that a status, its headers and its body tell of; `key` is the setting with our key. Of the body's text
/// nothing is kept: it may repeat what the user wrote.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], key: &'static str) -> ModelError {
    let said = Said::read(body);
    match status {
        _ if said.is_one_of(&KEY_WORDS, &KEY_SENTENCES) => ModelError::RefusedKey { key },
        _ if said.is_one_of(&TOO_LONG_WORDS, &TOO_LONG_SENTENCES) => ModelError::TooLong,
        StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
            ModelError::RefusedKey { key }
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => busy(headers, &said),
        StatusCode::REQUEST_TIMEOUT => ModelError::TimedOut,
        StatusCode::PAYLOAD_TOO_LARGE => ModelError::TooLong,
        status if status.as_u16() == OVERLOADED => busy(headers, &said),
        status if status.is_server_error() => ModelError::Failed { status: status.as_u16() },
        status => ModelError::Rejected { status: status.as_u16(), code: said.word() },
    }
}

fn busy(headers: &HeaderMap, said: &Said) -> ModelError {
    let in_header = || headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs);
    let retry_after = in_header().or(said.retry_after).map(|after| after.min(RETRY_AFTER_MOST));
    ModelError::Busy { retry_after }
}

/// What the body of an error says.
#[derive(Default)]
struct Said {
    words: Vec<String>,
    sentence: String,
    retry_after: Option<Duration>,
}

impl Said {
    /// Reads any dialect's body: they differ in names only. xAI's `error` is a sentence, Gemini's may be in a list.
    fn read(body: &[u8]) -> Said {
        let whole: Value = serde_json::from_slice(body).unwrap_or_default();
        let whole = whole.get(0).unwrap_or(&whole);
        let error = &whole["error"];
        let details = || error["details"].as_array().into_iter().flatten();
        let reasons = details().map(|detail| &detail["reason"]);
        let words = [&error["code"], &error["type"], &error["status"]].into_iter().chain(reasons);
        let words = words.filter_map(Value::as_str).map(str::to_owned).collect();
        let sentence = error.as_str().or_else(|| error["message"].as_str()).unwrap_or_default().to_lowercase();
        let retry_after = details().find_map(|detail| seconds(detail["retryDelay"].as_str()?));
        Said { words, sentence, retry_after }
    }

    fn is_one_of(&self, words: &[&str], sentences: &[&str]) -> bool {
        self.words.iter().any(|word| words.contains(&word.as_str()))
            || sentences.iter().any(|sentence| self.sentence.contains(sentence))
    }

    /// The provider's code if it is one that is known, so that it can be logged.
    fn word(self) -> String {
        self.words.into_iter().find(|word| KNOWN_WORDS.contains(&word.as_str())).unwrap_or_default()
    }
}

/// A duration as JSON has it: `7s`, `0.5s`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: &Value) -> ModelError {
        read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.to_string().as_bytes(), "KEY")
    }

    #[test]
    fn a_key_that_is_refused_is_known_in_every_dialect() {
        let refused = ModelError::RefusedKey { key: "KEY" };
        let reason = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
        let low = "Your credit balance is too low to access the Anthropic API.";
        for (status, body) in [
            (401, json!({})),
            (402, json!({"type": "error", "error": {"type": "billing_error"}})),
            (403, json!("nothing")),
            (429, json!({"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}})),
            (400, json!({"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": reason}})),
            (400, json!({"type": "error", "error": {"type": "invalid_request_error", "message": low}})),
            (400, json!({"code": "x", "error": "Incorrect API key provided: xa***45."})),
        ] {
            assert_eq!(told(status, &body), refused, "{status} {body}");
        }
    }

    #[test]
    fn what_does_not_fit_is_known_in_every_dialect() {
        let openai = json!({"error": {"message": "x", "code": "context_length_exceeded"}});
        let vllm = json!({"error": {"message": "This model's maximum context length is 4096 tokens.", "code": 400}});
        let anthropic =
            json!({"error": {"type": "invalid_request_error", "message": "prompt is too long: 7 > 5 maximum"}});
        let gemini = json!({"error": {"status": "INVALID_ARGUMENT", "message": "The input token count (7) exceeds …"}});
        for body in [openai, vllm, anthropic, gemini] {
            assert_eq!(told(400, &body), ModelError::TooLong, "{body}");
        }
        assert_eq!(told(413, &json!({"error": {"type": "request_too_large"}})), ModelError::TooLong);
    }

    #[test]
    fn a_busy_provider_may_say_until_when() {
        let delay = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}]);
        let gemini = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": delay}});
        assert_eq!(told(429, &gemini), ModelError::Busy { retry_after: Some(Duration::from_millis(7_500)) });
        let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
        assert_eq!(told(529, &overloaded), ModelError::Busy { retry_after: None });
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "99999".parse().unwrap())]);
        let asked = read(StatusCode::TOO_MANY_REQUESTS, &headers, b"", "KEY");
        assert_eq!(asked, ModelError::Busy { retry_after: Some(RETRY_AFTER_MOST) });
    }

    #[test]
    fn only_a_known_word_is_kept() {
        let code = |word: &str| told(404, &json!({"error": {"message": "CANARY", "type": word}}));
        assert_eq!(code("not_found_error"), ModelError::Rejected { status: 404, code: "not_found_error".to_owned() });
        for word in ["what the user wrote", "CANARY"] {
            assert_eq!(code(word), ModelError::Rejected { status: 404, code: String::new() });
        }
    }
}
