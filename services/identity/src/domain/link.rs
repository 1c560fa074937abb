//! Links in mails: what they are good for, and what the mail says.

/// What a link is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A new password.
    PasswordReset,
    /// To prove that an address is the account's.
    EmailProof,
    /// To join an organisation.
    Invitation,
}

/// Every kind, in the order in which their mails are looked for.
pub const KINDS: [LinkKind; 3] = [LinkKind::PasswordReset, LinkKind::EmailProof, LinkKind::Invitation];
/// How long a link to a new password is good for, in ms.
pub const RESET_MS: i64 = 30 * 60 * 1000;
/// How long a link that proves an address is good for, in ms.
pub const PROOF_MS: i64 = 24 * 60 * 60 * 1000;
/// Most mails to prove its address that an account is sent within [`PROOFS_WITHIN_MS`].
pub const MOST_PROOFS: i64 = 3;
/// How long a mail counts towards [`MOST_PROOFS`], in ms.
pub const PROOFS_WITHIN_MS: i64 = 60 * 60 * 1000;
/// Most mails with a link to a new password that an account is sent within [`RESET_MS`], so that one of their links is
/// good for who asked. More would be somebody's mischief; they wait.
pub const MOST_RESETS: usize = 5;
/// The least time from one of those mails to the next, in ms.
const APART_MS: i64 = 2 * 60 * 1000;

impl LinkKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkKind::PasswordReset => "password_reset",
            LinkKind::EmailProof => "email_proof",
            LinkKind::Invitation => "invitation",
        }
    }

    /// Which jobs send such mails.
    pub fn job(self) -> &'static str {
        match self {
            LinkKind::PasswordReset => "password_reset_mail",
            LinkKind::EmailProof => "email_proof_mail",
            LinkKind::Invitation => "invitation_mail",
        }
    }

    /// The page of the app that such a link leads to.
    pub fn page(self) -> &'static str {
        match self {
            LinkKind::PasswordReset => "reset-password",
            LinkKind::EmailProof => "verify-email",
            LinkKind::Invitation => "accept-invitation",
        }
    }
}

/// From when on an account may be sent another mail with a link to a new password, if it was sent some at these times,
/// newest first.
pub fn next_reset(sent: &[i64]) -> i64 {
    let apart = sent.first().map_or(0, |at| at + APART_MS);
    sent.get(MOST_RESETS - 1).map_or(apart, |at| apart.max(at + RESET_MS))
}

/// Subject and text of a mail with a link to a new password.
pub fn reset_text(product: &str, link: &str) -> (String, String) {
    let text = format!(
        "Somebody asked for a new password for your account at {product}.\n\n\
         To choose one, open this within 30 minutes:\n\n{link}\n\n\
         It works once, and signs you out everywhere. If it was not you, do nothing: your password stays as it is.\n"
    );
    (format!("A new password for {product}"), text)
}

/// Subject and text of a mail that proves an address.
pub fn proof_text(product: &str, link: &str) -> (String, String) {
    let text = format!(
        "Please confirm that this is the address of your account at {product}.\n\n\
         Open this within 24 hours:\n\n{link}\n\n\
         If you have no account there, do nothing: somebody mistyped their address.\n"
    );
    (format!("Confirm your address for {product}"), text)
}

/// Subject and text of an invitation to an organisation. Its name is the only thing in a mail of ours that a stranger
/// chose.
pub fn invitation_text(product: &str, organisation: &str, link: &str) -> (String, String) {
    let organisation = without_links(organisation);
    let text = format!(
        "You are invited to join the organisation \"{organisation}\" at {product}.\n\n\
         To join, sign in or register with this address and open this within 7 days:\n\n{link}\n\n\
         If you do not know who that is, do nothing: you join only by the link.\n"
    );
    (format!("An invitation to \"{organisation}\" at {product}"), text)
}

/// The text with nothing in it that a mail program would make a link of.
fn without_links(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        let splits = match letter {
            '/' | ':' | '@' | '<' | '>' | '"' | '\\' => true,
            '.' => rest.peek().is_some_and(|next| !next.is_whitespace()),
            _ => false,
        };
        shown.push(if splits { ' ' } else { letter });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_are_apart_and_no_more_than_there_are_good_links() {
        assert_eq!(next_reset(&[]), 0);
        assert_eq!(next_reset(&[1_000]), 1_000 + APART_MS);
        let sent: Vec<i64> = (0..5).rev().map(|number| number * APART_MS).collect();
        assert_eq!(next_reset(&sent[1..]), sent[1] + APART_MS);
        assert_eq!(next_reset(&sent), RESET_MS);
    }

    #[test]
    fn the_only_link_in_an_invitation_is_ours() {
        let (subject, text) =
            invitation_text("Adiuva", "Win at https://evil.example/a or a@b.c", "https://app.test/#t");
        assert!(!subject.contains("evil.example") && !subject.contains("a@b"), "{subject}");
        assert_eq!(text.matches("://").count(), 1, "{text}");
        assert!(!text.contains("evil.example"), "{text}");
        assert_eq!(without_links("St. Mary's Inc."), "St. Mary's Inc.");
    }
}
