//! Texts as vectors: the dialects for it, and a built-in way that needs no key.
#[cfg(test)]
mod golden;
pub mod offline;
mod wire;

use crate::models::dialect::Dialect;
use crate::models::usage::Usage;
use crate::models::{Break, ModelError};

/// Most numbers of a vector.
pub const DIMENSIONS_MOST: u32 = 4_096;

/// Texts to make vectors of. It has no `Debug`: it holds what users write.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// They, none empty.
    pub texts: &'a [String],
    /// Numbers a vector has; None: as many as the model gives.
    pub dimensions: Option<u32>,
}

/// Vectors, in the order of their texts.
#[derive(Default)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Vectors {
    /// They, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, as far as the provider says.
    pub usage: Usage,
}

/// The body of a request; None: nobody who speaks this makes vectors.
pub fn body(dialect: Dialect, texts: Texts<'_>, model: &str) -> Option<Vec<u8>> {
    match dialect {
        Dialect::OpenAi(_) => serde_json::to_vec(&wire::openai(texts, model)).ok(),
        Dialect::Gemini => serde_json::to_vec(&wire::gemini(texts, model)).ok(),
        Dialect::Anthropic => None,
    }
}

/// The answer to so many texts.
///
/// # Errors
/// [`ModelError::Interrupted`] if it is not one vector a text, all of one length, not too long, and of finite numbers.
pub fn read(dialect: Dialect, body: &[u8], texts: usize) -> Result<Vectors, ModelError> {
    let malformed = ModelError::Interrupted(Break::Malformed);
    let read = match dialect {
        Dialect::OpenAi(_) => wire::read_openai(body),
        Dialect::Gemini => wire::read_gemini(body),
        Dialect::Anthropic => None,
    };
    let answer = read.ok_or_else(|| malformed.clone())?;
    let length = answer.vectors.first().map_or(0, Vec::len);
    let is_whole = |vector: &Vec<f32>| vector.len() == length && vector.iter().all(|number| number.is_finite());
    if length == 0
        || length > DIMENSIONS_MOST as usize
        || answer.vectors.len() != texts
        || !answer.vectors.iter().all(is_whole)
    {
        return Err(malformed);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::models::openai::Cap;

    const OPENAI: Dialect = Dialect::OpenAi(Cap::MaxTokens);

    #[test]
    fn an_answer_in_another_order_is_put_in_order() {
        let body = json!({"data": [{"index": 1, "embedding": [0.5]}, {"index": 0, "embedding": [1.0]}],
                          "usage": {"prompt_tokens": 7, "total_tokens": 7}});
        let answer = read(OPENAI, body.to_string().as_bytes(), 2).unwrap();
        assert_eq!(answer.vectors, [[1.0], [0.5]]);
        assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (Some(7), Some(0)));
    }

    #[test]
    fn what_is_no_vector_a_text_is_refused() {
        for body in [
            json!({}),
            json!({"data": []}),
            json!({"data": [{"index": 0, "embedding": []}]}),
            json!({"data": [{"index": 1, "embedding": [1.0]}]}),
            json!({"data": [{"index": 0, "embedding": [1e300]}]}),
            json!({"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]}),
            json!({"data": [{"index": 0, "embedding": ["x"]}]}),
            json!({"error": {"message": "no"}}),
        ] {
            let refused = read(OPENAI, body.to_string().as_bytes(), 1).unwrap_err();
            assert_eq!(refused, ModelError::Interrupted(Break::Malformed), "{body}");
        }
        for (length, is_taken) in [(4_096, true), (4_097, false)] {
            let body = json!({"data": [{"index": 0, "embedding": vec![1.0; length]}]});
            assert_eq!(read(OPENAI, body.to_string().as_bytes(), 1).is_ok(), is_taken, "{length}");
        }
        let body = json!({"embeddings": [{"values": [1.0, 2.0]}, {"values": [1.0]}]});
        assert!(read(Dialect::Gemini, body.to_string().as_bytes(), 2).is_err());
        let body = json!({"embeddings": [{"values": [1.0, 2.0]}]});
        assert!(read(Dialect::Gemini, body.to_string().as_bytes(), 1).is_ok());
    }
}
