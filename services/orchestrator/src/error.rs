//! What can go wrong, and how it is told.
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_cache::CacheError;
use weft_core::Reason;
use weft_db::DbError;
use weft_db::keyring::KeyringError;
use weft_runtime::internal;
use weft_runtime::outbound::OutboundError;

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
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Values cannot be sealed or opened.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The same, told to several callers at once.
    #[error("the keys of an account cannot be read")]
    Keys(#[source] Arc<Error>),
    /// The database is away, and with it what is known of users' own keys and conversations.
    #[error("what is kept for you cannot be looked up right now; try again")]
    NoDatabase,
    /// The product keeps nothing of what its users say.
    #[error("this product keeps no conversations; leave session_id out and send what was said along")]
    ZeroPlaintext,
    /// A conversation that lives in the cache cannot be read or written.
    #[error("this conversation cannot be looked up right now; try again")]
    Conversation(#[source] CacheError),
    /// Others changed the same all the time.
    #[error("this is being changed by too many at once; try again")]
    Busy,
    /// Redis cannot be used.
    #[error("the cache cannot be used")]
    Cache(#[source] CacheError),
    /// There is no such thing, or it is not the caller's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A number that the plan or the server limits is reached.
    #[error("{0}")]
    Quota(&'static str),
    /// Too often.
    #[error("that was too often; come back later")]
    TooOften(Duration),
    /// A client for other servers could not be built.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// Serving failed.
    #[error("the orchestrator stopped serving")]
    Runtime(#[from] weft_runtime::RuntimeError),
    /// A field of the request breaks its rule.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// A parameter of a completion breaks its rule.
    #[error("{problem}")]
    Parameter {
        /// Its name, with its place.
        name: Cow<'static, str>,
        /// What is wrong with it, and what to do.
        problem: Cow<'static, str>,
    },
    /// A parameter of a completion is known, and nothing that is done here.
    #[error("{name} is not supported {place}; leave it out")]
    Unsupported {
        /// Its name, with its place.
        name: Cow<'static, str>,
        /// Where it is not: here at all, or by the model.
        place: &'static str,
    },
    /// The provider takes no such request.
    #[error("the model's provider does not accept this request; check its parameters or try another model")]
    NotAccepted,
    /// A part of the request is over its limit.
    #[error("{0}")]
    TooLarge(Cow<'static, str>),
    /// The plan does not reach as far as the agent that was asked for.
    #[error("your plan does not include this agent; choose another one or upgrade")]
    AgentNotInPlan,
    /// The product shows nothing that was not judged first, and there is no judge yet.
    #[error("answers of this product have to be moderated, which this server cannot do yet")]
    NoModeration,
    /// The plan does not include the model that was asked for.
    #[error("your plan does not include this model; leave model empty or upgrade")]
    ModelNotInPlan,
    /// Billing did not say whether the account can pay.
    #[error("what this costs cannot be checked right now; try again")]
    NoBilling,
    /// What a reader wants of a streamed answer is no longer kept, or who made it is gone.
    #[error("this answer is no longer there to be read on; ask again")]
    RunGone,
    /// Whether another replica has a streamed answer, or what comes of it, is not known.
    #[error("this answer cannot be read on right now; try again")]
    NoRedis(#[source] CacheError),
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// Something could not be sealed.
    #[error("an answer cannot be sealed")]
    Sealing,
    /// The work ended without an end.
    #[error("the answer was lost")]
    Lost,
    /// None of the product's agents exists in code yet.
    #[error("this product has no agent that can answer yet")]
    NoAgent,
    /// The model made no plan that can be run, once more after it had been told.
    #[error("the model could not make a plan of this; try again or say it differently")]
    Plan,
    /// A manifest names a prompt that nobody has.
    #[error(
        "agent {agent} of product {product} has the prompt {prompt}, which is unknown; put {prompt}.txt into WEFT_PROMPTS_DIR"
    )]
    UnknownPrompt {
        /// The product's slug.
        product: String,
        /// The agent.
        agent: String,
        /// Id of its prompt.
        prompt: String,
    },
    /// An operator's prompts cannot be used.
    #[error("WEFT_PROMPTS_DIR: {path}: {problem}")]
    Prompts {
        /// The folder or file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
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
            Error::Config { .. }
            | Error::Client(_)
            | Error::Fingerprints(_)
            | Error::Runtime(_)
            | Error::Lost
            | Error::Random(_)
            | Error::Sealing
            | Error::UnknownPrompt { .. }
            | Error::Prompts { .. }
            | Error::Cache(_)
            | Error::Outbound(_) => Reason::Internal,
            Error::Database(error) | Error::Keyring(KeyringError::Database(error)) => database(error),
            Error::Keyring(_) => Reason::Internal,
            Error::Keys(error) => error.reason(),
            Error::NoDatabase => Reason::Unavailable,
            Error::ZeroPlaintext => Reason::ZeroPlaintext,
            Error::Conversation(error) => error.reason(),
            Error::Busy => Reason::Aborted,
            Error::NotFound(_) => Reason::NotFound,
            Error::RunGone => Reason::RunGone,
            Error::Quota(_) => Reason::QuotaExceeded,
            Error::TooOften(_) => Reason::RateLimited,
            Error::Invalid(_) | Error::Parameter { .. } | Error::NotAccepted => Reason::InvalidArgument,
            Error::Unsupported { .. } => Reason::UnsupportedParameter,
            Error::TooLarge(_) => Reason::PayloadTooLarge,
            Error::AgentNotInPlan | Error::ModelNotInPlan => Reason::FeatureNotInPlan,
            Error::NoAgent | Error::NoModeration => Reason::Unimplemented,
            Error::NoEntitlements | Error::NoBilling | Error::NoRedis(_) => Reason::Unavailable,
            Error::Refused(status) => Reason::of(status).unwrap_or(Reason::Unavailable),
            Error::Model(error) => error.reason(),
            Error::Tools | Error::Plan | Error::Silent => Reason::ProviderStreamInterrupted,
            Error::TookTooLong => Reason::DeadlineExceeded,
        }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.reason().code()
    }
}

fn database(error: &DbError) -> Reason {
    match error {
        error if error.is_unavailable() => Reason::Unavailable,
        error if error.is_conflict() => Reason::Aborted,
        error if error.is_invalid_text() => Reason::InvalidArgument,
        _ => Reason::Internal,
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
            Error::Parameter { ref name, .. } | Error::Unsupported { ref name, .. } => {
                let (reason, message) = (error.reason(), error.to_string());
                reason.status_with(&message, ErrorDetails::with_bad_request_violation(&**name, &message))
            }
            Error::TooOften(after) => {
                let details = ErrorDetails::with_retry_info(Some(after));
                Reason::RateLimited.status_with(Error::TooOften(after).to_string(), details)
            }
            error if error.reason() == Reason::Internal => internal(error),
            error => error.reason().status(error.to_string()),
        }
    }
}
