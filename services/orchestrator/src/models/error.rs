//! Why a model gave no complete answer.
use std::time::Duration;

use weft_core::Reason;

/// A model's failure. `Display` is what the caller reads, `Debug` what the log gets: neither holds any text of a
/// prompt, a user or the provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Nobody knows which provider has this model.
    #[error("this server does not know the model; choose another one")]
    UnknownModel,
    /// The model's provider has no key, while others have one.
    #[error("this server is not connected to the provider of this model; choose another one")]
    NotConfigured {
        /// The setting that is missing.
        key: &'static str,
    },
    /// 401, 402 or 403: the operator's key is wrong, may not do this, or has no money left.
    #[error("the model's provider cannot be used right now; try again later")]
    RefusedKey {
        /// The setting that holds it.
        key: &'static str,
    },
    /// The same of a key of the caller's own.
    #[error("the provider refused your key; check it, its rights and its balance")]
    RefusedOwnKey,
    /// 429 or 529, or 503: the operator's limit at the provider is used up, or the provider has too much to do.
    #[error("the model's provider is busy; try again in a moment")]
    Busy {
        /// When to come back, if the provider said so.
        retry_after: Option<Duration>,
    },
    /// No connection.
    #[error("the model's provider cannot be reached; try again")]
    Unreachable,
    /// Any other 5xx.
    #[error("the model's provider failed; try again")]
    Failed {
        /// HTTP status.
        status: u16,
    },
    /// Nothing came within the time for it.
    #[error("the model's provider did not answer in time; try again")]
    TimedOut,
    /// The conversation does not fit into the model.
    #[error("this is too long for the model; send less context")]
    TooLong,
    /// Any other refusal of the provider: a model it does not have, a parameter it does not take.
    #[error("the model's provider does not accept this request; try another model")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// The provider's own code, if it is one that vendors document.
        code: String,
    },
    /// The answer broke off or made no sense.
    #[error("the model's provider broke off; try again")]
    Interrupted(Break),
    /// The caller has left, or stopped it.
    #[error("the answer was stopped")]
    Left,
}

/// How an answer broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The connection ended before the answer did.
    Cut,
    /// Nothing came for too long.
    Silence,
    /// Not the dialect.
    Malformed,
    /// More than the limit.
    TooLarge,
    /// The provider told of an error in the middle of its answer.
    Told,
}

impl ModelError {
    /// The reason clients match on.
    pub fn reason(&self) -> Reason {
        match self {
            ModelError::TooLong => Reason::PayloadTooLarge,
            ModelError::Interrupted(_) => Reason::ProviderStreamInterrupted,
            ModelError::Left => Reason::Cancelled,
            ModelError::UnknownModel => Reason::InvalidArgument,
            ModelError::NotConfigured { .. } | ModelError::RefusedOwnKey => Reason::FailedPrecondition,
            ModelError::RefusedKey { .. }
            | ModelError::Busy { .. }
            | ModelError::Unreachable
            | ModelError::Failed { .. }
            | ModelError::TimedOut
            | ModelError::Rejected { .. } => Reason::Unavailable,
        }
    }

    /// Whether another provider may have what this one has not: it could not be reached, failed, was busy or silent.
    pub fn is_the_providers(&self) -> bool {
        matches!(
            self,
            ModelError::Unreachable | ModelError::Failed { .. } | ModelError::Busy { .. } | ModelError::TimedOut
        )
    }

    /// The word for it that clients may read: what is wrong with a key or a connection.
    pub fn problem(&self) -> &'static str {
        match self {
            ModelError::RefusedKey { .. } | ModelError::RefusedOwnKey | ModelError::NotConfigured { .. } => {
                "key_refused"
            }
            ModelError::UnknownModel | ModelError::Rejected { status: 404, .. } => "unknown_model",
            ModelError::Rejected { code, .. } if code.contains("model") => "unknown_model",
            ModelError::Busy { .. } => "rate_limited",
            ModelError::TimedOut | ModelError::Interrupted(Break::Silence) => "timed_out",
            ModelError::Unreachable | ModelError::Failed { .. } | ModelError::Interrupted(Break::Cut | Break::Told) => {
                "unreachable"
            }
            ModelError::Left => "left",
            ModelError::Rejected { .. } | ModelError::TooLong | ModelError::Interrupted(_) => "malformed",
        }
    }

    /// The word for it in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            ModelError::UnknownModel => "unknown_model",
            ModelError::NotConfigured { .. } => "not_configured",
            ModelError::RefusedKey { .. } | ModelError::RefusedOwnKey => "refused_key",
            ModelError::Busy { .. } => "busy",
            ModelError::Unreachable => "unreachable",
            ModelError::Failed { .. } => "failed",
            ModelError::TimedOut => "timed_out",
            ModelError::TooLong => "too_long",
            ModelError::Rejected { .. } => "rejected",
            ModelError::Interrupted(_) => "interrupted",
            ModelError::Left => "left",
        }
    }
}
