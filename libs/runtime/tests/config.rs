//! Configuration from variables and files.
use secrecy::SecretString;
use serde::Deserialize;
use weft_runtime::config::load_from;
use weft_runtime::{Environment, JwtAlgorithm, LogFormat, MeshConfig};

#[derive(Debug, Deserialize)]
struct Config {
    database_url: String,
    jwt_secret: Option<SecretString>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    env: Environment,
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
    load_from(variables(pairs)).map_err(|errors| errors.to_string())
}

#[test]
fn a_flat_struct_is_read_from_the_environment() {
    let config = load(&[
        ("DATABASE_URL", "sqlite:///x.db"),
        ("ATTEMPTS", "3"),
        ("STRICT", "true"),
        ("ENV", "staging"),
        ("HOME", "/root"),
    ]);
    let config = config.unwrap();
    assert_eq!((config.database_url.as_str(), config.attempts, config.strict), ("sqlite:///x.db", 3, true));
    assert_eq!(config.env, Environment::Staging);
    assert!(config.jwt_secret.is_none());
}

#[test]
fn a_key_may_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "postgres://db/x\n").unwrap();
    let config = load(&[("DATABASE_URL_FILE", path.to_str().unwrap())]).unwrap();
    assert_eq!(config.database_url, "postgres://db/x");
}

#[test]
fn a_file_that_is_not_there_or_is_empty_is_named_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let missing = load(&[("DATABASE_URL_FILE", "/no/such/file")]).unwrap_err();
    assert!(missing.starts_with("DATABASE_URL: DATABASE_URL_FILE: cannot read the file: "), "{missing}");
    let path = folder.path().join("empty");
    std::fs::write(&path, "\n").unwrap();
    let empty = load(&[("DATABASE_URL_FILE", path.to_str().unwrap())]).unwrap_err();
    assert_eq!(empty, "DATABASE_URL: DATABASE_URL_FILE: the file is empty");
}

#[test]
fn a_key_and_its_file_together_are_refused() {
    let error = load(&[("DATABASE_URL", "a"), ("DATABASE_URL_FILE", "/no/such/file")]).unwrap_err();
    assert_eq!(error, "DATABASE_URL: DATABASE_URL and DATABASE_URL_FILE are both set: keep one of them");
}

#[test]
fn a_file_that_nobody_asked_for_is_not_opened() {
    assert!(
        load(&[("DATABASE_URL", "a"), ("SSL_CERT_FILE", "/no/such/file"), ("OTHER_KEY_FILE", "/no/such/file")]).is_ok()
    );
}

#[test]
fn either_name_of_a_key_is_read() {
    for name in ["ENV", "ENVIRONMENT"] {
        assert_eq!(load(&[("DATABASE_URL", "a"), (name, "production")]).unwrap().env, Environment::Prod, "{name}");
    }
}

#[test]
fn two_names_of_a_key_may_agree_but_not_differ() {
    assert!(load(&[("DATABASE_URL", "a"), ("ENV", "test"), ("ENVIRONMENT", "test")]).is_ok());
    let error = load(&[("DATABASE_URL", "a"), ("ENV", "hunter2"), ("ENVIRONMENT", "hunter3")]).unwrap_err();
    assert_eq!(error, "ENV: ENV and ENVIRONMENT are two names of one key and differ: keep one of them");
}

#[test]
fn an_empty_value_is_none() {
    let config = load(&[("DATABASE_URL", "a"), ("ATTEMPTS", ""), ("JWT_SECRET", ""), ("JWT_SECRET_FILE", "")]).unwrap();
    assert_eq!(config.attempts, 0);
    assert!(config.jwt_secret.is_none());
}

#[test]
fn every_mistake_is_told_at_once_with_its_key() {
    let error = load(&[("ATTEMPTS", "many"), ("STRICT", "perhaps"), ("ENV", "moon")]).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "ATTEMPTS: invalid digit found in string");
    assert_eq!(lines[1], "DATABASE_URL: is not set");
    assert!(lines[2].starts_with("ENV: unknown variant value, expected one of "), "{}", lines[2]);
    assert_eq!(lines[3], "STRICT: provided string was not `true` or `false`");
    assert_eq!(lines.len(), 4);
}

#[test]
fn a_mistake_never_repeats_the_value() {
    let error =
        load(&[("DATABASE_URL", "a"), ("ATTEMPTS", "hunter2"), ("STRICT", "hunter3"), ("ENV", "hunter4")]).unwrap_err();
    assert!(!error.contains("hunter"), "{error}");
}

#[test]
fn the_mesh_has_defaults_for_all_it_needs() {
    let config: MeshConfig = load_from([]).unwrap();
    assert_eq!(config.env, Environment::Dev);
    assert_eq!(config.weft_log_format, LogFormat::Auto);
    assert_eq!(config.url_of("billing"), Some("http://127.0.0.1:9002"));
    assert_eq!(config.url_of("nobody"), None);
    assert_eq!((config.weft_request_timeout_ms, config.max_message_bytes()), (30_000, 4 * 1024 * 1024));
}

#[test]
fn the_mesh_refuses_what_it_cannot_use() {
    let pairs = [
        ("WEFT_BILLING_URL", "billing:9002"),
        ("WEFT_SERVICE_SECRET", "short"),
        ("WEFT_MAX_IN_FLIGHT", "0"),
        ("WEFT_REQUEST_TIMEOUT_MS", "30s"),
        ("WEFT_LOG_FORMAT", "xml"),
    ];
    let error = load_from::<MeshConfig>(variables(&pairs)).unwrap_err().to_string();
    for expected in [
        "WEFT_BILLING_URL: is not a URL: write http://host:port or https://host:port",
        "WEFT_SERVICE_SECRET: is too short: use at least 32 random bytes",
        "WEFT_MAX_IN_FLIGHT: must be at least 1",
        "WEFT_REQUEST_TIMEOUT_MS: invalid digit found in string",
        "WEFT_LOG_FORMAT: unknown variant value, expected one of `auto`, `json`, `pretty`",
    ] {
        assert!(error.lines().any(|line| line == expected), "{expected} is not in:\n{error}");
    }
}

#[test]
fn a_secret_is_not_shown() {
    let secret = "0123456789abcdef0123456789abcdef";
    let config: MeshConfig = load_from(variables(&[("WEFT_SERVICE_SECRET", secret)])).unwrap();
    assert!(!format!("{config:?}").contains(secret));
}

#[test]
fn a_jwt_secret_signs_unless_another_algorithm_is_named() {
    let read = |pairs: &[(&str, &str)]| load_from::<MeshConfig>(variables(pairs));
    let secret = ("JWT_SECRET", "a secret of at least thirty-two bytes");
    assert!(read(&[]).unwrap().shared_secret().is_none());
    assert!(read(&[secret]).unwrap().shared_secret().is_some());
    let both = read(&[secret, ("JWT_ALGORITHM", "HS256")]).unwrap();
    assert_eq!((both.jwt_algorithm, both.shared_secret().is_some()), (Some(JwtAlgorithm::HS256), true));
    assert!(read(&[secret, ("JWT_ALGORITHM", "EdDSA")]).unwrap().shared_secret().is_none());
    let alone = read(&[("JWT_ALGORITHM", "HS256")]).unwrap();
    assert!(alone.check().unwrap_err().to_string().starts_with("JWT_SECRET: is not set"));
    assert!(alone.shared_secret().is_none() && both.check().is_ok());
    for (key, value) in [("JWT_ALGORITHM", "none"), ("JWT_ALGORITHM", "RS256"), ("JWT_SECRET", "short")] {
        let errors = read(&[(key, value)]).unwrap_err().to_string();
        assert!(errors.starts_with(key) && !errors.contains("short,"), "{errors}");
    }
}
