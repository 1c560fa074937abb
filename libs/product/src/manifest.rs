//! A manifest's text: its shape, and where in the file each thing stands.
//!
//! Sections are decoded one by one, and each plan by itself, so that a mistake in one does not hide those of the
//! others. Only a manifest whose shape is right goes on to [`crate::check`], which finds all that is left.
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::product::{CredentialKind, Interval, Limit, Moderation, OnDisconnect};
use crate::{ManifestError, Product, check};

/// A file and a line in it.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<str>,
    line: usize,
}

impl Place {
    /// A mistake at this place.
    pub fn error(&self, message: impl Into<String>) -> ManifestError {
        ManifestError { file: self.file.to_string(), line: Some(self.line), message: message.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A product, and the places that only a look at all files can judge.
pub struct Read {
    /// The product.
    pub product: Arc<Product>,
    /// Where its slug stands.
    pub slug_at: Place,
    /// Where each of its hosts stands.
    pub hosts_at: Vec<Place>,
}

/// Reads one manifest. None if it has a mistake; all that can be found are added to `errors`.
pub fn read(file: &str, text: &str, errors: &mut Vec<ManifestError>) -> Option<Read> {
    let mut mistakes = Mistakes { file: Arc::from(file), text, found: Vec::new() };
    let read = decode(text, &mut mistakes).and_then(|manifest| {
        let slug_at = mistakes.place(manifest.slug.span());
        let hosts_at = manifest.hosts.iter().map(|host| mistakes.place(host.span())).collect();
        let product = Arc::new(check::product(manifest, hash(text), &mut mistakes)?);
        Some(Read { product, slug_at, hosts_at })
    });
    errors.append(&mut mistakes.found);
    read
}

/// SHA-256 in lower-case hex.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The mistakes of one file.
pub struct Mistakes<'a> {
    file: Arc<str>,
    text: &'a str,
    found: Vec<ManifestError>,
}

impl Mistakes<'_> {
    /// The place of a byte range.
    pub fn place(&self, span: Range<usize>) -> Place {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        Place { file: Arc::clone(&self.file), line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
    }

    /// Notes a mistake at a byte range.
    pub fn at(&mut self, span: Range<usize>, message: impl Into<String>) {
        let error = self.place(span).error(message);
        self.found.push(error);
    }

    /// Whether nothing is wrong so far.
    pub fn none(&self) -> bool {
        self.found.is_empty()
    }

    fn note(&mut self, error: &toml::de::Error) {
        self.at(error.span().unwrap_or(0..0), error.message());
    }
}

/// A name and where it stands.
pub type Name = Spanned<String>;

/// A manifest as written: right in shape, not yet in sense.
pub struct Manifest {
    pub slug: Name,
    pub name: Name,
    pub hosts: Vec<Name>,
    pub data_policy: Spanned<RawDataPolicy>,
    pub session_ttl_s: Option<Spanned<i64>>,
    pub moderation: Moderation,
    pub on_disconnect: OnDisconnect,
    pub default_plan: Name,
    pub identity: RawIdentity,
    pub models: RawModels,
    pub model_prices: BTreeMap<Name, RawModelPrice>,
    pub agents: RawAgents,
    pub features: BTreeMap<Name, Name>,
    pub limits: BTreeMap<Name, Name>,
    pub plans: Vec<RawPlan>,
    pub credit_packages: Vec<RawPackage>,
}

/// [`crate::DataPolicy`] without the life of a session, which is a key of its own.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RawDataPolicy {
    ZeroPlaintext,
    SessionOnly,
    ServerSide,
}

/// `[identity]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawIdentity {
    pub credentials: Spanned<Vec<Spanned<CredentialKind>>>,
    #[serde(default)]
    pub issuers: Vec<RawIssuer>,
    pub access_ttl_s: Option<Spanned<i64>>,
    pub refresh_ttl_s: Option<Spanned<i64>>,
    pub family_ttl_s: Option<Spanned<i64>>,
    #[serde(default)]
    pub redirect_uris: Vec<Name>,
}

/// One of `[[identity.issuers]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawIssuer {
    pub kind: Spanned<CredentialKind>,
    pub issuer: Option<Name>,
    pub jwks_url: Option<Name>,
    #[serde(default)]
    pub audiences: Vec<Name>,
    #[serde(default)]
    pub authorized_parties: Vec<Name>,
    pub admin_claim: Option<Name>,
    #[serde(default)]
    pub link_by_email: bool,
}

/// `[models]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawModels {
    pub default: Name,
    pub classifier: Name,
    pub embedding: Option<Name>,
    #[serde(default)]
    pub roles: BTreeMap<Name, Name>,
    #[serde(default)]
    pub fallbacks: BTreeMap<Name, Vec<Name>>,
}

/// One of `[model_prices]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawModelPrice {
    pub input: Spanned<i64>,
    pub output: Spanned<i64>,
}

/// `[agents]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAgents {
    pub default: Name,
    pub available: Vec<Name>,
    #[serde(default)]
    pub configured: Vec<RawConfiguredAgent>,
    #[serde(default)]
    pub calls: BTreeMap<Name, Vec<Name>>,
}

/// One of `[[agents.configured]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfiguredAgent {
    pub name: Name,
    pub description: Name,
    pub prompt: Option<Name>,
}

/// One of `[[plans]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlan {
    pub slug: Name,
    pub name: Name,
    #[serde(default)]
    pub prices: Vec<RawPrice>,
    #[serde(default)]
    pub features: BTreeMap<Name, bool>,
    #[serde(default)]
    pub limits: BTreeMap<Name, Spanned<Limit>>,
    pub requests_per_minute: Spanned<Limit>,
    #[serde(default)]
    pub requests_per_seat: bool,
    pub credits: Option<RawCredits>,
    #[serde(default)]
    pub models: RawPlanModels,
}

/// One of a plan's `prices`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPrice {
    pub amount_minor: Spanned<i64>,
    pub currency: Name,
    pub interval: Spanned<Interval>,
    #[serde(default)]
    pub per_seat: bool,
    pub id: Option<Name>,
    pub bonus_credits: Option<Spanned<i64>>,
}

/// A plan's `credits`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCredits {
    pub initial: Spanned<i64>,
    pub daily: Spanned<i64>,
    pub micro_credits_per_token: Spanned<i64>,
}

/// A plan's `models`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPlanModels {
    #[serde(default)]
    pub default: BTreeMap<Name, Name>,
    #[serde(default)]
    pub allowed: Vec<Name>,
}

/// One of `[[credit_packages]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPackage {
    pub id: Name,
    pub credits: Spanned<i64>,
    pub amount_minor: Spanned<i64>,
    pub currency: Name,
    pub label: Option<Name>,
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrUnlimited;

        impl Visitor<'_> for NumberOrUnlimited {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or \"unlimited\"")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Limit, E> {
                Ok(Limit::At(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limit, E> {
                match text {
                    "unlimited" => Ok(Limit::Unlimited),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(NumberOrUnlimited)
    }
}

/// The text's shape. None, with everything that can be found noted, unless all of it is right.
fn decode(text: &str, mistakes: &mut Mistakes) -> Option<Manifest> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        mistakes.note(error);
    }
    let mut sections = Sections { table: table.into_inner(), mistakes };
    // All sections are taken before the first `?`, so that each of them is read.
    let slug = sections.required("slug");
    let name = sections.required("name");
    let hosts = sections.required("hosts");
    let data_policy = sections.required("data_policy");
    let session_ttl_s = sections.optional("session_ttl_s");
    let moderation = sections.required("moderation");
    let on_disconnect = sections.required("on_disconnect");
    let default_plan = sections.required("default_plan");
    let identity = sections.required("identity");
    let models = sections.required("models");
    let model_prices = sections.optional("model_prices");
    let agents = sections.required("agents");
    let features = sections.optional("features");
    let limits = sections.optional("limits");
    let plans = sections.each("plans");
    let credit_packages = sections.each("credit_packages");
    sections.nothing_left();
    if !mistakes.none() {
        return None;
    }
    Some(Manifest {
        slug: slug?,
        name: name?,
        hosts: hosts?,
        data_policy: data_policy?,
        session_ttl_s,
        moderation: moderation?,
        on_disconnect: on_disconnect?,
        default_plan: default_plan?,
        identity: identity?,
        models: models?,
        model_prices: model_prices.unwrap_or_default(),
        agents: agents?,
        features: features.unwrap_or_default(),
        limits: limits.unwrap_or_default(),
        plans,
        credit_packages,
    })
}

/// What is left of a manifest to decode.
struct Sections<'i, 'm, 't> {
    table: DeTable<'i>,
    mistakes: &'m mut Mistakes<'t>,
}

impl<'i> Sections<'i, '_, '_> {
    fn decoded<T: DeserializeOwned>(&mut self, value: Spanned<DeValue<'i>>) -> Option<T> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistakes.at(error.span().unwrap_or(span), error.message());
                None
            }
        }
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.table.remove(key)?;
        self.decoded(value)
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        match self.table.remove(key) {
            Some(value) => self.decoded(value),
            None => {
                self.mistakes.note(&toml::de::Error::custom(format!("missing key `{key}`")));
                None
            }
        }
    }

    /// A list, one entry at a time; a missing one is empty.
    fn each<T: DeserializeOwned>(&mut self, key: &str) -> Vec<T> {
        let Some(value) = self.table.remove(key) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(entries) => entries.into_iter().filter_map(|entry| self.decoded(entry)).collect(),
            other => {
                let found = other.type_str();
                self.mistakes.at(span, format!("invalid type: {found}, expected a list of tables, `[[{key}]]`"));
                Vec::new()
            }
        }
    }

    fn nothing_left(self) {
        for (key, _) in self.table {
            self.mistakes.at(key.span(), format!("unknown key `{}`", key.get_ref()));
        }
    }
}
