//! Stored password hashes: our own, and those that accounts bring along from elsewhere.
//!
//! | kind | text |
//! |---|---|
//! | argon2i, argon2d, argon2id | `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>` |
//! | bcrypt | `$2a$`, `$2b$` or `$2y$`, the cost, 53 characters |
//! | scrypt | `$scrypt$ln=14,r=8,p=1$<salt>$<hash>` |
//! | Firebase's scrypt | `$firebase-scrypt$m=14,r=8,k=<signer key>,s=<salt separator>$<salt>$<hash>` |
//! | PBKDF2 | `$pbkdf2-sha256$i=600000$<salt>$<hash>` and `$pbkdf2-sha512$…` |
//! | PBKDF2 of Django | `pbkdf2_sha256$600000$<salt>$<hash>` |
//!
//! Where nothing else is said, bytes are in base64; with or without padding.
use aes::Aes256;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ctr::cipher::{KeyIvInit, StreamCipher};
use sha2::{Sha256, Sha512};

/// Most memory that one hash may take, in bytes: argon2 and scrypt.
const MAX_MEMORY: u64 = 128 * 1024 * 1024;
/// Most memory that one hash may walk through, in bytes, which is its work: about a second.
const MAX_WALK: u64 = 1024 * 1024 * 1024;
/// Most lanes of argon2, and most repetitions of scrypt.
const MAX_LANES: u32 = 16;
/// Costs of bcrypt: the number of rounds is two to the power of it; 14 takes about a second.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// Bytes of a password that bcrypt looks at. A longer one never matches, because those that begin alike would all.
const BCRYPT_MAX_BYTES: usize = 72;
/// Most rounds of PBKDF2.
const MAX_ROUNDS: u32 = 2_000_000;
/// Lengths of a hash in bytes, except bcrypt's.
const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Longest salt, signer key or salt separator in bytes.
const MAX_SALT_BYTES: usize = 128;
/// Longest text of a hash in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// What Firebase derives with scrypt: a key for AES-256 and as much again.
const FIREBASE_DERIVED_BYTES: usize = 64;
const BCRYPT_HASH_BYTES: usize = 23;
const BCRYPT_SALT_CHARS: usize = 22;

/// Lenient about padding, strict about everything else.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_BCRYPT: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, LENIENT);
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// A stored hash that can be computed again within bounds.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored {
    kind: Kind,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Argon2 { algorithm: Algorithm, version: Version, memory_kib: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32 },
    Scrypt { log_n: u8, r: u32, p: u32 },
    Firebase { log_n: u8, r: u32, signer_key: Vec<u8>, separator: Vec<u8> },
    Pbkdf2 { sha512: bool, rounds: u32 },
}

impl Stored {
    /// Reads a stored hash.
    ///
    /// Errors: in words what is wrong with it; also if it would take more memory or time than a login may.
    pub fn parse(text: &str) -> Result<Stored, &'static str> {
        if text.len() > MAX_TEXT_BYTES {
            return Err("the hash is too long");
        }
        if text.starts_with("$argon2") {
            return argon2(text);
        }
        if let Some(rest) = text.strip_prefix("pbkdf2_sha256$") {
            return django(rest);
        }
        let fields: Vec<&str> = text.split('$').collect();
        match fields.as_slice() {
            ["", "2a" | "2b" | "2y", cost, rest] => bcrypt(cost, rest),
            ["", "scrypt", parameters, salt, hash] => scrypt(parameters, salt, hash),
            ["", "firebase-scrypt", parameters, salt, hash] => firebase(parameters, salt, hash),
            ["", "pbkdf2-sha256", parameters, salt, hash] => pbkdf2(false, parameters, salt, hash),
            ["", "pbkdf2-sha512", parameters, salt, hash] => pbkdf2(true, parameters, salt, hash),
            _ => Err("the hash is of no kind that can be checked"),
        }
    }

    /// Whether the hash was made from this password.
    pub fn matches(&self, password: &str, memory: &mut Vec<Block>) -> bool {
        self.derive(password, memory).is_some_and(|derived| same(&derived, &self.hash))
    }

    /// Whether it is as [`super::hash`] makes them today.
    pub fn is_ours(&self) -> bool {
        let ours = Params::DEFAULT;
        let kind = Kind::Argon2 {
            algorithm: Algorithm::Argon2id,
            version: Version::V0x13,
            memory_kib: ours.m_cost(),
            passes: ours.t_cost(),
            lanes: ours.p_cost(),
        };
        self.kind == kind && self.hash.len() == Params::DEFAULT_OUTPUT_LEN
    }

    /// About how long it takes to compute, in ms; the dearest that is read takes a second.
    pub fn work_ms(&self) -> u64 {
        let walked = |bytes: u64| bytes * 1000 / MAX_WALK;
        match self.kind {
            Kind::Argon2 { memory_kib, passes, .. } => walked(u64::from(memory_kib) * 1024 * u64::from(passes)),
            Kind::Bcrypt { cost } => 1000 >> BCRYPT_COSTS.end().saturating_sub(cost),
            Kind::Scrypt { log_n, r, p } => walked(((128 * u64::from(r)) << log_n) * u64::from(p)),
            Kind::Firebase { log_n, r, .. } => walked((128 * u64::from(r)) << log_n),
            Kind::Pbkdf2 { rounds, .. } => u64::from(rounds) * 1000 / u64::from(MAX_ROUNDS),
        }
    }

    /// A hash of nothing that costs what this one does.
    pub fn shape(&self) -> String {
        let (salt, hash) = ("A".repeat(22), BASE64.encode(vec![0; self.hash.len()]));
        match &self.kind {
            Kind::Argon2 { algorithm, version, memory_kib, passes, lanes } => {
                let version = u32::from(*version);
                format!("${algorithm}$v={version}$m={memory_kib},t={passes},p={lanes}${salt}${hash}")
            }
            Kind::Bcrypt { cost } => format!("$2b${cost:02}${}", ".".repeat(53)),
            Kind::Scrypt { log_n, r, p } => format!("$scrypt$ln={log_n},r={r},p={p}${salt}${hash}"),
            Kind::Firebase { log_n, r, .. } => format!("$firebase-scrypt$m={log_n},r={r},k={hash},s=AA${salt}${hash}"),
            Kind::Pbkdf2 { sha512, rounds } => {
                let name = if *sha512 { "sha512" } else { "sha256" };
                format!("$pbkdf2-{name}$i={rounds}${salt}${hash}")
            }
        }
    }

    /// What the password becomes; none if it can become nothing that matches.
    fn derive(&self, password: &str, memory: &mut Vec<Block>) -> Option<Vec<u8>> {
        let (bytes, mut output) = (password.as_bytes(), vec![0_u8; self.hash.len()]);
        match &self.kind {
            Kind::Argon2 { algorithm, version, memory_kib, passes, lanes } => {
                let params = Params::new(*memory_kib, *passes, *lanes, Some(output.len())).ok()?;
                memory.resize(params.block_count(), Block::new());
                let argon2 = Argon2::new(*algorithm, *version, params);
                argon2.hash_password_into_with_memory(bytes, &self.salt, &mut output, memory.as_mut_slice()).ok()?;
            }
            Kind::Bcrypt { cost } => {
                let salt = <[u8; 16]>::try_from(self.salt.as_slice()).ok()?;
                let fits = bytes.len() <= BCRYPT_MAX_BYTES && !bytes.contains(&0);
                // The C string, of which the end counts too if it still fits.
                let key: Vec<u8> = bytes.iter().copied().filter(|_| fits).chain([0]).take(BCRYPT_MAX_BYTES).collect();
                let derived = bcrypt::bcrypt(*cost, salt, &key);
                output.copy_from_slice(derived.get(..BCRYPT_HASH_BYTES).filter(|_| fits)?);
            }
            Kind::Scrypt { log_n, r, p } => {
                let params = scrypt::Params::new(*log_n, *r, *p).ok()?;
                scrypt::scrypt(bytes, &self.salt, &params, &mut output).ok()?;
            }
            Kind::Firebase { log_n, r, signer_key, separator } => {
                let (salt, mut derived) = ([&self.salt[..], separator].concat(), [0_u8; FIREBASE_DERIVED_BYTES]);
                scrypt::scrypt(bytes, &salt, &scrypt::Params::new(*log_n, *r, 1).ok()?, &mut derived).ok()?;
                let (key, _) = derived.split_first_chunk::<32>()?;
                let mut cipher = ctr::Ctr128BE::<Aes256>::new(key.into(), &[0_u8; 16].into());
                output.copy_from_slice(signer_key);
                cipher.apply_keystream(&mut output);
            }
            Kind::Pbkdf2 { sha512: false, rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha256>(bytes, &self.salt, *rounds, &mut output);
            }
            Kind::Pbkdf2 { sha512: true, rounds } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(bytes, &self.salt, *rounds, &mut output);
            }
        }
        Some(output)
    }
}

/// Takes the same time wherever they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

const NOT_READABLE: &str = "the hash cannot be read";
const TOO_DEAR: &str = "the hash would take more memory or time than a login may";

fn argon2(text: &str) -> Result<Stored, &'static str> {
    let parsed = PasswordHash::new(text).map_err(|_| NOT_READABLE)?;
    let number = |name: &str| parsed.params.get(name).and_then(|value| value.decimal().ok()).ok_or(NOT_READABLE);
    let (memory_kib, passes, lanes) = (number("m")?, number("t")?, number("p")?);
    if parsed.params.iter().count() != 3 {
        return Err("the hash has parameters besides m, t and p");
    }
    check_memory(u64::from(memory_kib) * 1024, u64::from(passes))?;
    if lanes > MAX_LANES {
        return Err(TOO_DEAR);
    }
    let version = parsed.version.map_or(Ok(Version::V0x10), Version::try_from).map_err(|_| NOT_READABLE)?;
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).map_err(|_| NOT_READABLE)?;
    let salt = parsed.salt.as_ref().ok_or(NOT_READABLE)?.to_vec();
    let hash = parsed.hash.as_ref().map(Output::as_bytes).ok_or(NOT_READABLE)?.to_vec();
    // What argon2 itself asks of its parameters.
    Params::new(memory_kib, passes, lanes, Some(hash.len())).map_err(|_| NOT_READABLE)?;
    stored(Kind::Argon2 { algorithm, version, memory_kib, passes, lanes }, salt, hash)
}

fn bcrypt(cost: &str, rest: &str) -> Result<Stored, &'static str> {
    let cost = if cost.len() == 2 { number(cost)? } else { return Err(NOT_READABLE) };
    if !BCRYPT_COSTS.contains(&cost) {
        return Err(TOO_DEAR);
    }
    let (salt, hash) = rest.split_at_checked(BCRYPT_SALT_CHARS).ok_or(NOT_READABLE)?;
    let decoded = |text: &str| BASE64_BCRYPT.decode(text).map_err(|_| NOT_READABLE);
    let (salt, hash) = (decoded(salt)?, decoded(hash)?);
    if salt.len() != 16 || hash.len() != BCRYPT_HASH_BYTES {
        return Err(NOT_READABLE);
    }
    Ok(Stored { kind: Kind::Bcrypt { cost }, salt, hash })
}

fn scrypt(parameters: &str, salt: &str, hash: &str) -> Result<Stored, &'static str> {
    let [log_n, r, p] = named(parameters, ["ln", "r", "p"])?;
    let (log_n, r, p) = (check_scrypt(number(log_n)?, number(r)?, number(p)?))?;
    stored(Kind::Scrypt { log_n, r, p }, decoded(salt)?, decoded(hash)?)
}

fn firebase(parameters: &str, salt: &str, hash: &str) -> Result<Stored, &'static str> {
    let [log_n, r, key, separator] = named(parameters, ["m", "r", "k", "s"])?;
    let (log_n, r, _) = check_scrypt(number(log_n)?, number(r)?, 1)?;
    let (signer_key, separator, hash) = (decoded(key)?, decoded(separator)?, decoded(hash)?);
    if signer_key.len() != hash.len() || separator.len() > MAX_SALT_BYTES {
        return Err("the hash and its signer key differ in length");
    }
    stored(Kind::Firebase { log_n, r, signer_key, separator }, decoded(salt)?, hash)
}

fn pbkdf2(sha512: bool, parameters: &str, salt: &str, hash: &str) -> Result<Stored, &'static str> {
    let (rounds, length) = match parameters.split_once(',') {
        Some((rounds, length)) => (rounds, Some(length)),
        None => (parameters, None),
    };
    let [rounds] = named(rounds, ["i"])?;
    let hash = decoded(hash)?;
    if let Some(length) = length {
        let [length] = named(length, ["l"])?;
        if usize::try_from(number(length)?) != Ok(hash.len()) {
            return Err(NOT_READABLE);
        }
    }
    let rounds = check_rounds(number(rounds)?)?;
    stored(Kind::Pbkdf2 { sha512, rounds }, decoded(salt)?, hash)
}

/// Django's salt is text, not base64.
fn django(rest: &str) -> Result<Stored, &'static str> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [rounds, salt, hash] = fields.as_slice() else { return Err(NOT_READABLE) };
    let rounds = check_rounds(number(rounds)?)?;
    stored(Kind::Pbkdf2 { sha512: false, rounds }, salt.as_bytes().to_vec(), decoded(hash)?)
}

fn stored(kind: Kind, salt: Vec<u8>, hash: Vec<u8>) -> Result<Stored, &'static str> {
    if salt.is_empty() || salt.len() > MAX_SALT_BYTES || !HASH_BYTES.contains(&hash.len()) {
        return Err("the hash or its salt is too short or too long");
    }
    Ok(Stored { kind, salt, hash })
}

fn check_memory(bytes: u64, passes: u64) -> Result<(), &'static str> {
    let walk = bytes.checked_mul(passes).ok_or(TOO_DEAR)?;
    if bytes <= MAX_MEMORY && walk <= MAX_WALK { Ok(()) } else { Err(TOO_DEAR) }
}

fn check_scrypt(log_n: u32, r: u32, p: u32) -> Result<(u8, u32, u32), &'static str> {
    if !(1..=24).contains(&log_n) || !(1..=1024).contains(&r) || !(1..=MAX_LANES).contains(&p) {
        return Err(TOO_DEAR);
    }
    check_memory((128 * u64::from(r)) << log_n, u64::from(p))?;
    Ok((u8::try_from(log_n).map_err(|_| TOO_DEAR)?, r, p))
}

fn check_rounds(rounds: u32) -> Result<u32, &'static str> {
    if (1..=MAX_ROUNDS).contains(&rounds) { Ok(rounds) } else { Err(TOO_DEAR) }
}

fn number(text: &str) -> Result<u32, &'static str> {
    // `parse` would take a sign too.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| NOT_READABLE)
    } else {
        Err(NOT_READABLE)
    }
}

/// Standard or URL-safe base64.
fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    BASE64.decode(text.replace('-', "+").replace('_', "/")).map_err(|_| NOT_READABLE)
}

/// The values of `a=…,b=…` in this order, all of them and no others.
fn named<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Result<[&'a str; N], &'static str> {
    let mut pairs = text.split(',');
    let mut values = [""; N];
    for (name, value) in names.iter().zip(&mut values) {
        let (given, text) = pairs.next().and_then(|pair| pair.split_once('=')).ok_or(NOT_READABLE)?;
        if given != *name {
            return Err(NOT_READABLE);
        }
        *value = text;
    }
    if pairs.next().is_some() { Err(NOT_READABLE) } else { Ok(values) }
}

#[cfg(test)]
mod tests;
