//! A manifest's sense: names that lead somewhere, numbers that can be meant, nothing twice, nothing missing.
mod identity;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use crate::manifest::{
    Manifest, Mistakes, Name, RawAgents, RawConfiguredAgent, RawCredits, RawDataPolicy, RawModelPrice, RawModels,
    RawPackage, RawPlan, RawPlanModels, RawPrice,
};
use crate::product::{
    Agents, ConfiguredAgent, CreditPackage, DataPolicy, Interval, Limit, ModelPrice, Models, Plan, PlanCredits,
    PlanModels, Price, Product,
};

/// The largest amount of anything: a million cents a million times over, far from the end of 64 bits.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;
/// The highest rate that the edge counts.
const REQUESTS_PER_MINUTE_MAX: i64 = 1_000_000;
/// The longest life of anything: ten years, in seconds.
const TTL_MAX_S: i64 = 10 * 365 * 24 * 3600;
/// The highest price of a million tokens: a thousand dollars, in millionths of one.
const MODEL_PRICE_MAX: i64 = 1_000_000_000;
const NAME_MAX: usize = 64;
const HOST_MAX: usize = 253;

/// The currencies in use, ISO 4217 list one, without funds, metals and test codes.
const CURRENCIES: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN \
    BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ \
    GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL \
    LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN \
    PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD \
    TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// The product that a manifest describes. None, with every mistake noted, if there is one.
pub fn product(raw: Manifest, hash: String, mistakes: &mut Mistakes) -> Option<Product> {
    let slug = name(raw.slug, "slug", mistakes);
    let title = text(raw.name, "name", mistakes);
    let hosts = hosts(raw.hosts, mistakes);
    let data_policy = data_policy(&raw.data_policy, raw.session_ttl_s.as_ref(), mistakes);
    let identity = identity::identity(&raw.identity, mistakes);
    every_model_has_a_price(&raw.models, &raw.plans, &raw.model_prices, mistakes);
    let model_prices = model_prices(raw.model_prices, mistakes);
    let models = Models {
        default: text(raw.models.default, "models.default", mistakes),
        classifier: text(raw.models.classifier, "models.classifier", mistakes),
        roles: texts(raw.models.roles, "role", mistakes),
        fallbacks: fallbacks(raw.models.fallbacks, mistakes),
        embedding: raw.models.embedding.map(|model| text(model, "models.embedding", mistakes)),
    };
    let agents = agents(raw.agents, mistakes);
    let features = texts(raw.features, "feature", mistakes);
    let limits = texts(raw.limits, "limit", mistakes);

    known_default_plan(&raw.default_plan, &raw.plans, mistakes);
    nothing_twice(&raw.plans, &raw.credit_packages, mistakes);
    let declared = Declared { features: &features, limits: &limits, roles: &models.roles };
    let plans = raw.plans.into_iter().map(|raw| plan(raw, &declared, mistakes)).collect();
    let credit_packages = raw.credit_packages.into_iter().map(|raw| package(raw, mistakes)).collect();

    mistakes.none().then(|| Product {
        slug,
        name: title,
        hosts,
        data_policy,
        moderation: raw.moderation,
        on_disconnect: raw.on_disconnect,
        default_plan: raw.default_plan.into_inner(),
        identity,
        models,
        model_prices,
        agents,
        features,
        limits,
        plans,
        credit_packages,
        hash,
    })
}

/// The names that plans may use.
struct Declared<'a> {
    features: &'a BTreeMap<String, String>,
    limits: &'a BTreeMap<String, String>,
    roles: &'a BTreeMap<String, String>,
}

fn data_policy(kind: &Spanned<RawDataPolicy>, ttl_s: Option<&Spanned<i64>>, mistakes: &mut Mistakes) -> DataPolicy {
    match (kind.get_ref(), ttl_s) {
        (RawDataPolicy::SessionOnly, Some(ttl_s)) => {
            DataPolicy::SessionOnly { ttl_s: number(ttl_s, "session_ttl_s", 1..=TTL_MAX_S, mistakes) }
        }
        (RawDataPolicy::SessionOnly, None) => {
            mistakes.at(kind.span(), "data_policy `session_only` needs `session_ttl_s`");
            DataPolicy::SessionOnly { ttl_s: 0 }
        }
        (other, ttl_s) => {
            if let Some(ttl_s) = ttl_s {
                mistakes
                    .at(ttl_s.span(), "`session_ttl_s` has a meaning only with data_policy `session_only`; remove it");
            }
            match other {
                RawDataPolicy::ServerSide => DataPolicy::ServerSide,
                _ => DataPolicy::ZeroPlaintext,
            }
        }
    }
}

/// A model without a price would be free, and nobody would notice: each one that the manifest names has a price,
/// even if it is 0. Told where the model is first named.
fn every_model_has_a_price(
    models: &RawModels,
    plans: &[RawPlan],
    prices: &BTreeMap<Name, RawModelPrice>,
    mistakes: &mut Mistakes,
) {
    let of_product =
        [&models.default, &models.classifier].into_iter().chain(&models.embedding).chain(models.roles.values());
    let of_plans = plans.iter().flat_map(|plan| plan.models.default.values().chain(&plan.models.allowed));
    let of_fallbacks = models.fallbacks.iter().flat_map(|(model, others)| std::iter::once(model).chain(others));
    let mut missing = BTreeSet::new();
    for model in of_product.chain(of_fallbacks).chain(of_plans) {
        let empty = model.get_ref().trim().is_empty();
        if !empty && !prices.contains_key(model.get_ref().as_str()) && missing.insert(model.get_ref()) {
            mistakes.at(model.span(), format!("model `{}` has no price in [model_prices]", model.get_ref()));
        }
    }
}

/// Who stands in for whom: somebody else, and nobody twice.
fn fallbacks(raw: BTreeMap<Name, Vec<Name>>, mistakes: &mut Mistakes) -> BTreeMap<String, Vec<String>> {
    let mut fallbacks = BTreeMap::new();
    for (model, others) in raw {
        unique(&others, "fallback", mistakes);
        if others.is_empty() {
            mistakes.at(model.span(), format!("model `{}` has no fallbacks; name one or remove it", model.get_ref()));
        }
        for other in others.iter().filter(|other| other.get_ref() == model.get_ref()) {
            mistakes.at(other.span(), format!("model `{}` cannot stand in for itself", model.get_ref()));
        }
        let others = others.into_iter().map(|other| text(other, "fallback", mistakes)).collect();
        fallbacks.insert(text(model, "model", mistakes), others);
    }
    fallbacks
}

fn model_prices(raw: BTreeMap<Name, RawModelPrice>, mistakes: &mut Mistakes) -> BTreeMap<String, ModelPrice> {
    let mut prices = BTreeMap::new();
    for (model, raw) in raw {
        let price = ModelPrice {
            input: number(&raw.input, "input", 0..=MODEL_PRICE_MAX, mistakes),
            output: number(&raw.output, "output", 0..=MODEL_PRICE_MAX, mistakes),
        };
        prices.insert(text(model, "model", mistakes), price);
    }
    prices
}

fn agents(raw: RawAgents, mistakes: &mut Mistakes) -> Agents {
    if !raw.available.contains(&raw.default) {
        mistakes.at(raw.default.span(), format!("agent `{}` is not in agents.available", raw.default.get_ref()));
    }
    unique(&raw.available, "agent", mistakes);
    unique(raw.configured.iter().map(|agent| &agent.name), "configured agent", mistakes);
    let names = || raw.configured.iter().map(|agent| &agent.name).chain(raw.calls.keys());
    for agent in names().chain(raw.calls.values().flatten()) {
        if !raw.available.contains(agent) {
            mistakes.at(agent.span(), format!("agent `{}` is not in agents.available", agent.get_ref()));
        }
    }
    for (agent, others) in &raw.calls {
        unique(others, "called agent", mistakes);
        for other in others.iter().filter(|other| other.get_ref() == agent.get_ref()) {
            mistakes.at(other.span(), format!("agent `{}` cannot call itself", agent.get_ref()));
        }
    }
    let called = |(agent, others): (Name, Vec<Name>)| {
        (agent.into_inner(), others.into_iter().map(Spanned::into_inner).collect())
    };
    Agents {
        default: raw.default.into_inner(),
        available: raw.available.into_iter().map(|agent| name(agent, "agent", mistakes)).collect(),
        configured: raw.configured.into_iter().map(|agent| configured_agent(agent, mistakes)).collect(),
        calls: raw.calls.into_iter().map(called).collect(),
    }
}

/// Its prompt is called as it is, unless the manifest says otherwise.
fn configured_agent(raw: RawConfiguredAgent, mistakes: &mut Mistakes) -> ConfiguredAgent {
    let prompt = raw.prompt.map(|prompt| name(prompt, "prompt", mistakes));
    let name = raw.name.into_inner();
    ConfiguredAgent {
        prompt: prompt.unwrap_or_else(|| name.clone()),
        name,
        description: text(raw.description, "description", mistakes),
    }
}

fn hosts(raw: Vec<Name>, mistakes: &mut Mistakes) -> Vec<String> {
    for host in &raw {
        let name = host.get_ref();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if name.is_empty() || name.len() > HOST_MAX || !name.bytes().all(allowed) {
            mistakes.at(host.span(), format!("`{name}` is not a host name; write it in lower case and without a port"));
        }
    }
    raw.into_iter().map(Spanned::into_inner).collect()
}

fn known_default_plan(default: &Name, plans: &[RawPlan], mistakes: &mut Mistakes) {
    if !plans.iter().any(|plan| plan.slug == *default) {
        mistakes.at(default.span(), format!("default_plan `{}` is none of the plans", default.get_ref()));
    }
}

/// Plans, prices and packages are bought by name: no name can mean two things.
fn nothing_twice(plans: &[RawPlan], packages: &[RawPackage], mistakes: &mut Mistakes) {
    unique(plans.iter().map(|plan| &plan.slug), "plan", mistakes);
    unique(packages.iter().map(|package| &package.id), "credit package", mistakes);
    let mut seen = BTreeSet::new();
    for (plan, price) in plans.iter().flat_map(|plan| plan.prices.iter().map(move |price| (plan, price))) {
        let (id, at) = match &price.id {
            Some(id) => (id.get_ref().clone(), id.span()),
            None => (default_price_id(plan.slug.get_ref(), *price.interval.get_ref()), price.interval.span()),
        };
        if !seen.insert(id.clone()) {
            mistakes.at(at, format!("price `{id}` is there twice"));
        }
    }
}

/// The id of a price that is given none: `pro_monthly`.
pub fn default_price_id(plan: &str, interval: Interval) -> String {
    match interval {
        Interval::Month => format!("{plan}_monthly"),
        Interval::Year => format!("{plan}_yearly"),
    }
}

fn plan(raw: RawPlan, declared: &Declared, mistakes: &mut Mistakes) -> Plan {
    let slug_at = raw.slug.span();
    let slug = name(raw.slug, "plan", mistakes);
    complete("feature", &slug, &slug_at, declared.features, raw.features.keys(), mistakes);
    complete("limit", &slug, &slug_at, declared.limits, raw.limits.keys(), mistakes);
    let limits = raw
        .limits
        .into_iter()
        .map(|(key, value)| {
            let limit = limit(&value, key.get_ref(), 0..=AMOUNT_MAX, mistakes);
            (key.into_inner(), limit)
        })
        .collect();
    Plan {
        slug,
        name: text(raw.name, "name", mistakes),
        prices: prices(raw.prices, mistakes),
        features: raw.features.into_iter().map(|(key, value)| (key.into_inner(), value)).collect(),
        limits,
        requests_per_minute: limit(
            &raw.requests_per_minute,
            "requests_per_minute",
            1..=REQUESTS_PER_MINUTE_MAX,
            mistakes,
        ),
        requests_per_seat: raw.requests_per_seat,
        credits: raw.credits.as_ref().map(|raw| credits(raw, mistakes)),
        models: plan_models(raw.models, declared.roles, mistakes),
    }
}

/// A plan gives a value for everything that is declared, and for nothing else.
fn complete<'a>(
    what: &str,
    plan: &str,
    plan_at: &Range<usize>,
    declared: &BTreeMap<String, String>,
    given: impl Iterator<Item = &'a Name>,
    mistakes: &mut Mistakes,
) {
    let mut missing: BTreeSet<&str> = declared.keys().map(String::as_str).collect();
    for key in given {
        if !declared.contains_key(key.get_ref()) {
            mistakes.at(key.span(), format!("{what} `{}` is not declared in [{what}s]", key.get_ref()));
        }
        missing.remove(key.get_ref().as_str());
    }
    for key in missing {
        mistakes.at(plan_at.clone(), format!("plan `{plan}` gives no value for {what} `{key}`"));
    }
}

fn prices(raw: Vec<RawPrice>, mistakes: &mut Mistakes) -> Vec<Price> {
    let mut seen = BTreeSet::new();
    let mut prices = Vec::new();
    for raw in raw {
        if !seen.insert((raw.currency.get_ref().clone(), *raw.interval.get_ref())) {
            mistakes.at(raw.interval.span(), "a plan has one price for each currency and interval");
        }
        prices.push(Price {
            amount_minor: number(&raw.amount_minor, "amount_minor", 1..=AMOUNT_MAX, mistakes),
            currency: currency(raw.currency, mistakes),
            interval: raw.interval.into_inner(),
            per_seat: raw.per_seat,
            id: raw.id.map(|id| name(id, "price", mistakes)),
            bonus_credits: raw
                .bonus_credits
                .map_or(0, |bonus| number(&bonus, "bonus_credits", 0..=AMOUNT_MAX, mistakes)),
        });
    }
    prices
}

fn credits(raw: &RawCredits, mistakes: &mut Mistakes) -> PlanCredits {
    PlanCredits {
        initial: number(&raw.initial, "initial", 0..=AMOUNT_MAX, mistakes),
        daily: number(&raw.daily, "daily", 0..=AMOUNT_MAX, mistakes),
        micro_credits_per_token: number(
            &raw.micro_credits_per_token,
            "micro_credits_per_token",
            0..=AMOUNT_MAX,
            mistakes,
        ),
    }
}

fn plan_models(raw: RawPlanModels, roles: &BTreeMap<String, String>, mistakes: &mut Mistakes) -> PlanModels {
    unique(&raw.allowed, "model", mistakes);
    for (role, model) in &raw.default {
        if !roles.contains_key(role.get_ref()) {
            mistakes.at(role.span(), format!("role `{}` is not declared in [models.roles]", role.get_ref()));
        }
        if !raw.allowed.is_empty() && !raw.allowed.contains(model) {
            mistakes.at(model.span(), format!("model `{}` is not among the plan's allowed models", model.get_ref()));
        }
    }
    PlanModels {
        default: texts(raw.default, "role", mistakes),
        allowed: raw.allowed.into_iter().map(|model| text(model, "model", mistakes)).collect(),
    }
}

fn package(raw: RawPackage, mistakes: &mut Mistakes) -> CreditPackage {
    CreditPackage {
        id: name(raw.id, "credit package", mistakes),
        credits: number(&raw.credits, "credits", 1..=AMOUNT_MAX, mistakes),
        amount_minor: number(&raw.amount_minor, "amount_minor", 1..=AMOUNT_MAX, mistakes),
        currency: currency(raw.currency, mistakes),
        label: raw.label.map(|label| text(label, "label", mistakes)),
    }
}

/// A number of `range`.
fn number(raw: &Spanned<i64>, key: &str, range: RangeInclusive<i64>, mistakes: &mut Mistakes) -> i64 {
    let value = *raw.get_ref();
    if !range.contains(&value) {
        mistakes.at(raw.span(), format!("{key} is {value}; it must be between {} and {}", range.start(), range.end()));
    }
    value
}

fn limit(raw: &Spanned<Limit>, key: &str, range: RangeInclusive<i64>, mistakes: &mut Mistakes) -> Limit {
    if let Limit::At(value) = *raw.get_ref() {
        number(&Spanned::new(raw.span(), value), key, range, mistakes);
    }
    *raw.get_ref()
}

/// Whether this is the ISO 4217 code, in upper case, of a currency in use.
pub fn is_currency(code: &str) -> bool {
    CURRENCIES.split_ascii_whitespace().any(|known| known == code)
}

fn currency(raw: Name, mistakes: &mut Mistakes) -> String {
    if !is_currency(raw.get_ref()) {
        mistakes.at(raw.span(), format!("`{}` is not an ISO 4217 currency code such as EUR", raw.get_ref()));
    }
    raw.into_inner()
}

/// Text that somebody will read or look up: not empty.
fn text(raw: Name, key: &str, mistakes: &mut Mistakes) -> String {
    if raw.get_ref().trim().is_empty() {
        mistakes.at(raw.span(), format!("{key} is empty"));
    }
    raw.into_inner()
}

fn texts(raw: BTreeMap<Name, Name>, what: &str, mistakes: &mut Mistakes) -> BTreeMap<String, String> {
    raw.into_iter().map(|(key, value)| (name(key, what, mistakes), text(value, what, mistakes))).collect()
}

/// A name that stands in tables, tokens and paths.
fn name(raw: Name, what: &str, mistakes: &mut Mistakes) -> String {
    let value = raw.get_ref();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if value.is_empty() || value.len() > NAME_MAX || !value.bytes().all(allowed) {
        let message = format!("{what} `{value}` must be 1 to {NAME_MAX} lower-case letters, digits, `-` or `_`");
        mistakes.at(raw.span(), message);
    }
    raw.into_inner()
}

fn unique<'a>(names: impl IntoIterator<Item = &'a Name>, what: &str, mistakes: &mut Mistakes) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.get_ref()) {
            mistakes.at(name.span(), format!("{what} `{}` is there twice", name.get_ref()));
        }
    }
}
