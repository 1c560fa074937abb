//! Who an event is from: `Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>…]`, HMAC-SHA256 of `t.body`.
//! <https://docs.stripe.com/webhooks#verify-manually>
use hmac::{Hmac, KeyInit as _, Mac};
use sha2::Sha256;

/// The metadata that carries it.
pub const HEADER: &str = "stripe-signature";
/// How old an event's signature may be, and how far ahead a sender's clock.
pub const TOLERANCE_S: i64 = 300;
/// Most signatures of one header that are tried; there are two while a secret is rolled.
const MAX_SIGNATURES: usize = 16;
/// Longest header.
const MAX_HEADER: usize = 4096;

/// A header that can be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    timestamp: String,
    at: i64,
    signatures: Vec<Vec<u8>>,
}

impl Header {
    /// Reads it. None: it is none, or says something twice.
    pub fn parse(text: &str) -> Option<Header> {
        if text.len() > MAX_HEADER {
            return None;
        }
        let (mut timestamp, mut signatures) = (None, Vec::new());
        for part in text.split(',') {
            match part.trim().split_once('=')? {
                ("t", value) if timestamp.is_none() => timestamp = Some(value),
                ("t", _) => return None,
                ("v1", value) if signatures.len() < MAX_SIGNATURES => signatures.push(unhex(value)?),
                ("v1", _) => return None,
                _ => {}
            }
        }
        let timestamp = timestamp.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let at = timestamp.parse().ok()?;
        (!signatures.is_empty()).then(|| Header { timestamp: timestamp.to_owned(), at, signatures })
    }

    /// Whether it was made within [`TOLERANCE_S`] of `now_ms`.
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        self.at.abs_diff(now_ms.div_euclid(1000)) <= TOLERANCE_S.unsigned_abs()
    }

    /// Whether one of its signatures was made with `secret` over exactly `body`; takes the same time wherever they
    /// differ.
    pub fn is_from(&self, secret: &str, body: &[u8]) -> bool {
        let mut ours = false;
        for signature in &self.signatures {
            ours |= mac(secret, &self.timestamp, body).is_some_and(|mac| mac.verify_slice(signature).is_ok());
        }
        ours
    }
}

/// The header for a body, as Stripe makes it.
pub fn sign(secret: &str, body: &[u8], at_s: i64) -> String {
    let timestamp = at_s.to_string();
    let bytes = mac(secret, &timestamp, body).map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={timestamp},v1={hex}")
}

fn mac(secret: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes a key of any length, so there always is one.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"{\"id\":\"evt_1\"}";

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        let header = Header::parse(&sign("whsec_a", BODY, 1000)).unwrap();
        assert!(header.is_from("whsec_a", BODY));
        assert!(!header.is_from("whsec_b", BODY));
        assert!(!header.is_from("whsec_a", b"{\"id\":\"evt_2\"}"));
        let later = Header::parse(&sign("whsec_a", BODY, 1000).replace("t=1000", "t=1001")).unwrap();
        assert!(!later.is_from("whsec_a", BODY));
    }

    /// The value was computed by another implementation of HMAC-SHA256.
    #[test]
    fn the_signature_is_an_hmac_of_time_and_body() {
        let expected = "t=1492774577,v1=53140ab8fa70c511cc40d5c9198af7dde7bbaee877038c056d8250c3bd3b2e11";
        assert_eq!(sign("whsec_test_secret", b"{}", 1_492_774_577), expected);
    }

    #[test]
    fn any_of_several_signatures_will_do() {
        let right = sign("new", BODY, 7);
        let hex = right.split_once("v1=").unwrap().1;
        let wrong = "00".repeat(32);
        let header = Header::parse(&format!("t=7, v1={wrong},v0={wrong},v1={hex}")).unwrap();
        assert!(header.is_from("new", BODY));
        assert!(!header.is_from("old", BODY));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes() {
        let header = Header::parse(&sign("a", BODY, 10_000)).unwrap();
        for (now_s, fresh) in [(9_699, false), (9_700, true), (10_000, true), (10_300, true), (10_301, false)] {
            assert_eq!(header.is_fresh(now_s * 1000), fresh, "{now_s}");
        }
    }

    #[test]
    fn a_header_that_is_none_is_not_read() {
        let signature = "ab".repeat(32);
        for bad in [
            String::new(),
            "t=1".into(),
            format!("v1={signature}"),
            format!("t=,v1={signature}"),
            format!("t=-1,v1={signature}"),
            format!("t=+1,v1={signature}"),
            format!("t=1,t=2,v1={signature}"),
            format!("t=99999999999999999999,v1={signature}"),
            "t=1,v1=xy".into(),
            "t=1,v1=abc".into(),
            "t=1,v1=éé".into(),
            format!("t=1,{}", vec![format!("v1={signature}"); 17].join(",")),
            "t=1;v1=ab".into(),
            "a".repeat(5000),
        ] {
            assert_eq!(Header::parse(&bad), None, "{bad:?}");
        }
    }
}
