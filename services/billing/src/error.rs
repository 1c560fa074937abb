//! What can go wrong here, and what of it a caller learns.
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_core::Reason;
use weft_db::DbError;
use weft_runtime::{RuntimeError, internal};

/// Why a call failed, or why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Start or end: the server.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Start: a setting cannot be used; its name.
    #[error("{0} cannot be used, see weft config check")]
    Setting(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// There is no such product.
    #[error("there is no product {0:?}, check product")]
    UnknownProduct(String),
    /// The call names no account.
    #[error("user_id is required")]
    NoUser,
    /// The product declares no such feature.
    #[error("the product has no feature {0:?}, check feature")]
    UnknownFeature(String),
    /// The account's plan does not have the feature.
    #[error("the plan {plan} does not include {feature}, choose one that does")]
    FeatureNotInPlan {
        /// Slug of the account's plan.
        plan: String,
        /// Name of the feature.
        feature: String,
    },
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing, or it is not the caller's; what kind of thing it is.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The thing is not in a state that allows this.
    #[error("{0}")]
    NotNow(String),
    /// The wallet does not hold enough; in micro-credits.
    #[error("this costs {} credits and {} are there, buy credits or wait for the next daily ones", credits(*needed), credits(*available))]
    InsufficientCredits {
        /// What was asked for.
        needed: i64,
        /// What could be spent.
        available: i64,
    },
    /// The API key may not spend so much more; in micro-credits.
    #[error("this costs {} credits and the api key may spend {} more, raise its budget or use another key", credits(*needed), credits(*left))]
    KeyBudgetExceeded {
        /// What was asked for.
        needed: i64,
        /// What is left of its budget.
        left: i64,
    },
    /// Calls of the API key that run have set its budget aside.
    #[error("calls of this api key that run have set its budget aside, try again in a second")]
    KeyBudgetHeld,
    /// The key was used with another request.
    #[error("the idempotency key was used with another request, use a new one")]
    IdempotencyKeyReused,
    /// Too many operations wait; this one was not begun.
    #[error("billing has too much to do, repeat it with the same key")]
    Overloaded,
    /// The database went away while it was written.
    #[error("it is not known whether this has happened, repeat it with the same key")]
    Unsure,
    /// A wallet or a hold would become what it cannot be: a mistake of ours. Nothing was written.
    #[error("a wallet or a hold would become what it cannot be, nothing was written")]
    Unsound,
    /// Another call changed the same thing at the same time, more often than is tried again.
    #[error("the account is very busy, try again")]
    Busy,
    /// A limit of the plan is reached.
    #[error("the plan {plan} allows {limit} of {name}, choose a larger one or remove something")]
    QuotaExceeded {
        /// Slug of the plan.
        plan: String,
        /// The limit's number.
        limit: i64,
        /// The limit's name.
        name: String,
    },
    /// The day's tokens are used up.
    #[error("the {limit} tokens of the day are used up, they begin anew at 00:00 UTC")]
    DailyTokensExceeded {
        /// The limit's number.
        limit: i64,
    },
    /// No key of Stripe is configured.
    #[error("payments are not set up on this server, set STRIPE_SECRET_KEY")]
    PaymentsNotConfigured,
    /// Stripe cannot be reached, or has trouble of its own.
    #[error("the payment provider does not answer, try again")]
    PaymentsUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Stripe refuses; its words are for the operator.
    #[error("the payment provider refuses this")]
    PaymentsRefused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tables have nothing about a plan that an account is on.
    #[error("the tables have no values for plan {plan} of product {product}")]
    NoPlan {
        /// Slug of the product.
        product: String,
        /// Slug of the plan.
        plan: String,
    },
}

impl Error {
    /// What clients match on.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Database(error) if error.is_unavailable() => Reason::Unavailable,
            Error::Database(error) if error.is_conflict() => Reason::Aborted,
            Error::Database(error) if error.is_invalid_text() => Reason::InvalidArgument,
            Error::NoUser | Error::UnknownFeature(_) | Error::Invalid(_) => Reason::InvalidArgument,
            Error::UnknownProduct(_) | Error::NotFound(_) => Reason::NotFound,
            Error::NotNow(_) | Error::PaymentsRefused(_) => Reason::FailedPrecondition,
            Error::InsufficientCredits { .. } => Reason::InsufficientCredits,
            Error::KeyBudgetExceeded { .. } => Reason::KeyBudgetExceeded,
            Error::KeyBudgetHeld => Reason::RateLimited,
            Error::IdempotencyKeyReused => Reason::IdempotencyKeyReused,
            Error::Overloaded | Error::Unsure => Reason::Unavailable,
            Error::Busy => Reason::Aborted,
            Error::QuotaExceeded { .. } => Reason::QuotaExceeded,
            Error::DailyTokensExceeded { .. } => Reason::DailyTokensExceeded,
            Error::PaymentsNotConfigured => Reason::PaymentsNotConfigured,
            Error::PaymentsUnavailable(_) => Reason::Unavailable,
            Error::FeatureNotInPlan { .. } => Reason::FeatureNotInPlan,
            Error::Runtime(_) | Error::Setting(_) | Error::Database(_) | Error::Unsound | Error::NoPlan { .. } => {
                Reason::Internal
            }
        }
    }

    /// The gRPC code of [`Error::reason`].
    pub fn code(&self) -> Code {
        self.reason().code()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error.reason() {
            Reason::Internal => internal(error),
            Reason::RateLimited => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
                Reason::RateLimited.status_with(error.to_string(), details)
            }
            reason => reason.status(error.to_string()),
        }
    }
}

/// Micro-credits as people read them: credits with at most 6 places.
fn credits(micro: i64) -> String {
    let (whole, rest) = (micro.unsigned_abs() / 1_000_000, micro.unsigned_abs() % 1_000_000);
    let sign = if micro < 0 { "-" } else { "" };
    let places = format!("{rest:06}");
    match places.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        places => format!("{sign}{whole}.{places}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_written_with_the_places_they_have() {
        assert_eq!(credits(0), "0");
        assert_eq!(credits(2_039_950_000), "2039.95");
        assert_eq!(credits(-100_000), "-0.1");
    }

    #[test]
    fn what_is_wrong_inside_is_not_told() {
        let status = Status::from(Error::NoPlan { product: "adiuva".into(), plan: "free".into() });
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("adiuva"), "{}", status.message());
    }
}
