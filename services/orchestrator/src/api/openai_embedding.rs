//! Embeddings the way OpenAI's API has them.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_proto::json::{Kind, ListValue, Value};
use weft_proto::orchestrator::v1::{
    CreateEmbeddingRequest, CreateEmbeddingResponse, CreateEmbeddingsRequest, CreateEmbeddingsResponse, Embedding,
    EmbeddingUsage, OpenAiEmbedding,
};

use crate::completions::wrong;
use crate::error::Error;

/// How vectors are written.
#[derive(Clone, Copy)]
pub enum Format {
    /// Lists of numbers.
    Float,
    /// Little-endian 32-bit floats in base64.
    Base64,
}

/// The request as `EmbeddingService` has it.
///
/// # Errors
/// [`Error::Parameter`], [`Error::Unsupported`].
pub fn read(request: CreateEmbeddingRequest) -> Result<(CreateEmbeddingsRequest, Format), Error> {
    let format = match request.encoding_format.as_deref() {
        None | Some("float") => Format::Float,
        Some("base64") => Format::Base64,
        Some(_) => return Err(wrong("encoding_format", "must be float or base64")),
    };
    let dimensions = request.dimensions.unwrap_or(0);
    if dimensions == 0 && request.dimensions.is_some() {
        return Err(wrong("dimensions", "must be at least 1"));
    }
    let texts = match request.input.and_then(|input| input.kind) {
        Some(Kind::StringValue(text)) => vec![text],
        Some(Kind::ListValue(list)) => list.values.into_iter().map(text).collect::<Result<_, _>>()?,
        _ => return Err(no_text()),
    };
    Ok((CreateEmbeddingsRequest { texts, model: request.model, dimensions }, format))
}

fn text(value: Value) -> Result<String, Error> {
    match value.kind {
        Some(Kind::StringValue(text)) => Ok(text),
        // Which text a token stands for is only known to the model that it is of.
        Some(Kind::NumberValue(_) | Kind::ListValue(_)) => {
            Err(Error::Unsupported { name: "input".into(), place: "as tokens" })
        }
        _ => Err(no_text()),
    }
}

fn no_text() -> Error {
    wrong("input", "must be a text or a list of texts")
}

/// The answer, in this format.
pub fn answer(made: CreateEmbeddingsResponse, format: Format) -> CreateEmbeddingResponse {
    let CreateEmbeddingsResponse { embeddings, model, prompt_tokens } = made;
    let data = embeddings.into_iter().enumerate().map(|(at, Embedding { values })| OpenAiEmbedding {
        object: "embedding".to_owned(),
        index: i32::try_from(at).unwrap_or(i32::MAX),
        embedding: Some(written(&values, format)),
    });
    let usage = Some(EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens });
    CreateEmbeddingResponse { object: "list".to_owned(), data: data.collect(), model, usage }
}

fn written(values: &[f32], format: Format) -> Value {
    let kind = match format {
        Format::Float => {
            let number = |value: &f32| Kind::NumberValue(f64::from(*value)).into();
            Kind::ListValue(ListValue { values: values.iter().map(number).collect() })
        }
        Format::Base64 => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Kind::StringValue(STANDARD.encode(bytes))
        }
    };
    Value { kind: Some(kind) }
}
