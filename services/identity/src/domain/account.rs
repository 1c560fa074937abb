//! Accounts and the e-mail addresses that name them.
use crate::domain::role::Roles;
use crate::error::Error;

/// Longest address in bytes (RFC 5321: a path of 256 with its angle brackets).
pub const EMAIL_MAX_BYTES: usize = 254;

/// Domains without a dot that are addresses all the same: machines talk to themselves with them.
const LOCAL_DOMAINS: [&str; 2] = ["localhost", "test"];

/// An address that looks like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// As its owner writes it.
    pub shown: String,
    /// In lower case: what makes two addresses the same.
    pub folded: String,
}

impl Email {
    /// Checks the shape only; whether mail arrives there is not known.
    ///
    /// Errors: [`Error::InvalidEmail`] with what to do.
    pub fn parse(text: &str) -> Result<Email, Error> {
        if text.len() > EMAIL_MAX_BYTES {
            return Err(Error::InvalidEmail("email must be at most 254 bytes"));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Error::InvalidEmail("email must not contain spaces or control characters"));
        }
        let Some((local, domain)) = text.split_once('@') else {
            return Err(Error::InvalidEmail("email must contain an @"));
        };
        if local.is_empty() || domain.contains('@') || !is_domain(domain) {
            return Err(Error::InvalidEmail("email must look like name@example.com"));
        }
        Ok(Email { shown: text.to_owned(), folded: text.to_lowercase() })
    }
}

fn is_domain(domain: &str) -> bool {
    let labels: Vec<&str> = domain.split('.').collect();
    labels.iter().all(|label| !label.is_empty())
        && (labels.len() > 1 || LOCAL_DOMAINS.contains(&domain.to_lowercase().as_str()))
}

/// An account of one product.
#[derive(Clone, Debug)]
pub struct Account {
    /// Slug of the product it belongs to.
    pub product: String,
    /// UUID v7 text.
    pub id: String,
    /// The address as registered.
    pub email: String,
    /// In ms since 1970.
    pub created_at: i64,
    /// What it may do.
    pub roles: Roles,
    /// Whether it is suspended.
    pub suspended: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_in_case_are_the_same() {
        let (a, b) = (Email::parse("Ana@Example.COM").unwrap(), Email::parse("ana@example.com").unwrap());
        assert_eq!(a.folded, b.folded);
        assert_eq!(a.shown, "Ana@Example.COM");
    }

    #[test]
    fn an_address_must_look_like_one() {
        let longest = format!("{}@example.com", "a".repeat(EMAIL_MAX_BYTES - 12));
        for good in ["a@b.c", "ana.maria+x@mail.example.com", "root@localhost", "ana@test", "ü@exämple.de", &longest]
        {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let too_long = format!("a{longest}");
        for bad in [
            "",
            "@",
            "ana",
            "ana@",
            "@example.com",
            "ana@example",
            "ana@.com",
            "ana@com.",
            "ana@a..b",
            "a@b@c.d",
            " ana@example.com",
            "ana@example.com\n",
            "an\0a@example.com",
            "an a@example.com",
            "ana@exa\u{a0}mple.com",
            &too_long,
        ] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }
}
