//! Why a call failed, and the one table that maps a reason to gRPC and HTTP.
//!
//! Every error that leaves the mesh is a `google.rpc.Status` with an `ErrorInfo { reason, domain }`. On JSON
//! the reason in lower case is the `code` that clients match on, so a name here is a promise.
use std::collections::HashMap;

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `ErrorInfo` of ours.
pub const DOMAIN: &str = "weft";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident, $http:literal;)*) => {
        /// Why a call failed. Stable: clients match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)*];

            /// The name in `ErrorInfo.reason`, UPPER_SNAKE.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// The gRPC code.
            pub fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }

            /// The HTTP status.
            pub fn http(self) -> u16 {
                match self { $(Reason::$variant => $http,)* }
            }

            /// The reason with this name.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name { $($name => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The request cannot be understood or breaks a rule of its fields.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, 400;
    /// What is asked for is known, and not supported here; `BadRequest` names the parameter.
    UnsupportedParameter = "UNSUPPORTED_PARAMETER", InvalidArgument, 400;
    /// The product does not allow this way to sign in, or the server has no such issuer.
    IdentityProviderNotEnabled = "IDENTITY_PROVIDER_NOT_ENABLED", InvalidArgument, 400;
    /// A checksum does not match the bytes.
    ChecksumMismatch = "CHECKSUM_MISMATCH", InvalidArgument, 400;
    /// No token, or one that is not valid.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated, 401;
    /// Unknown address or wrong password.
    InvalidCredentials = "INVALID_CREDENTIALS", Unauthenticated, 401;
    /// A refresh token was used a second time; its session is over.
    RefreshReused = "REFRESH_REUSED", Unauthenticated, 401;
    /// The account does not hold enough credits.
    InsufficientCredits = "INSUFFICIENT_CREDITS", ResourceExhausted, 402;
    /// The API key has spent what it may.
    KeyBudgetExceeded = "KEY_BUDGET_EXCEEDED", ResourceExhausted, 402;
    /// Known, but not allowed to do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied, 403;
    /// The API key may not call this: none of its scopes names it.
    ScopeMissing = "SCOPE_MISSING", PermissionDenied, 403;
    /// The token belongs to another product than the request.
    ProductMismatch = "PRODUCT_MISMATCH", PermissionDenied, 403;
    /// The plan does not include this.
    FeatureNotInPlan = "FEATURE_NOT_IN_PLAN", PermissionDenied, 403;
    /// A quota of the plan is used up.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted, 403;
    /// The day's tokens are used up.
    DailyTokensExceeded = "DAILY_TOKENS_EXCEEDED", ResourceExhausted, 403;
    /// The account is suspended.
    AccountSuspended = "ACCOUNT_SUSPENDED", PermissionDenied, 403;
    /// There is no such thing, or it is not the caller's.
    NotFound = "NOT_FOUND", NotFound, 404;
    /// The path exists, but not with this HTTP method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", Unimplemented, 405;
    /// A thing with this name exists already.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists, 409;
    /// There is an account with this address.
    EmailTaken = "EMAIL_TAKEN", AlreadyExists, 409;
    /// The idempotency key was used with another request.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", AlreadyExists, 409;
    /// Somebody else changed it, or the same request is still running.
    Aborted = "ABORTED", Aborted, 409;
    /// The thing is not in a state that allows this.
    FailedPrecondition = "FAILED_PRECONDITION", FailedPrecondition, 400;
    /// The product promises that nothing of what users say is kept, and this would be.
    ZeroPlaintext = "ZERO_PLAINTEXT", FailedPrecondition, 400;
    /// A condition of the request (`If-Match`) does not hold.
    PreconditionFailed = "PRECONDITION_FAILED", FailedPrecondition, 412;
    /// The operator has not set up payments.
    PaymentsNotConfigured = "PAYMENTS_NOT_CONFIGURED", FailedPrecondition, 400;
    /// The body, or a part of it, is over a limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", ResourceExhausted, 413;
    /// The body has a content type that the path does not take.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", InvalidArgument, 415;
    /// Too many requests; `RetryInfo` says when to come back.
    RateLimited = "RATE_LIMITED", ResourceExhausted, 429;
    /// What was begun is no longer kept, or who made it is gone; begin anew.
    RunGone = "RUN_GONE", OutOfRange, 410;
    /// The caller went away, or stopped it.
    Cancelled = "CANCELLED", Cancelled, 499;
    /// Something of ours is wrong; the request id finds it in the log.
    Internal = "INTERNAL", Internal, 500;
    /// Not there (yet).
    Unimplemented = "UNIMPLEMENTED", Unimplemented, 501;
    /// The model's provider broke off or answered nonsense.
    ProviderStreamInterrupted = "PROVIDER_STREAM_INTERRUPTED", Unavailable, 502;
    /// Something that is needed cannot be reached; try again.
    Unavailable = "UNAVAILABLE", Unavailable, 503;
    /// The time for the call is over.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded, 504;
}

impl Reason {
    /// A status that says why, for a person (`message`: lower case, no full stop, what to do) and for code.
    pub fn status(self, message: impl Into<String>) -> Status {
        self.status_with(message, ErrorDetails::new())
    }

    /// The same with more details; the `ErrorInfo` is added here.
    pub fn status_with(self, message: impl Into<String>, mut details: ErrorDetails) -> Status {
        details.set_error_info(self.as_str(), DOMAIN, HashMap::new());
        Status::with_error_details(self.code(), message, details)
    }

    /// The reason that a status carries, if it is one of ours.
    pub fn of(status: &Status) -> Option<Reason> {
        let info = status.get_details_error_info()?;
        (info.domain == DOMAIN).then(|| Reason::from_name(&info.reason)).flatten()
    }
}

/// The status of an error that is nobody's fault but ours. The caller hears a fixed sentence; the cause belongs in
/// the log, under the request id.
pub fn internal_status() -> Status {
    Reason::Internal.status("something went wrong on our side")
}

/// The HTTP status of a gRPC status: by its reason if it has one of ours, else the canonical one of its code.
pub fn http_status(status: &Status) -> StatusCode {
    let number = Reason::of(status).map_or_else(|| canonical(status.code()), Reason::http);
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The canonical mapping of google.rpc.Code.
fn canonical(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

/// The name of a gRPC code as google.rpc spells it, `RESOURCE_EXHAUSTED`.
pub fn status_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_finds_its_way_through_a_status() {
        for &reason in Reason::ALL {
            let status = reason.status("told");
            assert_eq!(Reason::of(&status), Some(reason));
            assert_eq!(http_status(&status).as_u16(), reason.http());
        }
    }

    #[test]
    fn a_reason_of_somebody_else_does_not_choose_our_http_status() {
        let mut details = ErrorDetails::new();
        details.set_error_info("INSUFFICIENT_CREDITS", "elsewhere.example", HashMap::new());
        let status = Status::with_error_details(Code::ResourceExhausted, "theirs", details);
        assert_eq!(http_status(&status).as_u16(), 429);
    }

    #[test]
    fn a_status_without_a_reason_maps_by_its_code() {
        assert_eq!(http_status(&Status::not_found("gone")).as_u16(), 404);
        assert_eq!(http_status(&Status::unknown("?")).as_u16(), 500);
    }
}
