//! What can go wrong here, and what of it a caller learns.
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_core::Reason;
use weft_db::DbError;
use weft_db::keyring::KeyringError;
use weft_runtime::outbound::OutboundError;
use weft_runtime::{RuntimeError, internal};

use crate::github::GitHubError;

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
    /// At the command line: a file cannot be read.
    #[error("the file cannot be read: {0}")]
    ImportFile(#[source] std::io::Error),
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
    /// No, several or another credential than the product allows.
    #[error("send exactly one credential, of a kind that this product signs in by")]
    ProviderNotEnabled,
    /// The product allows the kind, but nobody has said which issuer it is.
    #[error("this server has no such issuer yet, its operator has to set it up")]
    IssuerNotSetUp,
    /// Whatever is wrong with a token of an issuer.
    #[error("the token is not valid")]
    InvalidToken,
    /// The product, or the domain of an address, has no provider to sign in at.
    #[error("there is no identity provider for this, sign in otherwise")]
    NoProvider,
    /// Whatever is wrong with what a provider sent somebody back with.
    #[error("the login did not succeed, begin again")]
    LoginRefused,
    /// The organisation has no single sign-on.
    #[error("the organisation has no single sign-on")]
    NoConnection,
    /// The organisation does not name this domain.
    #[error("the organisation does not name this domain")]
    NoDomain,
    /// Another organisation has proven this domain.
    #[error("a domain belongs to another organisation, ask the support")]
    DomainTaken,
    /// There is no secret to keep.
    #[error("client_secret is required for another issuer or client_id")]
    NoClientSecret,
    /// The owner's plan does not include single sign-on.
    #[error("the owner's plan does not include single sign-on")]
    SsoNotInPlan,
    /// A stored secret cannot be sealed or opened.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The issuer's keys were never seen, or too long ago, and cannot be fetched.
    #[error("the token cannot be checked right now, try again")]
    IssuerUnavailable,
    /// Start: the client for requests to the outside.
    #[error(transparent)]
    Outbound(OutboundError),
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
    /// The token of a link in a mail is unknown, too old or used.
    #[error("the link is not valid any more, ask for a new one")]
    InvalidLink,
    /// The token of the link for the first administrator is unknown, too old, used, or of a product that has one.
    #[error("the link is not valid any more, start weft up again for a new one")]
    InvalidSetupToken,
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
    /// At the command line: no account, in this product if one is named, has this address or id.
    #[error("there is no account {0}, register it first, or name its product with --product")]
    NoSuchAccount(String),
    /// At the command line: accounts of these products have it.
    #[error("there are such accounts in {0}, name one of these products with --product")]
    SeveralProducts(String),
    /// There is none, it is somebody else's, or it is over.
    #[error("there is no such session")]
    NoSession,
    /// There is none, it is somebody else's, or it was revoked.
    #[error("there is no such api key")]
    NoApiKey,
    /// The account has as many keys as one may.
    #[error("an account has at most 50 api keys, revoke one first")]
    TooManyApiKeys,
    /// Others would lose their organisation.
    #[error("you own an organisation with other members, remove them or delete it first")]
    OwnsOrganisation,
    /// An administrator would lock themselves out.
    #[error("nobody takes their own role admin or suspends themselves, ask another administrator")]
    OwnAccount,
    /// There is none, or the caller is no member of it.
    #[error("there is no such organisation")]
    NoOrganisation,
    /// The organisation has no such member.
    #[error("there is no such member")]
    NoMember,
    /// There is none, or it is not open any more.
    #[error("there is no such invitation")]
    NoInvitation,
    /// The caller's role in the organisation does not allow it; the text says whose would.
    #[error("{0}")]
    NotPermitted(&'static str),
    /// The account owns as many organisations as one may.
    #[error("an account owns at most 10 organisations, delete one first")]
    TooManyOrganisations,
    /// The organisation has as many open invitations as it may.
    #[error("an organisation has at most 50 open invitations, withdraw one first")]
    TooManyInvitations,
    /// The organisation has invited this address too often; after so long it may again.
    #[error("this address was invited 3 times within a day, try again later")]
    InvitedTooOften(Duration),
    /// Somebody with this address is in the organisation.
    #[error("somebody with this email is a member already")]
    MemberExists,
    /// The token of an invitation is unknown, withdrawn, too old or for somebody else.
    #[error("the invitation is not valid, ask for a new one")]
    InvalidInvitation,
    /// The owner's subscription has no seat left.
    #[error("the owner's plan has no seat left, ask the owner for more seats")]
    NoSeat,
    /// The account sits on a seat of another owner's.
    #[error("you have a seat in an organisation of somebody else, leave that one first")]
    SeatedElsewhere,
    /// The owner sits on a seat of another owner's.
    #[error("the owner has a seat in an organisation of somebody else and has to leave that one first")]
    OwnerSeatedElsewhere,
    /// The seat is just being released, or the time for joining was over.
    #[error("the seat is being changed by somebody else, try again")]
    SeatBusy,
    /// Billing cannot be asked.
    #[error("the plan cannot be checked right now, try again")]
    BillingUnavailable,
    /// A service that keeps data of the account cannot be asked for it.
    #[error("not every part can be put together right now, try again")]
    ExportUnavailable,
    /// The account has no address to prove.
    #[error("this account has no email")]
    NoEmail,
    /// As many mails as an account is sent; after so long it may ask for one more.
    #[error("this account was sent 3 mails within an hour, try again later")]
    TooManyProofs(Duration),
    /// The operator has no app at GitHub.
    #[error("this server is not known to GitHub, set GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET")]
    GitHubNotConfigured,
    /// The state is unknown, used, too old or another account's, or GitHub does not take the code.
    #[error("the connection to GitHub cannot be finished, begin again")]
    InvalidConnect,
    /// The account is not connected to GitHub.
    #[error("this account is not connected to GitHub")]
    NoGitHub,
    /// GitHub does not renew the token any more.
    #[error("GitHub does not take the connection any more, connect again")]
    GitHubRefused,
    /// GitHub does not answer, or not us.
    #[error("GitHub cannot be asked right now, try again")]
    GitHubAway,
}

impl From<GitHubError> for Error {
    fn from(error: GitHubError) -> Error {
        match error {
            GitHubError::Refused => Error::GitHubRefused,
            GitHubError::Away => Error::GitHubAway,
            GitHubError::WrongApp => {
                tracing::error!(%error, "nobody can connect to GitHub");
                Error::GitHubAway
            }
        }
    }
}

impl Error {
    /// What clients match on.
    pub fn reason(&self) -> Reason {
        match self {
            Error::Database(error) if error.is_unavailable() => Reason::Unavailable,
            Error::Database(error) if error.is_conflict() => Reason::Aborted,
            Error::Database(error) if error.is_invalid_text() => Reason::InvalidArgument,
            Error::Keyring(KeyringError::Database(error)) if error.is_unavailable() => Reason::Unavailable,
            Error::NoProvider => Reason::IdentityProviderNotEnabled,
            Error::LoginRefused => Reason::Unauthenticated,
            Error::NoConnection | Error::NoDomain => Reason::NotFound,
            Error::DomainTaken => Reason::AlreadyExists,
            Error::NoClientSecret => Reason::InvalidArgument,
            Error::GitHubNotConfigured => Reason::PreconditionFailed,
            Error::InvalidConnect => Reason::InvalidArgument,
            Error::NoGitHub => Reason::NotFound,
            Error::GitHubRefused => Reason::FailedPrecondition,
            Error::GitHubAway => Reason::Unavailable,
            Error::SsoNotInPlan => Reason::FeatureNotInPlan,
            Error::InvalidEmail(_)
            | Error::InvalidPassword
            | Error::Missing(_)
            | Error::InvalidPageToken
            | Error::InvalidField(_)
            | Error::InvalidLink
            | Error::InvalidInvitation
            | Error::UnknownRole(_)
            | Error::UserRole
            | Error::TooManyTokenIds => Reason::InvalidArgument,
            Error::UnknownProduct(_)
            | Error::NoAccount
            | Error::NoSuchAccount(_)
            | Error::SeveralProducts(_)
            | Error::NoSession
            | Error::NoApiKey
            | Error::NoOrganisation
            | Error::NoMember
            | Error::NoInvitation => Reason::NotFound,
            Error::TooManyOrganisations | Error::TooManyInvitations | Error::TooManyApiKeys | Error::NoSeat => {
                Reason::QuotaExceeded
            }
            Error::MemberExists => Reason::AlreadyExists,
            Error::SeatedElsewhere | Error::OwnerSeatedElsewhere => Reason::FailedPrecondition,
            Error::NoEmail | Error::IssuerNotSetUp | Error::OwnsOrganisation => Reason::PreconditionFailed,
            Error::BillingUnavailable | Error::ExportUnavailable | Error::IssuerUnavailable => Reason::Unavailable,
            Error::AccountSuspended => Reason::AccountSuspended,
            Error::OwnAccount | Error::NotPermitted(_) => Reason::PermissionDenied,
            Error::PasswordsNotEnabled | Error::ProviderNotEnabled => Reason::IdentityProviderNotEnabled,
            Error::EmailTaken => Reason::EmailTaken,
            Error::InvalidCredentials | Error::WrongPassword => Reason::InvalidCredentials,
            Error::Busy | Error::TooManyFailures(_) | Error::InvitedTooOften(_) | Error::TooManyProofs(_) => {
                Reason::RateLimited
            }
            Error::InvalidAccessToken | Error::InvalidSetupToken | Error::InvalidRefreshToken | Error::InvalidToken => {
                Reason::Unauthenticated
            }
            Error::RefreshReused => Reason::RefreshReused,
            Error::Raced | Error::SeatBusy | Error::SuccessorGone | Error::PasswordChanged => Reason::Aborted,
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
                let after = match error {
                    Error::TooManyFailures(after) | Error::InvitedTooOften(after) | Error::TooManyProofs(after) => {
                        after
                    }
                    _ => RETRY_AFTER,
                };
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
