//! Every mistake that a manifest can hold is refused, with its line.
use weft_product::Products;

use crate::folders::folder;

/// A manifest without mistakes. Its line numbers stand in the tests.
pub const MANIFEST: &str = r#"slug = "shop"
name = "Shop"
hosts = ["shop.test"]
data_policy = "server_side"
moderation = "off"
on_disconnect = "cancel"
default_plan = "free"

[identity]
credentials = ["password"]
access_ttl_s = 600

[models]
default = "small"
classifier = "small"
roles = { writer = "small" }

[agents]
default = "helper"
available = ["helper", "clerk"]

[features]
export = "taking data out"

[limits]
seats = "people"

[[plans]]
slug = "free"
name = "Free"
requests_per_minute = 10
features = { export = false }
limits = { seats = 1 }

[[plans]]
slug = "paid"
name = "Paid"
requests_per_minute = "unlimited"
features = { export = true }
limits = { seats = "unlimited" }
prices = [{ id = "paid_monthly", amount_minor = 500, currency = "EUR", interval = "month" }]
credits = { initial = 0, daily = 10, micro_credits_per_token = 1 }
models = { default = { writer = "large" }, allowed = ["large"] }

[[credit_packages]]
id = "some"
credits = 10
amount_minor = 100
currency = "EUR"

[model_prices]
small = { input = 150_000, output = 600_000 }
large = { input = 3_000_000, output = 15_000_000 }
"#;

/// What is said about these files, line by line, with the folder's own path taken out.
pub fn complaints(files: &[(&str, &str)]) -> Vec<String> {
    let folder = folder(files);
    let errors = Products::load(Some(folder.path())).unwrap_err();
    let prefix = format!("{}/", folder.path().display());
    errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect()
}

/// What is said when `from` is replaced by `to`.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(MANIFEST.contains(from), "the manifest has no `{from}`");
    complaints(&[("shop.toml", &MANIFEST.replacen(from, to, 1))])
}

macro_rules! refused {
    ($($sentence:ident: $from:expr => $to:expr, $said:expr;)*) => {
        $(
            #[test]
            fn $sentence() {
                assert_eq!(changed($from, $to), [concat!("shop.toml:", $said)]);
            }
        )*
    };
}

refused! {
    broken_syntax_is_refused:
        "name = \"Shop\"" => "name = \"Shop", "2: invalid basic string, expected `\"`";
    an_unknown_key_is_refused:
        "hosts =" => "colour = \"red\"\nhosts =", "3: unknown key `colour`";
    an_unknown_key_of_a_section_is_refused:
        "access_ttl_s" => "acces_ttl_s",
        "11: unknown field `acces_ttl_s`, expected one of `credentials`, `issuers`, `access_ttl_s`, `refresh_ttl_s`, `family_ttl_s`, `redirect_uris`";
    a_wrong_type_is_refused:
        "requests_per_minute = 10" => "requests_per_minute = true",
        "31: invalid type: boolean `true`, expected a number or \"unlimited\"";
    a_fraction_is_refused:
        "amount_minor = 500" => "amount_minor = 4.99",
        "41: invalid type: floating point `4.99`, expected i64";
    another_word_than_unlimited_is_refused:
        "seats = \"unlimited\"" => "seats = \"infinite\"",
        "40: invalid value: string \"infinite\", expected a number or \"unlimited\"";
    an_unknown_way_to_sign_in_is_refused:
        "[\"password\"]" => "[\"pasword\"]",
        "10: unknown variant `pasword`, expected one of `password`, `firebase`, `clerk`, `supabase`, `oidc`";
    a_fallback_without_a_price_is_refused:
        "roles = { writer = \"small\" }" => "roles = { writer = \"small\" }\nfallbacks = { small = [\"spare\"] }",
        "17: model `spare` has no price in [model_prices]";
    a_model_that_stands_in_for_itself_is_refused:
        "roles = { writer = \"small\" }" => "roles = { writer = \"small\" }\nfallbacks = { small = [\"large\", \"small\"] }",
        "17: model `small` cannot stand in for itself";
    a_fallback_twice_is_refused:
        "roles = { writer = \"small\" }" => "roles = { writer = \"small\" }\nfallbacks = { small = [\"large\", \"large\"] }",
        "17: fallback `large` is there twice";
    fallbacks_of_nobody_are_refused:
        "roles = { writer = \"small\" }" => "roles = { writer = \"small\" }\nfallbacks = { small = [] }",
        "17: model `small` has no fallbacks; name one or remove it";
    a_redirect_uri_with_a_wildcard_is_refused:
        "access_ttl_s" => "redirect_uris = [\"https://shop.test/done\", \"https://*.shop.test/done\"]\naccess_ttl_s",
        "11: `https://*.shop.test/done` is no redirect URI; write https://host/path, http://127.0.0.1:port/path or com.example.app:/path";
    a_redirect_uri_in_the_clear_is_refused:
        "access_ttl_s" => "redirect_uris = [\"http://127.0.0.1:8000/done\", \"http://shop.test/done\"]\naccess_ttl_s",
        "11: `http://shop.test/done` is no redirect URI; write https://host/path, http://127.0.0.1:port/path or com.example.app:/path";
    a_redirect_uri_of_everybodys_scheme_is_refused:
        "access_ttl_s" => "redirect_uris = [\"test.shop.app:/done\", \"javascript:alert(1)\"]\naccess_ttl_s",
        "11: `javascript:alert(1)` is no redirect URI; write https://host/path, http://127.0.0.1:port/path or com.example.app:/path";
    a_redirect_uri_twice_is_refused:
        "access_ttl_s" => "redirect_uris = [\"https://shop.test/done\", \"https://shop.test/done\"]\naccess_ttl_s",
        "11: redirect URI `https://shop.test/done` is there twice";
    an_issuer_of_passwords_is_refused:
        "[models]" => "[[identity.issuers]]\nkind = \"password\"\n[models]",
        "14: passwords have no issuer; write clerk, firebase, supabase or oidc";
    an_issuer_of_a_way_that_the_product_does_not_have_is_refused:
        "[models]" => "[[identity.issuers]]\nkind = \"clerk\"\n[models]",
        "14: this way to sign in is not in identity.credentials";
    a_second_issuer_of_a_kind_is_refused:
        "[\"password\"]" => "[\"clerk\"]\nissuers = [{ kind = \"clerk\" }, { kind = \"clerk\" }]",
        "11: this way to sign in has an issuer already";
    an_issuer_that_is_no_url_is_refused:
        "[\"password\"]" => "[\"oidc\"]\nissuers = [{ kind = \"oidc\", issuer = \"issuer.test\" }]",
        "11: `issuer.test` is no URL of an issuer; write https://host/path";
    an_empty_audience_is_refused:
        "[\"password\"]" => "[\"oidc\"]\nissuers = [{ kind = \"oidc\", audiences = [\" \"] }]",
        "11: this is empty; remove it or write what tokens say";
    an_admin_claim_that_people_write_themselves_is_refused:
        "[\"password\"]" => "[\"supabase\"]\nissuers = [{ kind = \"supabase\", admin_claim = \"user_metadata.admin\" }]",
        "11: people write this claim themselves; name one that only the issuer can write";
    an_unknown_key_of_an_issuer_is_refused:
        "[\"password\"]" => "[\"oidc\"]\nissuers = [{ kind = \"oidc\", secret = \"x\" }]",
        "11: unknown field `secret`, expected one of `kind`, `issuer`, `jwks_url`, `audiences`, `authorized_parties`, `admin_claim`, `link_by_email`";
    an_unknown_data_policy_is_refused:
        "\"server_side\"" => "\"plaintext\"",
        "4: unknown variant `plaintext`, expected one of `zero_plaintext`, `session_only`, `server_side`";
    a_list_that_is_not_one_is_refused:
        "[[credit_packages]]" => "[credit_packages]",
        "45: invalid type: table, expected a list of tables, `[[credit_packages]]`";

    a_default_plan_that_does_not_exist_is_refused:
        "default_plan = \"free\"" => "default_plan = \"gratis\"", "7: default_plan `gratis` is none of the plans";
    a_default_agent_that_does_not_exist_is_refused:
        "default = \"helper\"" => "default = \"butler\"", "19: agent `butler` is not in agents.available";
    a_configured_agent_that_is_not_available_is_refused:
        "[features]" => "[[agents.configured]]\nname = \"butler\"\ndescription = \"Serves tea.\"\n[features]",
        "23: agent `butler` is not in agents.available";
    an_agent_that_calls_itself_is_refused:
        "[features]" => "[agents.calls]\nhelper = [\"helper\"]\n[features]", "23: agent `helper` cannot call itself";
    a_called_agent_that_is_not_available_is_refused:
        "[features]" => "[agents.calls]\nhelper = [\"butler\"]\n[features]",
        "23: agent `butler` is not in agents.available";
    a_role_that_does_not_exist_is_refused:
        "{ writer = \"large\" }" => "{ reader = \"large\" }", "43: role `reader` is not declared in [models.roles]";
    a_model_that_the_plan_does_not_allow_is_refused:
        "allowed = [\"large\"]" => "allowed = [\"small\"]", "43: model `large` is not among the plan's allowed models";
    a_feature_that_is_not_declared_is_refused:
        "{ export = false }" => "{ export = false, import = true }", "32: feature `import` is not declared in [features]";
    a_limit_that_is_not_declared_is_refused:
        "{ seats = 1 }" => "{ seats = 1, chairs = 2 }", "33: limit `chairs` is not declared in [limits]";
    a_plan_without_a_value_for_a_feature_is_refused:
        "features = { export = false }" => "", "29: plan `free` gives no value for feature `export`";
    a_plan_without_a_value_for_a_limit_is_refused:
        "{ seats = 1 }" => "{}", "29: plan `free` gives no value for limit `seats`";

    a_plan_twice_is_refused:
        "slug = \"paid\"" => "slug = \"free\"", "36: plan `free` is there twice";
    an_agent_twice_is_refused:
        "\"clerk\"]" => "\"helper\"]", "20: agent `helper` is there twice";
    a_second_price_for_one_interval_is_refused:
        "interval = \"month\" }]" => "interval = \"month\" }, { id = \"again\", amount_minor = 600, currency = \"EUR\", interval = \"month\" }]",
        "41: a plan has one price for each currency and interval";
    a_price_whose_default_id_is_taken_is_refused:
        "interval = \"month\" }]" => "interval = \"month\" }, { amount_minor = 600, currency = \"USD\", interval = \"month\" }]",
        "41: price `paid_monthly` is there twice";
    a_way_to_sign_in_twice_is_refused:
        "[\"password\"]" => "[\"password\", \"password\"]", "10: this way to sign in is named twice";

    a_negative_limit_is_refused:
        "{ seats = 1 }" => "{ seats = -1 }", "33: seats is -1; it must be between 0 and 1000000000000000";
    a_negative_price_is_refused:
        "amount_minor = 500" => "amount_minor = -500", "41: amount_minor is -500; it must be between 1 and 1000000000000000";
    a_negative_price_of_a_model_is_refused:
        "input = 150_000" => "input = -1", "52: input is -1; it must be between 0 and 1000000000";
    a_price_of_a_model_that_cannot_be_meant_is_refused:
        "output = 15_000_000" => "output = 1_000_000_001",
        "53: output is 1000000001; it must be between 0 and 1000000000";
    a_model_without_a_price_is_refused_where_it_is_first_named:
        "small = {" => "smal = {", "14: model `small` has no price in [model_prices]";
    a_model_of_a_plan_without_a_price_is_refused:
        "large = {" => "lage = {", "43: model `large` has no price in [model_prices]";
    a_price_without_one_of_its_halves_is_refused:
        ", output = 600_000" => "", "52: missing field `output`";
    an_unknown_key_of_a_price_is_refused:
        "input = 150_000" => "input = 150_000, cached = 1",
        "52: unknown field `cached`, expected `input` or `output`";
    a_price_of_nothing_is_refused:
        "amount_minor = 100" => "amount_minor = 0", "48: amount_minor is 0; it must be between 1 and 1000000000000000";
    a_negative_bonus_is_refused:
        "interval = \"month\"" => "interval = \"month\", bonus_credits = -1",
        "41: bonus_credits is -1; it must be between 0 and 1000000000000000";
    negative_daily_credits_are_refused:
        "daily = 10" => "daily = -10", "42: daily is -10; it must be between 0 and 1000000000000000";
    a_package_of_nothing_is_refused:
        "credits = 10\n" => "credits = 0\n", "47: credits is 0; it must be between 1 and 1000000000000000";
    a_rate_of_nothing_is_refused:
        "requests_per_minute = 10" => "requests_per_minute = 0",
        "31: requests_per_minute is 0; it must be between 1 and 1000000";
    a_number_out_of_64_bits_is_refused:
        "amount_minor = 500" => "amount_minor = 9223372036854775808",
        "41: invalid value: integer `9223372036854775808`, expected i64";
    a_life_of_nothing_is_refused:
        "access_ttl_s = 600" => "access_ttl_s = 0", "11: access_ttl_s is 0; it must be between 1 and 315360000";
    an_access_token_that_outlives_its_refresh_token_is_refused:
        "access_ttl_s = 600" => "access_ttl_s = 600\nrefresh_ttl_s = 60",
        "10: lives must not shrink from access_ttl_s (600) over refresh_ttl_s (60) to family_ttl_s (7776000)";

    a_currency_that_does_not_exist_is_refused:
        "currency = \"EUR\", interval" => "currency = \"EUD\", interval", "41: `EUD` is not an ISO 4217 currency code such as EUR";
    a_currency_in_lower_case_is_refused:
        "currency = \"EUR\"\n" => "currency = \"eur\"\n", "49: `eur` is not an ISO 4217 currency code such as EUR";
    a_slug_with_a_space_is_refused:
        "slug = \"shop\"" => "slug = \"my shop\"", "1: slug `my shop` must be 1 to 64 lower-case letters, digits, `-` or `_`";
    a_host_with_a_port_is_refused:
        "shop.test" => "shop.test:80", "3: `shop.test:80` is not a host name; write it in lower case and without a port";
    a_product_without_a_name_is_refused:
        "\"Shop\"" => "\" \"", "2: name is empty";
    a_product_without_a_way_to_sign_in_is_refused:
        "[\"password\"]" => "[]", "10: identity.credentials is empty; name at least one way to sign in";
    a_session_policy_without_its_life_is_refused:
        "\"server_side\"" => "\"session_only\"", "4: data_policy `session_only` needs `session_ttl_s`";
    a_life_of_sessions_without_sessions_is_refused:
        "moderation =" => "session_ttl_s = 60\nmoderation =",
        "5: `session_ttl_s` has a meaning only with data_policy `session_only`; remove it";
}

#[test]
fn a_plan_without_its_rate_is_refused_at_that_plan() {
    let said = changed("requests_per_minute = \"unlimited\"\n", "");
    assert_eq!(said, ["shop.toml:35: missing field `requests_per_minute`"]);
}

#[test]
fn a_product_without_plans_is_refused() {
    let from = MANIFEST.find("[[plans]]").unwrap();
    let to = MANIFEST.find("[[credit_packages]]").unwrap();
    let without = format!("{}{}", &MANIFEST[..from], &MANIFEST[to..]);
    assert_eq!(complaints(&[("shop.toml", &without)]), ["shop.toml:7: default_plan `free` is none of the plans"]);
}

#[test]
fn the_mistakes_of_several_sections_are_told_at_once() {
    let text = MANIFEST
        .replacen("hosts = [\"shop.test\"]", "hosts = \"shop.test\"", 1)
        .replacen("classifier", "clasifier", 1)
        .replacen("requests_per_minute = 10", "requests_per_minute = []", 1)
        .replacen("name = \"Paid\"", "name = 5", 1);
    let said = complaints(&[("shop.toml", &text)]);
    let lines: Vec<&str> = said.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(lines, ["shop.toml:3", "shop.toml:15", "shop.toml:31", "shop.toml:37"], "{said:#?}");
}

#[test]
fn the_senseless_numbers_of_several_plans_are_told_at_once() {
    let text = MANIFEST.replacen("{ seats = 1 }", "{ seats = -5 }", 1).replacen(
        "amount_minor = 500, currency = \"EUR\"",
        "amount_minor = 0, currency = \"Euro\"",
        1,
    );
    let said = complaints(&[("shop.toml", &text)]);
    assert_eq!(said.len(), 3, "{said:#?}");
}

#[test]
fn an_empty_file_is_told_everything_that_is_missing() {
    let said = complaints(&[("shop.toml", "")]);
    assert_eq!(said.len(), 10, "{said:#?}");
    assert!(said.iter().all(|line| line.starts_with("shop.toml:1: missing key `")), "{said:#?}");
}
