//! The JSON of embeddings. Sources: <https://platform.openai.com/docs/api-reference/embeddings>,
//! <https://ai.google.dev/api/embeddings>.
use serde::{Deserialize, Serialize};

use super::{Texts, Vectors};
use crate::models::usage::{Usage, count};

/// `POST /embeddings`.
#[derive(Serialize)]
pub struct OpenAiRequest<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

/// A request in OpenAI's dialect.
pub fn openai<'a>(texts: Texts<'a>, model: &'a str) -> OpenAiRequest<'a> {
    OpenAiRequest { model, input: texts.texts, encoding_format: "float", dimensions: texts.dimensions }
}

/// `POST /models/<model>:batchEmbedContents`.
#[derive(Serialize)]
pub struct GeminiRequest<'a> {
    requests: Vec<GeminiText<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GeminiText<'a> {
    model: String,
    content: GeminiContent<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct GeminiContent<'a> {
    parts: [GeminiPart<'a>; 1],
}

#[derive(Serialize)]
struct GeminiPart<'a> {
    text: &'a str,
}

/// A request in Gemini's dialect.
pub fn gemini<'a>(texts: Texts<'a>, model: &str) -> GeminiRequest<'a> {
    let request = |text: &'a String| GeminiText {
        model: format!("models/{model}"),
        content: GeminiContent { parts: [GeminiPart { text }] },
        output_dimensionality: texts.dimensions,
    };
    GeminiRequest { requests: texts.texts.iter().map(request).collect() }
}

#[derive(Deserialize)]
struct OpenAiAnswer {
    data: Vec<OpenAiVector>,
    usage: Option<OpenAiUsage>,
}

#[derive(Deserialize)]
struct OpenAiVector {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct OpenAiUsage {
    #[serde(default, deserialize_with = "count")]
    prompt_tokens: Option<i64>,
    #[serde(default, deserialize_with = "count")]
    total_tokens: Option<i64>,
}

/// An answer in OpenAI's dialect, in the order of the texts.
pub fn read_openai(body: &[u8]) -> Option<Vectors> {
    let OpenAiAnswer { mut data, usage } = serde_json::from_slice(body).ok()?;
    data.sort_by_key(|vector| vector.index);
    let is_each = data.iter().enumerate().all(|(at, vector)| vector.index == at);
    let vectors = is_each.then(|| data.into_iter().map(|vector| vector.embedding).collect())?;
    Some(Vectors { vectors, usage: read_only(usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens))) })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiAnswer {
    embeddings: Vec<GeminiVector>,
    usage_metadata: Option<GeminiUsage>,
}

#[derive(Deserialize)]
struct GeminiVector {
    values: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiUsage {
    #[serde(default, deserialize_with = "count")]
    prompt_token_count: Option<i64>,
}

/// An answer in Gemini's dialect.
pub fn read_gemini(body: &[u8]) -> Option<Vectors> {
    let GeminiAnswer { embeddings, usage_metadata } = serde_json::from_slice(body).ok()?;
    let vectors = embeddings.into_iter().map(|vector| vector.values).collect();
    Some(Vectors { vectors, usage: read_only(usage_metadata.and_then(|usage| usage.prompt_token_count)) })
}

/// Nothing is written.
fn read_only(prompt_tokens: Option<i64>) -> Usage {
    Usage { prompt_tokens, completion_tokens: Some(0), total_tokens: None }
}
