//! What a request to a model used, as its provider tells it.
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Tokens of one request as the provider said: 0 is 0, None is not said, and nonsense (negative, or more than was
/// allowed) is passed on for billing to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, those from a cache too.
    pub prompt_tokens: Option<i64>,
    /// Tokens said, those of reasoning too where the provider counts them so.
    pub completion_tokens: Option<i64>,
    /// Both, where the provider says so itself; some count reasoning only here.
    pub total_tokens: Option<i64>,
}

impl Usage {
    /// Takes over what a later part of the answer says; what it leaves out stays.
    pub fn update(&mut self, later: Usage) {
        self.prompt_tokens = later.prompt_tokens.or(self.prompt_tokens);
        self.completion_tokens = later.completion_tokens.or(self.completion_tokens);
        self.total_tokens = later.total_tokens.or(self.total_tokens);
    }
}

/// The sum of counts that were said; None if none was.
pub fn sum(counts: impl IntoIterator<Item = Option<i64>>) -> Option<i64> {
    counts.into_iter().flatten().reduce(i64::saturating_add)
}

/// Reads a count of tokens, for `#[serde(deserialize_with)]`. A broken answer would cost the user its text, so what is
/// no number counts as not said.
pub fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(number) => {
            let whole = number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX));
            whole.or_else(|| number.as_f64().map(|float| float as i64))
        }
        _ => None,
    })
}

/// Longest piece that is one token; vendors that stream token by token send no longer ones, save a few.
const TOKEN_BYTES: usize = 12;
/// So many bytes of a longer piece are a token.
const BYTES_PER_TOKEN: usize = 4;

/// About how many tokens a piece of an answer is.
pub fn about(piece: &str) -> i64 {
    let tokens = match piece.len() {
        0 => 0,
        1..=TOKEN_BYTES => 1,
        bytes => bytes.div_ceil(BYTES_PER_TOKEN),
    };
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

/// What a call of a model used. Clones share it: whoever keeps one can read it while the model is still speaking, after
/// it failed, and after the caller left.
#[derive(Clone, Default)]
pub struct Meter(Arc<Mutex<Reading>>);

#[derive(Default)]
struct Reading {
    answers: Vec<Usage>,
    delivered: i64,
}

impl Meter {
    /// A provider begins to answer.
    pub fn begin(&self) {
        self.with(|reading| reading.answers.push(Usage::default()));
    }

    /// What is known of the answer that began last.
    pub fn set(&self, usage: Usage) {
        self.with(|reading| {
            if let Some(last) = reading.answers.last_mut() {
                *last = usage;
            }
        });
    }

    /// About so many more tokens of the answer arrived.
    pub fn deliver(&self, tokens: i64) {
        self.with(|reading| reading.delivered = reading.delivered.saturating_add(tokens));
    }

    /// About how many tokens of the answer arrived, whoever they were for.
    pub fn delivered(&self) -> i64 {
        self.with(|reading| reading.delivered)
    }

    /// One entry a request that a provider began to answer, oldest first.
    pub fn answers(&self) -> Vec<Usage> {
        self.with(|reading| reading.answers.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Reading) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Counted {
        #[serde(default, deserialize_with = "count")]
        tokens: Option<i64>,
    }

    #[test]
    fn counts_are_passed_on_as_said() {
        for (json, tokens) in [
            ("{}", None),
            ("{\"tokens\":null}", None),
            ("{\"tokens\":\"many\"}", None),
            ("{\"tokens\":0}", Some(0)),
            ("{\"tokens\":-7}", Some(-7)),
            ("{\"tokens\":12.0}", Some(12)),
            ("{\"tokens\":18446744073709551615}", Some(i64::MAX)),
            ("{\"tokens\":1e300}", Some(i64::MAX)),
        ] {
            assert_eq!(serde_json::from_str::<Counted>(json).unwrap().tokens, tokens, "{json}");
        }
    }

    #[test]
    fn a_word_is_a_token_and_a_sentence_is_several() {
        for (piece, tokens) in
            [("", 0), ("w0", 1), (" w1999", 1), ("🙂🙂🙂", 1), (&"x".repeat(13), 4), (&"x".repeat(400), 100)]
        {
            assert_eq!(about(piece), tokens, "{piece}");
        }
    }

    #[test]
    fn a_sum_of_nothing_is_not_zero_and_none_overflows() {
        assert_eq!(sum([None, None]), None);
        assert_eq!(sum([Some(0), None]), Some(0));
        assert_eq!(sum([Some(i64::MAX), Some(1)]), Some(i64::MAX));
    }
}
