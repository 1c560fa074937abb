//! Configuration from the environment: one flat struct a service, its fields in lower case.
//!
//! Every key may also be given as a file (`DATABASE_URL_FILE=/run/secrets/url`), and the keys that the
//! products spell in two ways may be given in either. An empty value is the same as none.
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, Visitor};

/// Keys with two names: the first is ours.
const ALIASES: [[&str; 2]; 2] = [["ENV", "ENVIRONMENT"], ["ANTHROPIC_API_KEY", "CLAUDE_API_KEY"]];

/// A secret or URL is short; a larger file is a mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A key for HMAC-SHA256 must have at least as many bytes as the hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The process's environment; entries that are not UTF-8 cannot be ours and are left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Reads a flat struct from `variables`, which are [`environment`] or what a test says.
///
/// # Errors
/// Every mistake, each with the name of its key.
pub fn load_from<T: DeserializeOwned>(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigErrors> {
    let variables: HashMap<String, String> = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let mut errors = ConfigErrors::default();
    let mut values = BTreeMap::new();
    for key in keys_of::<T>() {
        match read(&variables, &key) {
            Ok(Some(value)) => drop(values.insert(key, value)),
            Ok(None) => {}
            Err(mistake) => errors.push(&key, &mistake),
        }
    }
    parse(values, errors)
}

/// What stands between a key and the product that a value is for: `STRIPE_SECRET_KEY__ASYNC_CODER`.
const PRODUCT_SEPARATOR: &str = "__";

/// The struct's keys as one product has them: `KEY__<SLUG>`, the slug in upper case with `_` for `-`. They have files
/// too: `KEY__<SLUG>_FILE`.
///
/// # Errors
/// Every mistake, each with the name of its key.
pub fn load_for<T: DeserializeOwned>(variables: &BTreeMap<String, String>, slug: &str) -> Result<T, ConfigErrors> {
    let suffix = format!("{PRODUCT_SEPARATOR}{}", key_of_slug(slug));
    let own = keys_of::<T>()
        .flat_map(|key| ["", "_FILE"].map(|file| (format!("{key}{suffix}{file}"), format!("{key}{file}"))));
    let own = own.filter_map(|(name, key)| Some((key, variables.get(&name)?.clone())));
    load_from::<T>(own).map_err(|errors| {
        ConfigErrors(errors.0.into_iter().map(|(key, mistake)| (format!("{key}{suffix}"), mistake)).collect())
    })
}

/// The keys of the struct in `variables` that are for one product, with the slug as it is written there.
pub fn keys_for_products<T: DeserializeOwned>(variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let keys: Vec<String> = keys_of::<T>().collect();
    let slug = |name: &str| {
        let (key, slug) = name.split_once(PRODUCT_SEPARATOR)?;
        let slug = slug.strip_suffix("_FILE").unwrap_or(slug);
        keys.iter().any(|known| known == key).then(|| (name.to_owned(), slug.to_owned()))
    };
    variables.keys().filter_map(|name| slug(name)).collect()
}

/// A product's slug as keys have it.
pub fn key_of_slug(slug: &str) -> String {
    slug.to_uppercase().replace('-', "_")
}

/// What is wrong with a configuration: one line a mistake, `KEY: what to do`. Values are never repeated,
/// they may be secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(BTreeMap<String, String>);

impl ConfigErrors {
    /// Adds a mistake. The first one of a key stays.
    pub fn push(&mut self, key: &str, mistake: &str) {
        self.0.entry(key.to_owned()).or_insert_with(|| mistake.to_owned());
    }

    /// Adds other mistakes; a default stands for what cannot be read, so that the rest is still checked.
    pub fn add<T: Default>(&mut self, more: ConfigErrors) -> T {
        more.0.iter().for_each(|(key, mistake)| self.push(key, mistake));
        T::default()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value if nothing is wrong.
    ///
    /// # Errors
    /// The mistakes.
    pub fn or<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, mistake)) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(to, "{line_end}{key}: {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads a number that is not zero, for `#[serde(deserialize_with)]`.
///
/// # Errors
/// A text that is no number, or zero.
pub fn positive<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default + PartialEq>(from: D) -> Result<T, D::Error> {
    let number = T::deserialize(from)?;
    if number == T::default() { Err(D::Error::custom("must be at least 1")) } else { Ok(number) }
}

/// Reads a secret of at least 32 bytes, into a `SecretString` or an option of one.
///
/// # Errors
/// A secret that is shorter.
pub fn secret<'de, D: Deserializer<'de>, T: From<SecretString>>(from: D) -> Result<T, D::Error> {
    let secret = SecretString::deserialize(from)?;
    if secret.expose_secret().len() < MIN_SECRET_BYTES {
        return Err(D::Error::custom(format!("is too short: use at least {MIN_SECRET_BYTES} random bytes")));
    }
    Ok(secret.into())
}

/// Reads an http or https URL, into a `String` or an option of one.
///
/// # Errors
/// A text that is no such URL.
pub fn url<'de, D: Deserializer<'de>, T: From<String>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    let is_url = text
        .parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if !is_url {
        return Err(D::Error::custom("is not a URL: write http://host:port or https://host:port"));
    }
    Ok(text.into())
}

/// The value of one key under any of its names, from the environment or a file.
fn read(variables: &HashMap<String, String>, key: &str) -> Result<Option<String>, String> {
    let alone = [key];
    let names = ALIASES.iter().find(|names| names.contains(&key)).map_or(&alone[..], |names| &names[..]);
    let mut found: Option<(String, String)> = None;
    for name in names {
        let file = format!("{name}_FILE");
        let value = match (variables.get(*name), variables.get(&file)) {
            (Some(_), Some(_)) => return Err(format!("{name} and {file} are both set: keep one of them")),
            (Some(value), None) => value.clone(),
            (None, Some(path)) => content(path).map_err(|mistake| format!("{file}: {mistake}"))?,
            (None, None) => continue,
        };
        match &found {
            Some((other, first)) if *first != value => {
                return Err(format!("{other} and {name} are two names of one key and differ: keep one of them"));
            }
            _ => found = Some(((*name).to_owned(), value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

fn content(path: &str) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| format!("cannot read the file: {error}"))?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("the file is larger than {MAX_FILE_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read the file: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("the file is empty".to_owned()),
        value => Ok(value.to_owned()),
    }
}

/// Lets envy read the struct again and again, each time without the key that was wrong, so that all
/// mistakes are told at once.
fn parse<T: DeserializeOwned>(
    mut values: BTreeMap<String, String>,
    mut errors: ConfigErrors,
) -> Result<T, ConfigErrors> {
    let mut filled = Vec::new();
    loop {
        // serde takes one key after the other: the last one taken is the one that it could not use.
        let last = RefCell::new(None);
        let mut rest = values.iter();
        let taken = std::iter::from_fn(|| {
            let next = rest.next().map(|(key, value)| (key.clone(), value.clone()));
            last.replace(next.clone());
            next
        });
        let outcome = envy::from_iter::<_, T>(taken);
        match (outcome, last.into_inner()) {
            (Ok(value), _) => return errors.or(value),
            (Err(envy::Error::MissingValue(field)), _) => {
                let key = field.to_uppercase();
                errors.push(&key, "is not set");
                if values.insert(key.clone(), "0".to_owned()).is_some() {
                    return Err(errors);
                }
                filled.push(key);
            }
            // Our own filling does not fit: what else may be wrong shows when this is mended.
            (Err(_), Some((key, _))) if filled.contains(&key) => return Err(errors),
            (Err(envy::Error::Custom(text)), Some((key, value))) => {
                let cause = text.split(" while parsing value ").next().unwrap_or_default();
                errors.push(&key, &cause.replace(&format!("`{value}`"), "value"));
                values.remove(&key);
            }
            (Err(envy::Error::Custom(text)), None) => {
                errors.push("configuration", &text);
                return Err(errors);
            }
        }
    }
}

/// The keys of a struct: its fields in upper case. Only these are looked up, so that nobody else's
/// `…_FILE` is opened.
pub fn keys_of<T: DeserializeOwned>() -> impl Iterator<Item = String> {
    let mut fields = Fields(&[]);
    // The outcome is always the error that ends the visit; only the names are of interest.
    let _ended = T::deserialize(&mut fields);
    fields.0.iter().map(|field| field.to_uppercase())
}

/// A deserializer that learns the names of a struct's fields and nothing else.
struct Fields(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Fields {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0 = fields;
        Err(Self::Error::custom("only the names were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("a configuration is a flat struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
