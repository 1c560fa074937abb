//! What tonic says by itself, in our words.
//!
//! tonic answers INTERNAL to a request that it cannot decode, and OUT_OF_RANGE to one that is too large. Both are
//! the caller's doing. And an INTERNAL that carries no reason of ours was never meant for a caller: its text
//! goes to the log.
use http::HeaderMap;
use tonic::{Code, Status};
use weft_core::{Reason, internal_status};

/// Beginnings of tonic's messages about a request that it cannot read.
const UNREADABLE: [&str; 5] = [
    "failed to decode Protobuf message",
    "Unexpected EOF decoding stream",
    "protocol error: received message",
    "Missing request message",
    "Error decompressing: ",
];
/// … and about one that is too large.
const TOO_LARGE: [&str; 2] = ["Error, decoded message length too large", "Error decompressing: size limit"];

/// The code of an answer's headers or trailers, which are put into our words if need be. None: they do not
/// end the call.
pub(super) fn end_of(headers: &mut HeaderMap) -> Option<Code> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    let suspicious = matches!(code, Code::Internal | Code::Unknown | Code::OutOfRange | Code::ResourceExhausted);
    if !suspicious || headers.contains_key("grpc-status-details-bin") {
        return Some(code);
    }
    let told = Status::from_header_map(headers)?;
    let Some(status) = in_our_words(&told) else { return Some(code) };
    let rewritten = status.add_header(headers);
    Some(if rewritten.is_ok() { status.code() } else { code })
}

fn in_our_words(told: &Status) -> Option<Status> {
    let message = told.message();
    let begins = |with: &[&str]| with.iter().any(|beginning| message.starts_with(beginning));
    if begins(&TOO_LARGE) {
        return Some(Reason::PayloadTooLarge.status("the message is too large, send less at once"));
    }
    if begins(&UNREADABLE) {
        return Some(Reason::InvalidArgument.status(format!("the message cannot be read: {message}")));
    }
    if matches!(told.code(), Code::Internal | Code::Unknown) {
        tracing::error!(code = ?told.code(), error = message, "internal error");
        return Some(internal_status());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: &Status) -> Status {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let code = end_of(&mut headers).unwrap();
        let told = Status::from_header_map(&headers).unwrap();
        assert_eq!(code, told.code());
        told
    }

    #[test]
    fn an_unreadable_request_is_the_callers_mistake() {
        let told = after(&Status::internal("failed to decode Protobuf message: invalid wire type"));
        assert_eq!(Reason::of(&told), Some(Reason::InvalidArgument));
        assert!(told.message().ends_with("invalid wire type"));
    }

    #[test]
    fn a_request_that_is_too_large_is_told_so() {
        let told = after(&Status::out_of_range(
            "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
        ));
        assert_eq!(Reason::of(&told), Some(Reason::PayloadTooLarge));
        let told = after(&Status::resource_exhausted(
            "Error decompressing: size limit, of 4 bytes, exceeded while decompressing message",
        ));
        assert_eq!(Reason::of(&told), Some(Reason::PayloadTooLarge));
    }

    #[test]
    fn what_nobody_foresaw_leaves_as_a_fixed_sentence() {
        for told in [Status::internal("table users is gone"), Status::unknown("password hunter2")] {
            let told = after(&told);
            assert_eq!(Reason::of(&told), Some(Reason::Internal));
            assert_eq!(told.message(), "something went wrong on our side");
        }
    }

    #[test]
    fn an_error_with_a_reason_is_left_alone() {
        let told = after(&Reason::RateLimited.status("wait a minute"));
        assert_eq!((Reason::of(&told), told.message()), (Some(Reason::RateLimited), "wait a minute"));
        assert_eq!(after(&Status::not_found("gone")).message(), "gone");
        assert_eq!(after(&Status::out_of_range("page 7 of 6")).code(), Code::OutOfRange);
    }

    #[test]
    fn headers_that_do_not_end_the_call_are_no_status() {
        assert_eq!(end_of(&mut HeaderMap::new()), None);
    }
}
