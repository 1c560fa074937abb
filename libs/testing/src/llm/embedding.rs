//! Vectors of texts.
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::llm::dialect::Dialect;
use crate::llm::reply::Says;
use crate::llm::{Call, Shared, lock, next_scripted, refuse};

/// Numbers a vector has if nobody says.
const DIMENSIONS: u64 = 8;

/// `POST /v1/embeddings`.
pub(super) async fn openai(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    if let Some(refused) = record(&shared, Dialect::OpenAi, &model, &uri, &headers, &body) {
        return refused;
    }
    let texts: Vec<&str> = body["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let tokens = texts.iter().map(|text| text.split_whitespace().count()).sum::<usize>();
    let vectors = texts.iter().enumerate().map(|(at, text)| {
        json!({"object": "embedding", "index": at, "embedding": vector(text, at, body["dimensions"].as_u64())})
    });
    let data: Vec<Value> = vectors.rev().collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Json(json!({"object": "list", "data": data, "model": model, "usage": usage})).into_response()
}

/// `POST /v1beta/models/<model>:batchEmbedContents`.
pub(super) fn gemini(shared: &Shared, model: &str, uri: &Uri, headers: &HeaderMap, body: Value) -> Response {
    if let Some(refused) = record(shared, Dialect::Gemini, model, uri, headers, &body) {
        return refused;
    }
    let requests = body["requests"].as_array().cloned().unwrap_or_default();
    let vectors = requests.iter().enumerate().map(|(at, request)| {
        let text = request["content"]["parts"][0]["text"].as_str().unwrap_or_default();
        json!({"values": vector(text, at, request["outputDimensionality"].as_u64())})
    });
    Json(json!({"embeddings": vectors.collect::<Vec<_>>()})).into_response()
}

/// Notes the request; the answer to it if it is refused on order.
fn record(
    shared: &Shared,
    dialect: Dialect,
    model: &str,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Value,
) -> Option<Response> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = said("authorization");
    let bearer = authorization.as_deref().and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    let key = if dialect == Dialect::Gemini { said("x-goog-api-key") } else { bearer };
    let call = Call { model: model.to_owned(), path: uri.to_string(), body: body.clone(), authorization, key };
    lock(&shared.calls).push(call);
    match next_scripted(shared, model)?.says {
        Says::Status { code, body, retry_after } => {
            Some(refuse(code, &body.unwrap_or_else(|| dialect.error(code)), retry_after))
        }
        _ => None,
    }
}

fn vector(text: &str, at: usize, dimensions: Option<u64>) -> Vec<usize> {
    let numbers = [text.len(), at, 1].into_iter().chain(std::iter::repeat(0));
    numbers.take(usize::try_from(dimensions.unwrap_or(DIMENSIONS)).unwrap_or(1)).collect()
}
