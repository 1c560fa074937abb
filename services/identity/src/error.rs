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
    /// Start: who mail is from cannot be read.
    #[error("WEFT_MAIL_FROM is no sender, write Name <address>")]
    MailFrom(#[source] lettre::address::AddressError),
    /// Start: where mail goes cannot be read. Without the cause, which may quote the password.
    #[error("SMTP_URL is not valid, write smtp://user:password@host:port?tls=required or smtps://…")]
    SmtpUrl,
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
    /// The present password is wrong.
    #[error("the old password is wrong")]
    WrongPassword,
    /// Somebody else changed it meanwhile.
    #[error("the password was changed meanwhile, sign in again")]
    PasswordChanged,
    /// The token of a link to a new password is unknown, too old or used.
    #[error("the link is not valid any more, ask for a new one")]
    InvalidResetToken,
    /// The account is suspended; told only to who has a token or the password of it.
    #[error("this account is suspended, ask the support")]
    AccountSuspended,
    /// A field breaks its rule; the text says which one and what to do.
    #[error("{0}")]
    InvalidField(&'static str),
    /// A role that nobody can have.
    #[error("there is no role {0:?}, choose user, reviewer, support or admin")]
    UnknownRole(String),
    /// Everybody is a user.
    #[error("everybody has the role user, it can be neither given nor taken")]
    UserRole,
    /// There is none, or it is of another product.
    #[error("there is no such account")]
    NoAccount,
    /// At the command line: nobody has this address.
    #[error("nobody has the address {email} in {product}, register it first")]
    NoSuchEmail {
        /// As it was typed.
        email: String,
        /// Slug of the product.
        product: String,
    },
    /// There is none, it is somebody else's, or it is over.
    #[error("there is no such session")]
    NoSession,
    /// An administrator would lock themselves out.
    #[error("nobody takes their own role admin or suspends themselves, ask another administrator")]
    OwnAccount,
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
            | Error::InvalidField(_)
            | Error::InvalidResetToken
            | Error::UnknownRole(_)
            | Error::UserRole
            | Error::TooManyTokenIds => Reason::InvalidArgument,
            Error::UnknownProduct(_) | Error::NoAccount | Error::NoSuchEmail { .. } | Error::NoSession => {
                Reason::NotFound
            }
            Error::AccountSuspended => Reason::AccountSuspended,
            Error::OwnAccount => Reason::PermissionDenied,
            Error::PasswordsNotEnabled => Reason::IdentityProviderNotEnabled,
            Error::EmailTaken => Reason::EmailTaken,
            Error::InvalidCredentials | Error::WrongPassword => Reason::InvalidCredentials,
            Error::Busy | Error::TooManyFailures(_) => Reason::RateLimited,
            Error::InvalidAccessToken | Error::InvalidRefreshToken => Reason::Unauthenticated,
            Error::RefreshReused => Reason::RefreshReused,
            Error::Raced | Error::SuccessorGone | Error::PasswordChanged => Reason::Aborted,
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
