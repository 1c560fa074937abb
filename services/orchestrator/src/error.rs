//! What can go wrong, and how it is told.
use std::borrow::Cow;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_core::Reason;
use weft_runtime::internal;

use crate::models::ModelError;

/// An error of this service. No text of a user, a prompt or a model is in any of them, so each may be logged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error("{key}: {problem}")]
    Config {
        /// The environment variable.
        key: &'static str,
        /// What is wrong with it and what to do.
        problem: &'static str,
    },
    /// The client for the model's provider could not be built.
    #[error("the http client for the model's provider could not be built")]
    Client(#[source] reqwest::Error),
    /// What models are told could not be made into fingerprints.
    #[error("the fingerprints of the prompts could not be built")]
    Fingerprints(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Serving failed.
    #[error("the orchestrator stopped serving")]
    Runtime(#[from] weft_runtime::RuntimeError),
    /// A field of the request breaks its rule.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// A part of the request is over its limit.
    #[error("{0}")]
    TooLarge(Cow<'static, str>),
    /// The plan does not reach as far as the agent that was asked for.
    #[error("your plan does not include this agent; choose another one or upgrade")]
    AgentNotInPlan,
    /// The product shows nothing that was not judged first, and there is no judge yet.
    #[error("answers of this product have to be moderated, which this server cannot do yet")]
    NoModeration,
    /// None of the product's agents exists in code yet.
    #[error("this product has no agent that can answer yet")]
    NoAgent,
    /// `execution_mode` is `plan`.
    #[error("plans are not available yet; leave execution_mode empty or use direct")]
    PlanMode,
    /// Billing did not say what the plan includes.
    #[error("the plan of your account cannot be checked right now; try again")]
    NoEntitlements,
    /// Another service refused, with a status that may be passed on.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The model's provider failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model used its tools wrongly once more after it had been told.
    #[error("the model could not use its tools for this; try again or say it differently")]
    Tools,
    /// The model said nothing.
    #[error("the model gave no answer; try again")]
    Silent,
    /// The whole answer took too long.
    #[error("the answer took too long; ask for less or try again")]
    TookTooLong,
}

impl Error {
    /// The stable reason clients match on.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Config { .. } | Error::Client(_) | Error::Fingerprints(_) | Error::Runtime(_) => Reason::Internal,
            Error::Invalid(_) => Reason::InvalidArgument,
            Error::TooLarge(_) => Reason::PayloadTooLarge,
            Error::AgentNotInPlan => Reason::FeatureNotInPlan,
            Error::NoAgent | Error::NoModeration | Error::PlanMode => Reason::Unimplemented,
            Error::NoEntitlements => Reason::Unavailable,
            Error::Refused(status) => Reason::of(status).unwrap_or(Reason::Unavailable),
            Error::Model(error) => error.reason(),
            Error::Tools | Error::Silent => Reason::ProviderStreamInterrupted,
            Error::TookTooLong => Reason::DeadlineExceeded,
        }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.reason().code()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Refused(status) => *status,
            Error::Model(ModelError::Busy { retry_after }) => {
                let mut details = ErrorDetails::new();
                details.set_retry_info(retry_after);
                Reason::Unavailable.status_with(ModelError::Busy { retry_after }.to_string(), details)
            }
            error if error.reason() == Reason::Internal => internal(error),
            error => error.reason().status(error.to_string()),
        }
    }
}
