//! What can go wrong here, and what of it a caller learns.
use tonic::{Code, Status};
use weft_core::Reason;
use weft_db::DbError;
use weft_runtime::{RuntimeError, internal};

/// Why a call failed, or why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Start or end: the server.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
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
            Error::NoUser | Error::UnknownFeature(_) => Reason::InvalidArgument,
            Error::UnknownProduct(_) => Reason::NotFound,
            Error::FeatureNotInPlan { .. } => Reason::FeatureNotInPlan,
            Error::Runtime(_) | Error::Database(_) | Error::NoPlan { .. } => Reason::Internal,
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
            reason => reason.status(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_inside_is_not_told() {
        let status = Status::from(Error::NoPlan { product: "adiuva".into(), plan: "free".into() });
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("adiuva"), "{}", status.message());
    }
}
