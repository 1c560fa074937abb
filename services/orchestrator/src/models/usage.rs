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

/// What every request of a conversation used. Clones share it: whoever keeps one can read it while the model is still
/// speaking, after it failed, and after the caller left.
#[derive(Clone, Default)]
pub struct Meter(Arc<Mutex<Vec<Usage>>>);

impl Meter {
    /// A provider begins to answer.
    pub fn begin(&self) {
        self.with(|answers| answers.push(Usage::default()));
    }

    /// What is known of the answer that began last.
    pub fn set(&self, usage: Usage) {
        self.with(|answers| {
            if let Some(last) = answers.last_mut() {
                *last = usage;
            }
        });
    }

    /// One entry a request that a provider began to answer, oldest first: each round of tools has its own.
    pub fn answers(&self) -> Vec<Usage> {
        self.with(|answers| answers.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<Usage>) -> T) -> T {
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
    fn a_sum_of_nothing_is_not_zero_and_none_overflows() {
        assert_eq!(sum([None, None]), None);
        assert_eq!(sum([Some(0), None]), Some(0));
        assert_eq!(sum([Some(i64::MAX), Some(1)]), Some(i64::MAX));
    }
}
