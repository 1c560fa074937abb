//! What a product is, once its manifest has been read and found without mistakes.
use std::collections::BTreeMap;

use serde::Deserialize;

/// One product. Plans and numbers here are the seed: billing's tables are the truth about what an account may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Name in tokens, tables and `x-weft-product`: lower case letters, digits, `-` and `_`.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// Host names, lower case and without a port, that mean this product.
    pub hosts: Vec<String>,
    /// What may be kept of what users say.
    pub data_policy: DataPolicy,
    /// What happens to a model's words before they reach the user.
    pub moderation: Moderation,
    /// What happens to an answer whose reader has gone.
    pub on_disconnect: OnDisconnect,
    /// Slug of the plan that a new account is on.
    pub default_plan: String,
    /// How people sign in and how long that lasts.
    pub identity: Identity,
    /// Which models answer.
    pub models: Models,
    /// What models cost: alias or name -> price. Has every model that the manifest names.
    pub model_prices: BTreeMap<String, ModelPrice>,
    /// Which agents exist.
    pub agents: Agents,
    /// What a plan may include: name -> what it is.
    pub features: BTreeMap<String, String>,
    /// What a plan counts: name -> what is counted.
    pub limits: BTreeMap<String, String>,
    /// Every plan, in the manifest's order. Each has a value for every feature and every limit.
    pub plans: Vec<Plan>,
    /// Credits that can be bought once, in the manifest's order.
    pub credit_packages: Vec<CreditPackage>,
    /// SHA-256 of the manifest's bytes, in lower-case hex.
    pub hash: String,
}

impl Product {
    /// The plan with this slug.
    pub fn plan(&self, slug: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.slug == slug)
    }
}

/// What may be kept of what users say. An enum, because it chooses a code path: a switch could be left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPolicy {
    /// No word of a user reaches a table, a file, Redis, a log or a trace.
    ZeroPlaintext,
    /// A conversation lives for a while and is then gone.
    SessionOnly {
        /// How long after its last message, in seconds.
        ttl_s: i64,
    },
    /// Conversations are stored.
    ServerSide,
}

/// What happens to a model's words before they reach the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moderation {
    /// Text is held back until it has been judged.
    HoldBack,
    /// Text is passed on.
    Off,
}

/// What happens to an answer whose reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The model is stopped; what was delivered is paid.
    Cancel,
    /// The answer is finished, so that the reader can come back for it.
    Continue,
}

/// How people sign in and how long that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Ways to sign in; every other one is refused. At least one.
    pub credentials: Vec<CredentialKind>,
    /// The issuers of those ways that are not passwords.
    pub issuers: Vec<Issuer>,
    /// Life of an access token, in seconds.
    pub access_ttl_s: i64,
    /// Life of a refresh token, in seconds.
    pub refresh_ttl_s: i64,
    /// Life of a sign-in, however often it is refreshed, in seconds.
    pub family_ttl_s: i64,
    /// Where an identity provider may send people back to, besides the pages of the operator's app. Each as it is.
    pub redirect_uris: Vec<String>,
}

/// An issuer whose tokens sign people in. What is not given here, an operator gives in the environment, which also wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// What kind of issuer it is; never `password`. Each kind is there once.
    pub kind: CredentialKind,
    /// The `iss` of its tokens, exactly.
    pub issuer: Option<String>,
    /// Where its keys are listed.
    pub jwks_url: Option<String>,
    /// Whom its tokens are for (`aud`): one of these. Empty: what the kind says.
    pub audiences: Vec<String>,
    /// Who may have asked for them (`azp`): one of these. Empty: anybody.
    pub authorized_parties: Vec<String>,
    /// The claim that makes an administrator if it is `true`, with dots between the names of objects.
    pub admin_claim: Option<String>,
    /// Whether somebody new is given the account that has registered the same address, if both have verified it.
    pub link_by_email: bool,
}

/// A way to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// E-mail and password, kept here.
    Password,
    /// An ID token of Firebase.
    Firebase,
    /// A session token of Clerk.
    Clerk,
    /// An access token of Supabase.
    Supabase,
    /// An ID token of the operator's own OpenID Connect issuer.
    Oidc,
}

/// Which models answer. The names are aliases; the orchestrator knows the provider behind each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// The model of an agent that has no role of its own.
    pub default: String,
    /// The small model that chooses the agent.
    pub classifier: String,
    /// Role -> model, where neither the user nor the plan says otherwise.
    pub roles: BTreeMap<String, String>,
    /// The model that makes vectors of texts. None: the orchestrator's usual one.
    pub embedding: Option<String>,
    /// Model -> models that stand in for it, in this order, where its provider cannot answer.
    pub fallbacks: BTreeMap<String, Vec<String>>,
}

/// What a model costs, in millionths of a dollar for a million tokens: $2.50 is 2,500,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    /// Of tokens in.
    pub input: i64,
    /// Of tokens out.
    pub output: i64,
}

/// Which agents a product has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agents {
    /// Who answers when no agent fits.
    pub default: String,
    /// Every agent. The order counts: a plan whose limit `agents` is N has the first N.
    pub available: Vec<String>,
    /// Those that are made of a prompt alone. The others are code, or not there yet.
    pub configured: Vec<ConfiguredAgent>,
    /// Agent -> other agents that it may ask, in the manifest's order.
    pub calls: BTreeMap<String, Vec<String>>,
}

/// An agent without tools: a prompt with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredAgent {
    /// Its name, one of [`Agents::available`].
    pub name: String,
    /// What it is for; the classifier chooses by it.
    pub description: String,
    /// Id of its prompt, whose text only the orchestrator has.
    pub prompt: String,
}

/// A number that may be missing on purpose. In a manifest: a number, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most this many; never negative.
    At(i64),
}

impl Limit {
    /// The number; none if unlimited.
    pub fn value(self) -> Option<i64> {
        match self {
            Limit::Unlimited => None,
            Limit::At(number) => Some(number),
        }
    }
}

/// A plan of one product. Its key is (product, slug): `free` of two products are two plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name in tables and on the wire.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// What it costs, one entry for each interval on sale. Empty: it is not for sale.
    pub prices: Vec<Price>,
    /// Every feature of the product, and whether the plan has it.
    pub features: BTreeMap<String, bool>,
    /// Every limit of the product.
    pub limits: BTreeMap<String, Limit>,
    /// Requests a minute that the edge admits for one user.
    pub requests_per_minute: Limit,
    /// Whether an organisation has `requests_per_minute` times its seats.
    pub requests_per_seat: bool,
    /// What it gives and charges in credits. None: the product does not meter credits.
    pub credits: Option<PlanCredits>,
    /// Which models it uses.
    pub models: PlanModels,
}

/// What a plan costs for one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Amount in the currency's minor unit (cents).
    pub amount_minor: i64,
    /// ISO 4217 code, upper case.
    pub currency: String,
    /// How long one payment lasts.
    pub interval: Interval,
    /// Whether the amount is for each seat.
    pub per_seat: bool,
    /// Name under which a client buys it, `vip_monthly`. None: it is bought by the plan's slug.
    pub id: Option<String>,
    /// Credits granted with each paid invoice, in micro-credits.
    pub bonus_credits: i64,
}

/// How long one payment lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

/// A plan's credits. 1 credit is 1,000,000 micro-credits; there are no fractions anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanCredits {
    /// Granted once to a new account, in micro-credits.
    pub initial: i64,
    /// The daily bucket is set to this at 00:00 UTC, in micro-credits.
    pub daily: i64,
    /// Price of a token, in micro-credits.
    pub micro_credits_per_token: i64,
}

/// A plan's models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanModels {
    /// Role -> model. A role that is absent falls back to the product's.
    pub default: BTreeMap<String, String>,
    /// Models that a user of the plan may choose besides the product's own. Empty: only those.
    pub allowed: Vec<String>,
}

/// Credits that can be bought once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditPackage {
    /// Name under which a client buys it, `credits_500`.
    pub id: String,
    /// What is granted, in micro-credits. This number counts, whatever the label says.
    pub credits: i64,
    /// Amount in the currency's minor unit (cents).
    pub amount_minor: i64,
    /// ISO 4217 code, upper case.
    pub currency: String,
    /// Words for a shop window; they decide nothing.
    pub label: Option<String>,
}
