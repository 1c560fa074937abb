//! Tokens and the keys they stand on.
//!
//! A refresh token is 32 random bytes. Stored is only its keyed hash; the pair that it was exchanged for is
//! kept for ten seconds, sealed under a key that only the token itself gives. An access token is a JWT; its
//! signing key is sealed in the database under the identity secret.
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit as _, Nonce};
use hmac::{Hmac, KeyInit as _, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;
use weft_auth::{AUDIENCE, Claims, ISSUER};
use weft_core::new_id;

use crate::domain::account::Account;
use crate::domain::audit::Seal;
use crate::domain::link::LinkKind;
use crate::domain::provider::LoginSecrets;
use crate::domain::session::Session;
use crate::error::Error;

/// Length of a token as issued: 32 bytes in base64url without padding.
const TOKEN_BYTES: usize = 43;
const NONCE_BYTES: usize = 12;
/// Bytes of a page token that show who gave it out.
const PAGE_MAC_BYTES: usize = 16;

/// What is derived from the identity secret.
pub struct SecretKeys {
    /// Names the secret in stored hashes, so that a later one can be told apart.
    id: String,
    refresh: SecretBox<[u8; 32]>,
    address: SecretBox<[u8; 32]>,
    signing: SecretBox<[u8; 32]>,
    pages: SecretBox<[u8; 32]>,
    resets: SecretBox<[u8; 32]>,
    proofs: SecretBox<[u8; 32]>,
    invitations: SecretBox<[u8; 32]>,
    logins: SecretBox<[u8; 32]>,
    domains: SecretBox<[u8; 32]>,
    audit: SecretBox<[u8; 32]>,
    setups: SecretBox<[u8; 32]>,
}

impl SecretKeys {
    /// Derives one key a purpose (HMAC-SHA-256 of the purpose under the secret).
    pub fn derive(secret: &SecretString) -> SecretKeys {
        let derived = |purpose: &str| mac(secret.expose_secret().as_bytes(), purpose.as_bytes());
        SecretKeys {
            id: URL_SAFE_NO_PAD.encode(&derived("weft identity v1: key id")[..6]),
            refresh: SecretBox::new(Box::new(derived("weft identity v1: refresh tokens"))),
            address: SecretBox::new(Box::new(derived("weft identity v1: addresses that were tried"))),
            signing: SecretBox::new(Box::new(derived("weft identity v1: signing keys"))),
            pages: SecretBox::new(Box::new(derived("weft identity v1: page tokens"))),
            resets: SecretBox::new(Box::new(derived("weft identity v1: password resets"))),
            proofs: SecretBox::new(Box::new(derived("weft identity v1: proofs of addresses"))),
            invitations: SecretBox::new(Box::new(derived("weft identity v1: invitations"))),
            logins: SecretBox::new(Box::new(derived("weft identity v1: logins at providers"))),
            domains: SecretBox::new(Box::new(derived("weft identity v1: domains of organisations"))),
            audit: SecretBox::new(Box::new(derived("weft identity v1: audit seals"))),
            setups: SecretBox::new(Box::new(derived("weft identity v1: first administrators"))),
        }
    }

    /// How a presented refresh token is found: the secret's id and the token's keyed hash.
    pub fn refresh_hash(&self, token: &RefreshToken) -> String {
        let hash = mac(self.refresh.expose_secret(), token.0.expose_secret().as_bytes());
        format!("{}.{}", self.id, URL_SAFE_NO_PAD.encode(hash))
    }

    /// How failed logins of an address are found: what people type there may be their password.
    pub fn address_hash(&self, email: &str) -> String {
        URL_SAFE_NO_PAD.encode(mac(self.address.expose_secret(), email.to_lowercase().as_bytes()))
    }

    /// How the token of a link in a mail is found: as a refresh token is, under a key for each kind.
    pub fn link_hash(&self, kind: LinkKind, token: &LinkToken) -> String {
        let key = match kind {
            LinkKind::PasswordReset => &self.resets,
            LinkKind::EmailProof => &self.proofs,
            LinkKind::Invitation => &self.invitations,
        };
        let hash = mac(key.expose_secret(), token.0.expose_secret().as_bytes());
        format!("{}.{}", self.id, URL_SAFE_NO_PAD.encode(hash))
    }

    /// How the token of a link for the first administrator is found.
    pub fn setup_hash(&self, token: &LinkToken) -> String {
        let hash = mac(self.setups.expose_secret(), token.0.expose_secret().as_bytes());
        format!("{}.{}", self.id, URL_SAFE_NO_PAD.encode(hash))
    }

    /// What shows that the seal of a product's audit log is ours.
    pub fn audit_mac(&self, product: &str, seal: &Seal) -> Vec<u8> {
        mac(self.audit.expose_secret(), &seal.bytes(product)).to_vec()
    }

    /// The `state` of the login that somebody began who has this key.
    pub fn login_state(&self, key: &LoginKey) -> LoginState {
        let message = [b"key\0", key.0.expose_secret().as_bytes()].concat();
        LoginState(URL_SAFE_NO_PAD.encode(mac(self.logins.expose_secret(), &message)).into())
    }

    /// What belongs to the state of a login at a provider. Nobody has it without the secret, and nobody stores it.
    pub fn login_secrets(&self, state: &LoginState) -> LoginSecrets {
        let derived = |purpose: &str| {
            let message = [purpose.as_bytes(), b"\0", state.0.expose_secret().as_bytes()].concat();
            URL_SAFE_NO_PAD.encode(mac(self.logins.expose_secret(), &message))
        };
        LoginSecrets {
            hash: format!("{}.{}", self.id, derived("state")),
            verifier: derived("verifier").into(),
            nonce: derived("nonce"),
        }
    }

    /// The TXT record that proves that a domain is an organisation's; always the same.
    pub fn domain_record(&self, product: &str, organisation_id: &str, domain: &str) -> String {
        let message = format!("{product}\0{organisation_id}\0{domain}");
        format!("weft-domain={}", URL_SAFE_NO_PAD.encode(mac(self.domains.expose_secret(), message.as_bytes())))
    }

    /// The page token for a place in a list; good for this `list` only, which names the RPC, the caller and the query.
    pub fn page_token(&self, list: &str, place: &str) -> String {
        URL_SAFE_NO_PAD.encode([&self.page_mac(list, place)[..], place.as_bytes()].concat())
    }

    /// The place in a page token; empty if there is no token.
    ///
    /// Errors: [`Error::InvalidPageToken`] for one that was not given out for this list.
    pub fn page_place(&self, list: &str, token: &str) -> Result<String, Error> {
        if token.is_empty() {
            return Ok(String::new());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::InvalidPageToken)?;
        let (given, place) = bytes.split_at_checked(PAGE_MAC_BYTES).ok_or(Error::InvalidPageToken)?;
        let place = std::str::from_utf8(place).map_err(|_| Error::InvalidPageToken)?;
        if given == self.page_mac(list, place) { Ok(place.to_owned()) } else { Err(Error::InvalidPageToken) }
    }

    fn page_mac(&self, list: &str, place: &str) -> [u8; PAGE_MAC_BYTES] {
        let whole = mac(self.pages.expose_secret(), format!("{list}\0{place}").as_bytes());
        std::array::from_fn(|index| whole[index])
    }

    /// A signing seed as it is stored; bound to its key id.
    pub fn seal_seed(&self, kid: &str, seed: &[u8; 32]) -> Result<Vec<u8>, Error> {
        seal(self.signing.expose_secret(), kid.as_bytes(), seed)
    }

    /// The seed in a stored signing key; nothing if it was sealed under another secret or changed since.
    pub fn open_seed(&self, kid: &str, sealed: &[u8]) -> Option<[u8; 32]> {
        open(self.signing.expose_secret(), kid.as_bytes(), sealed)?.try_into().ok()
    }
}

/// 32 bytes of the operating system's randomness, as text.
fn random_text() -> Result<SecretString, Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

/// The token of a link in a mail, in plain; only on its way in or out.
pub struct LinkToken(SecretString);

impl LinkToken {
    /// A new one.
    pub fn generate() -> Result<LinkToken, Error> {
        random_text().map(LinkToken)
    }

    /// What somebody presents; nothing if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<LinkToken> {
        (text.len() == TOKEN_BYTES).then(|| LinkToken(text.into()))
    }

    /// The text to send.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The `state` of a login at a provider, in plain; only on its way in or out.
pub struct LoginState(SecretString);

impl LoginState {
    /// A new one.
    pub fn generate() -> Result<LoginState, Error> {
        random_text().map(LoginState)
    }

    /// What somebody presents; nothing if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<LoginState> {
        (text.len() == TOKEN_BYTES).then(|| LoginState(text.into()))
    }

    /// The text to send.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// What only who began a login has, in plain; only on its way in or out. The state is in addresses that others may see,
/// this in none.
pub struct LoginKey(SecretString);

impl LoginKey {
    /// A new one.
    pub fn generate() -> Result<LoginKey, Error> {
        random_text().map(LoginKey)
    }

    /// What somebody presents; nothing if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<LoginKey> {
        (text.len() == TOKEN_BYTES).then(|| LoginKey(text.into()))
    }

    /// The text to send.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A refresh token in plain; only on its way in or out.
pub struct RefreshToken(SecretString);

impl RefreshToken {
    /// A new one.
    pub fn generate() -> Result<RefreshToken, Error> {
        random_text().map(RefreshToken)
    }

    /// What a client presents; nothing if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<RefreshToken> {
        (text.len() == TOKEN_BYTES).then(|| RefreshToken(text.into()))
    }

    /// The text to hand out.
    pub fn text(&self) -> &str {
        self.0.expose_secret()
    }

    /// Seals what this token was exchanged for, readable only with the token; bound to its session.
    pub fn seal(&self, session_id: &str, successor: &[u8]) -> Result<Vec<u8>, Error> {
        seal(&self.sealing_key(), session_id.as_bytes(), successor)
    }

    /// Opens what [`RefreshToken::seal`] sealed.
    pub fn open(&self, session_id: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        open(&self.sealing_key(), session_id.as_bytes(), sealed)
    }

    fn sealing_key(&self) -> [u8; 32] {
        mac(self.0.expose_secret().as_bytes(), b"weft identity v1: successor pair")
    }
}

/// What makes an access token one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The claim `jti`, which no other token has.
    pub id: String,
    /// `iat`, in s since 1970.
    pub issued: i64,
    /// `exp`, in s since 1970.
    pub expires: i64,
}

impl Access {
    /// For a token issued now. It lives for `ttl_s`, but not longer than its session.
    pub fn new(now_ms: i64, ttl_s: i64, session: &Session) -> Access {
        let issued = now_ms.div_euclid(1000);
        let expires = (issued + ttl_s).min(session.expires_at.div_euclid(1000));
        Access { id: new_id(), issued, expires }
    }

    /// The claims of an access token of `account` in `session`.
    pub fn claims(&self, account: &Account, session: &Session) -> Claims {
        Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: account.id.clone(),
            prd: account.product.clone(),
            sid: session.id.clone(),
            jti: self.id.clone(),
            email: account.email.clone(),
            roles: account.roles.names(),
            scp: None,
            key: None,
            iat: self.issued,
            exp: self.expires,
        }
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(message));
    mac.unwrap_or_else(|error| unreachable!("hmac takes a key of any length: {error}")).finalize().into_bytes().into()
}

/// The nonce, then the ciphertext and its tag.
fn seal(key: &[u8; 32], bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
    let mut nonce = [0_u8; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(Error::Random)?;
    let payload = Payload { msg: plain, aad: bound_to };
    let sealed = ChaCha20Poly1305::new(Key::from_slice(key)).encrypt(Nonce::from_slice(&nonce), payload);
    Ok([nonce.as_slice(), &sealed.map_err(|_| Error::Seal)?].concat())
}

fn open(key: &[u8; 32], bound_to: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
    let payload = Payload { msg: ciphertext, aad: bound_to };
    ChaCha20Poly1305::new(Key::from_slice(key)).decrypt(Nonce::from_slice(nonce), payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str) -> SecretKeys {
        SecretKeys::derive(&secret.into())
    }

    fn session(expires_at: i64) -> Session {
        Session {
            product: "p".into(),
            id: "s".into(),
            account_id: "a".into(),
            created_at: 0,
            expires_at,
            ended_at: None,
        }
    }

    #[test]
    fn a_refresh_token_is_found_by_a_hash_that_needs_the_secret() {
        let token = RefreshToken::generate().unwrap();
        let again = RefreshToken::parse(token.text()).unwrap();
        let ours = keys("one secret");
        assert_eq!(ours.refresh_hash(&token), ours.refresh_hash(&again));
        assert_ne!(ours.refresh_hash(&token), keys("another secret").refresh_hash(&token));
        assert!(!ours.refresh_hash(&token).contains(token.text()));
    }

    #[test]
    fn a_successor_opens_with_the_token_it_replaced_and_no_other() {
        let (token, other) = (RefreshToken::generate().unwrap(), RefreshToken::generate().unwrap());
        let mut sealed = token.seal("session", b"the pair").unwrap();
        assert_eq!(token.open("session", &sealed).unwrap(), b"the pair");
        assert!(other.open("session", &sealed).is_none());
        assert!(token.open("another", &sealed).is_none());
        assert!(token.open("session", &sealed[..5]).is_none());
        *sealed.last_mut().unwrap() ^= 1;
        assert!(token.open("session", &sealed).is_none());
    }

    #[test]
    fn a_seed_opens_under_its_secret_and_key_id_only() {
        let ours = keys("one secret");
        let sealed = ours.seal_seed("kid", &[7; 32]).unwrap();
        assert_eq!(ours.open_seed("kid", &sealed), Some([7; 32]));
        assert_eq!(ours.open_seed("other", &sealed), None);
        assert_eq!(keys("another secret").open_seed("kid", &sealed), None);
    }

    #[test]
    fn a_page_token_is_good_for_its_list_and_its_place_only() {
        let ours = keys("one secret");
        let token = ours.page_token("users of p", "0190");
        assert_eq!(ours.page_place("users of p", &token).unwrap(), "0190");
        assert_eq!(ours.page_place("users of p", "").unwrap(), "");
        assert!(ours.page_place("users of q", &token).is_err());
        assert!(keys("another secret").page_place("users of p", &token).is_err());
        for forged in ["x", "!", "0190", &token[1..], &format!("{token}AA")] {
            assert!(ours.page_place("users of p", forged).is_err(), "{forged}");
        }
    }

    #[test]
    fn what_belongs_to_a_login_needs_its_state_and_the_secret() {
        let state = LoginState::generate().unwrap();
        let of = |secret: &str, state: &LoginState| {
            let LoginSecrets { hash, verifier, nonce } = keys(secret).login_secrets(state);
            [hash, verifier.expose_secret().to_owned(), nonce]
        };
        let ours = of("one secret", &state);
        assert_eq!(ours, of("one secret", &LoginState::parse(state.text()).unwrap()));
        assert_eq!(ours[1].len(), 43, "as RFC 7636 asks");
        assert!(ours[0] != ours[1] && ours[1] != ours[2] && !ours.concat().contains(state.text()));
        for (mine, other) in ours.iter().zip(of("another secret", &state)) {
            assert_ne!(*mine, other);
        }
    }

    #[test]
    fn the_state_of_a_login_needs_its_key_and_the_secret() {
        let key = LoginKey::generate().unwrap();
        let of = |secret: &str, key: &LoginKey| keys(secret).login_state(key).text().to_owned();
        let ours = of("one secret", &key);
        assert_eq!(ours, of("one secret", &LoginKey::parse(key.text()).unwrap()));
        assert!(LoginState::parse(&ours).is_some() && ours != key.text());
        assert_ne!(ours, of("another secret", &key));
        assert_ne!(ours, of("one secret", &LoginKey::generate().unwrap()));
    }

    #[test]
    fn a_domain_has_another_record_for_each_organisation() {
        let record =
            |organisation_id: &str, domain: &str| keys("one secret").domain_record("p", organisation_id, domain);
        assert_eq!(record("o", "a.com"), record("o", "a.com"));
        assert!(record("o", "a.com") != record("q", "a.com") && record("o", "a.com") != record("o", "b.com"));
    }

    #[test]
    fn two_access_tokens_of_the_same_moment_have_different_ids() {
        let session = session(i64::MAX);
        assert_ne!(Access::new(5_000, 600, &session).id, Access::new(5_000, 600, &session).id);
    }

    #[test]
    fn an_access_token_does_not_outlive_its_session() {
        assert_eq!(Access::new(5_000, 600, &session(9_999)).expires, 9);
    }
}
