//! What can go wrong here, and what of it a caller learns.
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_core::Reason;
use weft_db::DbError;
use weft_runtime::{RuntimeError, internal};

/// When a caller who was shed may try again: about the time in which the queue has moved on.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a call failed, or why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Start: the signing keys in the database were sealed under another secret.
    #[error(
        "the identity secret does not open the signing keys in this database, set WEFT_IDENTITY_SECRET to the one they were made with"
    )]
    WrongSecret,
    /// Start: the signing key that was just stored is gone.
    #[error("the database has no signing key")]
    NoKey,
    /// Start or end: the server.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random(#[source] getrandom::Error),
    /// The same, for a signing key.
    #[error(transparent)]
    RandomKey(#[from] weft_auth::RandomnessError),
    /// A password could not be hashed.
    #[error("the password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    /// A hash was not finished.
    #[error("the password hash was not finished")]
    HashLost,
    /// Start: a thread for hashes could not be had.
    #[error("a thread for password hashes could not be started")]
    HashThread(#[source] std::io::Error),
    /// A token pair could not be sealed, or a sealed one not be opened.
    #[error("a token pair could not be sealed or opened")]
    Seal,
    /// The session was not in the state that was read under its lock.
    #[error("the session changed under its lock")]
    Raced,
    /// The address is not one.
    #[error("{0}")]
    InvalidEmail(&'static str),
    /// The password is too short or too long.
    #[error("password must have 8 to 1024 bytes")]
    InvalidPassword,
    /// A field is missing.
    #[error("{0} is required")]
    Missing(&'static str),
    /// A page token that was never given out.
    #[error("page_token is not known, begin without one")]
    InvalidPageToken,
    /// There is no such product.
    #[error("there is no product {0:?}, check x-weft-product")]
    UnknownProduct(String),
    /// The product's people sign in otherwise.
    #[error("this product does not sign in by password")]
    PasswordsNotEnabled,
    /// The product has an account with this address.
    #[error("there is an account with this email, sign in instead")]
    EmailTaken,
    /// Unknown address or wrong password; which of them is not said.
    #[error("the email or the password is wrong")]
    InvalidCredentials,
    /// More logins wait than the server hashes.
    #[error("too many logins are waiting, try again in a moment")]
    Busy,
    /// Too many logins of this address failed, whoever tries; after so long one more may be tried.
    #[error("too many logins of this email failed, try again later")]
    TooManyFailures(Duration),
    /// A report of too many uses.
    #[error("token_ids must be at most 1000")]
    TooManyTokenIds,
    /// The access token's session is over.
    #[error("the access token is not valid")]
    InvalidAccessToken,
    /// Unknown, expired or of an ended session.
    #[error("the refresh token is not valid, sign in again")]
    InvalidRefreshToken,
    /// The refresh token was exchanged a moment ago, and its successor used since.
    #[error("the refresh token was exchanged already, use the pair that it was exchanged for")]
    SuccessorGone,
    /// The refresh token was used twice.
    #[error("the refresh token was used before, its session is over, sign in again")]
    RefreshReused,
}

impl Error {
    /// What clients match on.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Database(error) if error.is_unavailable() => Reason::Unavailable,
            Error::Database(error) if error.is_conflict() => Reason::Aborted,
            Error::Database(error) if error.is_invalid_text() => Reason::InvalidArgument,
            Error::InvalidEmail(_)
            | Error::InvalidPassword
            | Error::Missing(_)
            | Error::InvalidPageToken
            | Error::TooManyTokenIds => Reason::InvalidArgument,
            Error::UnknownProduct(_) => Reason::NotFound,
            Error::PasswordsNotEnabled => Reason::IdentityProviderNotEnabled,
            Error::EmailTaken => Reason::EmailTaken,
            Error::InvalidCredentials => Reason::InvalidCredentials,
            Error::Busy | Error::TooManyFailures(_) => Reason::RateLimited,
            Error::InvalidAccessToken | Error::InvalidRefreshToken => Reason::Unauthenticated,
            Error::RefreshReused => Reason::RefreshReused,
            Error::Raced | Error::SuccessorGone => Reason::Aborted,
            _ => Reason::Internal,
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
                let after = if let Error::TooManyFailures(after) = error { after } else { RETRY_AFTER };
                Reason::RateLimited.status_with(error.to_string(), ErrorDetails::with_retry_info(Some(after)))
            }
            reason => reason.status(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn who_is_shed_learns_when_to_come_back() {
        let status = Status::from(Error::Busy);
        assert_eq!(Reason::of(&status), Some(Reason::RateLimited));
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    }

    #[test]
    fn what_is_wrong_inside_is_not_told() {
        let status = Status::from(Error::Seal);
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("seal"), "{}", status.message());
    }
}
