//! The issuers whose tokens sign people in: which ones a product trusts, what their tokens have to say, and where their
//! keys are.
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::sleep;
use weft_auth::{ExternalClaims, ExternalError, ExternalKeys, Fetched, Rules};
use weft_core::Clock;
use weft_product::{CredentialKind, Issuer, Product, Products};
use weft_runtime::Shutdown;
use weft_runtime::config::{key_of_slug, url};
use weft_runtime::outbound::{self, Client, Networks, Reach};

use crate::domain::external::{ExternalIdentity, ExternalToken};
use crate::error::Error;
use crate::oidc::Registration;

/// How long a connection may take; a whole fetch may take three seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether keys are getting old.
const FRESHEN_EVERY: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Longest id of a session at an issuer, in bytes.
const MAX_SESSION_BYTES: usize = 255;
/// Where Google lists the keys of every Firebase project.
const FIREBASE_JWKS: &str = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
/// Whom Supabase's access tokens of signed-in people are for.
const SUPABASE_AUDIENCE: &str = "authenticated";

/// What an operator says of issuers; the same for all products, or for one as `NAME__<SLUG>`. It wins over manifests.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct IssuerConfig {
    /// `CLERK_ISSUER`: the instance's Frontend API, `https://clerk.example.com`.
    #[serde(default, deserialize_with = "url")]
    pub clerk_issuer: Option<String>,
    /// `CLERK_JWKS_URL`. Default: below the issuer.
    #[serde(default, deserialize_with = "url")]
    pub clerk_jwks_url: Option<String>,
    /// `CLERK_AUTHORIZED_PARTIES`: origins whose tokens are taken, with commas between. With it a token has to name one.
    #[serde(default)]
    pub clerk_authorized_parties: Vec<String>,
    /// `FIREBASE_PROJECT_ID`: the project whose id tokens are taken.
    pub firebase_project_id: Option<String>,
    /// `FIREBASE_JWKS_URL`. Default: Google's.
    #[serde(default, deserialize_with = "url")]
    pub firebase_jwks_url: Option<String>,
    /// `SUPABASE_URL`: the project, `https://….supabase.co`.
    #[serde(default, deserialize_with = "url")]
    pub supabase_url: Option<String>,
    /// `OIDC_ISSUER`: any other OpenID Connect issuer, exactly as its tokens write it.
    #[serde(default, deserialize_with = "url")]
    pub oidc_issuer: Option<String>,
    /// `OIDC_JWKS_URL`. Default: what the issuer's description says.
    #[serde(default, deserialize_with = "url")]
    pub oidc_jwks_url: Option<String>,
    /// `OIDC_CLIENT_ID`: whom its id tokens are for.
    pub oidc_client_id: Option<String>,
    /// `OIDC_CLIENT_SECRET`: for logins by code. Default: none, for a public client.
    pub oidc_client_secret: Option<SecretString>,
}

impl IssuerConfig {
    /// What counts for a product. An issuer of its own takes nothing from the common one: keys of one issuer must never
    /// be taken for another's.
    pub fn for_product(&self, own: Option<&IssuerConfig>) -> IssuerConfig {
        let Some(own) = own else { return self.clone() };
        let clerk = if own.clerk_issuer.is_some() { own } else { self };
        let oidc = if own.oidc_issuer.is_some() { own } else { self };
        let oidc_client = if own.oidc_client_id.is_some() { own } else { oidc };
        IssuerConfig {
            clerk_issuer: clerk.clerk_issuer.clone(),
            clerk_jwks_url: own.clerk_jwks_url.clone().or_else(|| clerk.clerk_jwks_url.clone()),
            clerk_authorized_parties: if own.clerk_authorized_parties.is_empty() {
                clerk.clerk_authorized_parties.clone()
            } else {
                own.clerk_authorized_parties.clone()
            },
            firebase_project_id: own.firebase_project_id.clone().or_else(|| self.firebase_project_id.clone()),
            firebase_jwks_url: own.firebase_jwks_url.clone().or_else(|| self.firebase_jwks_url.clone()),
            supabase_url: own.supabase_url.clone().or_else(|| self.supabase_url.clone()),
            oidc_issuer: oidc.oidc_issuer.clone(),
            oidc_jwks_url: own.oidc_jwks_url.clone().or_else(|| oidc.oidc_jwks_url.clone()),
            oidc_client_id: oidc_client.oidc_client_id.clone(),
            oidc_client_secret: own.oidc_client_secret.clone().or_else(|| oidc_client.oidc_client_secret.clone()),
        }
    }
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Listed {
    /// At this URL.
    At(String),
    /// Where the description of this issuer says.
    By(String),
}

/// An issuer that is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SetUp {
    kind: CredentialKind,
    rules: Rules,
    listed: Listed,
    admin_claim: Option<String>,
    link_by_email: bool,
}

impl SetUp {
    /// What the manifest and the environment say together; none if that is not enough to trust anybody.
    fn of(kind: CredentialKind, manifest: Option<&Issuer>, env: &IssuerConfig) -> Option<SetUp> {
        let manifest_issuer = manifest.and_then(|manifest| manifest.issuer.clone());
        let manifest_audiences = manifest.map(|manifest| manifest.audiences.clone()).unwrap_or_default();
        let below = |issuer: &str| format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
        let (named, issuer, jwks_url, audiences) = match kind {
            CredentialKind::Password => return None,
            CredentialKind::Clerk => {
                let issuer = env.clerk_issuer.clone().or(manifest_issuer)?;
                (env.clerk_issuer.is_some(), issuer, env.clerk_jwks_url.clone(), manifest_audiences)
            }
            CredentialKind::Firebase => {
                let project = env.firebase_project_id.clone();
                let audiences = project.clone().map_or(manifest_audiences, |project| vec![project]);
                let of_project = format!("https://securetoken.google.com/{}", audiences.first()?);
                let issuer = manifest_issuer.filter(|_| project.is_none()).unwrap_or(of_project);
                (project.is_some(), issuer, env.firebase_jwks_url.clone(), audiences)
            }
            CredentialKind::Supabase => {
                let of_project = env.supabase_url.as_ref().map(|url| format!("{}/auth/v1", url.trim_end_matches('/')));
                let own =
                    if manifest_audiences.is_empty() { vec![SUPABASE_AUDIENCE.to_owned()] } else { manifest_audiences };
                (of_project.is_some(), of_project.or(manifest_issuer)?, None, own)
            }
            CredentialKind::Oidc => {
                let issuer = env.oidc_issuer.clone().or(manifest_issuer)?;
                let mut audiences: Vec<String> = env.oidc_client_id.clone().into_iter().collect();
                audiences.extend(manifest_audiences);
                // Without it a token that was made for anybody would do.
                audiences.first()?;
                (env.oidc_issuer.is_some(), issuer, env.oidc_jwks_url.clone(), audiences)
            }
        };
        // The manifest's list belongs to the manifest's issuer.
        let jwks_url = jwks_url.or_else(|| manifest.filter(|_| !named)?.jwks_url.clone());
        let listed = match (jwks_url, kind) {
            (Some(url), _) => Listed::At(url),
            (None, CredentialKind::Firebase) => Listed::At(FIREBASE_JWKS.to_owned()),
            (None, CredentialKind::Oidc) => Listed::By(issuer.clone()),
            (None, _) => Listed::At(below(&issuer)),
        };
        let mut authorized_parties = manifest.map(|manifest| manifest.authorized_parties.clone()).unwrap_or_default();
        if kind == CredentialKind::Clerk && !env.clerk_authorized_parties.is_empty() {
            authorized_parties = env.clerk_authorized_parties.iter().map(|party| party.trim().to_owned()).collect();
        }
        Some(SetUp {
            kind,
            rules: Rules { issuer, audiences, authorized_parties },
            listed,
            admin_claim: manifest.and_then(|manifest| manifest.admin_claim.clone()),
            link_by_email: manifest.is_some_and(|manifest| manifest.link_by_email),
        })
    }
}

/// An issuer that a product trusts.
#[derive(Debug)]
pub struct Trusted {
    set_up: SetUp,
    /// Ourselves there, if logins may be by code: client id and secret.
    client: Option<(String, Option<SecretString>)>,
    keys: ExternalKeys,
}

/// Every issuer that some product trusts.
#[derive(Debug)]
pub struct Issuers {
    by_kind: HashMap<(String, CredentialKind), Trusted>,
    /// One for each list, however many products share it.
    keys: HashMap<Listed, ExternalKeys>,
}

impl Issuers {
    /// What manifests and environment say. Nothing is fetched yet.
    ///
    /// Errors: [`Error::Outbound`] if no HTTP client can be built.
    pub fn new(
        products: &Products,
        common: &IssuerConfig,
        own: &BTreeMap<String, IssuerConfig>,
        clock: &Clock,
    ) -> Result<Issuers, Error> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
        let client = outbound::client(Reach::Operator, &Networks::default(), builder).map_err(Error::Outbound)?;
        let mut issuers = Issuers { by_kind: HashMap::new(), keys: HashMap::new() };
        for product in products.iter() {
            let env = common.for_product(own.get(&key_of_slug(&product.slug)));
            for kind in &product.identity.credentials {
                let manifest = product.identity.issuers.iter().find(|issuer| issuer.kind == *kind);
                let Some(set_up) = SetUp::of(*kind, manifest, &env) else { continue };
                let registered = env.oidc_client_id.clone().filter(|_| *kind == CredentialKind::Oidc);
                let registered = registered.map(|id| (id, env.oidc_client_secret.clone()));
                let keys = issuers.keys.entry(set_up.listed.clone());
                let keys = keys.or_insert_with(|| keys_of(&set_up.listed, &client, clock)).clone();
                issuers.by_kind.insert((product.slug.clone(), *kind), Trusted { set_up, client: registered, keys });
            }
        }
        Ok(issuers)
    }

    /// The issuer of one kind that a product trusts.
    ///
    /// Errors: [`Error::ProviderNotEnabled`] for a kind that the product does not allow; [`Error::IssuerNotSetUp`].
    pub fn of_kind(&self, product: &Product, kind: CredentialKind) -> Result<&Trusted, Error> {
        if kind == CredentialKind::Password || !product.identity.credentials.contains(&kind) {
            return Err(Error::ProviderNotEnabled);
        }
        self.by_kind.get(&(product.slug.clone(), kind)).ok_or(Error::IssuerNotSetUp)
    }

    /// The issuer with this `iss` that a product trusts.
    pub fn named(&self, product: &Product, issuer: &str) -> Option<&Trusted> {
        let kinds = product.identity.credentials.iter();
        let mut trusted = kinds.filter_map(|kind| self.by_kind.get(&(product.slug.clone(), *kind)));
        trusted.find(|trusted| trusted.set_up.rules.issuer == issuer)
    }

    /// Fetches keys again as they get old, until the shutdown, so that an outage begins with fresh ones.
    pub async fn keep_fresh(&self, shutdown: Shutdown) {
        let keep = async {
            loop {
                sleep(FRESHEN_EVERY).await;
                for keys in self.keys.values() {
                    keys.freshen().await;
                }
            }
        };
        tokio::select! {
            () = shutdown.wait() => {}
            () = keep => {}
        }
    }
}

impl Trusted {
    /// Who somebody is that brings this token, and what the token says of its own life.
    ///
    /// Errors: [`Error::InvalidToken`], one and the same whatever is wrong; [`Error::IssuerUnavailable`].
    pub async fn verify(&self, token: &str) -> Result<(ExternalIdentity, ExternalToken), Error> {
        let claims = self.keys.verify(token, &self.set_up.rules).await.map_err(|error| match error {
            ExternalError::NotValid => Error::InvalidToken,
            ExternalError::Unavailable => Error::IssuerUnavailable,
        })?;
        if self.set_up.kind == CredentialKind::Clerk && claims.text("sts") == Some("pending") {
            // Clerk asks more of them, a second factor for instance, before they are signed in.
            return Err(Error::InvalidToken);
        }
        let token = ExternalToken {
            session: session_of(&claims).ok_or(Error::InvalidToken)?,
            issued: claims.issued,
            expires: claims.expires,
        };
        Ok((self.identity(claims), token))
    }

    /// Ourselves at this issuer, for logins by code; none if nobody has said who we are there.
    pub fn registration(&self) -> Option<Registration> {
        let (client_id, client_secret) = self.client.clone()?;
        Some(Registration {
            reach: Reach::Operator,
            issuer: self.set_up.rules.issuer.clone(),
            client_id,
            client_secret,
            keys: Some(self.keys.clone()),
        })
    }

    /// Who somebody is of whom the issuer says this.
    pub fn identity(&self, claims: ExternalClaims) -> ExternalIdentity {
        // Supabase tells nothing of this that its users cannot write themselves.
        let tells = self.set_up.kind != CredentialKind::Supabase;
        ExternalIdentity {
            issuer: self.set_up.rules.issuer.clone(),
            email: claims.text("email").map(str::to_owned),
            email_verified: tells && claims.is_true("email_verified"),
            admin: self.set_up.admin_claim.as_ref().is_some_and(|claim| claims.is_true(claim)),
            link_by_email: self.set_up.link_by_email,
            subject: claims.subject,
        }
    }
}

/// The session at the issuer, by the names that issuers have for it, else by when its user signed in; empty if nothing
/// says. None for a name that is none.
fn session_of(claims: &ExternalClaims) -> Option<String> {
    for name in ["sid", "session_id"] {
        if let Some(value) = claims.get(name) {
            let id = value.as_str()?;
            let fits = !id.is_empty() && id.len() <= MAX_SESSION_BYTES && !id.chars().any(char::is_control);
            return fits.then(|| id.to_owned());
        }
    }
    let signed_in = claims.get("auth_time").and_then(|time| time.as_i64());
    Some(signed_in.map(|time| format!("auth_time {time}")).unwrap_or_default())
}

fn keys_of(listed: &Listed, client: &Client, clock: &Clock) -> ExternalKeys {
    let (Listed::At(url) | Listed::By(url)) = listed;
    let (listed, client) = (listed.clone(), client.clone());
    ExternalKeys::new(url.as_str(), clock.clone(), move || fetch(listed.clone(), client.clone()))
}

fn fetch(listed: Listed, client: Client) -> Fetched {
    Box::pin(async move {
        let url = match listed {
            Listed::At(url) => url,
            Listed::By(issuer) => described(&issuer, &client).await?,
        };
        get(&url, &client).await
    })
}

/// Whether what comes from there comes over TLS.
pub fn is_https(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

/// Where an issuer says its keys are.
async fn described(issuer: &str, client: &Client) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Description {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let description: Description =
        serde_json::from_slice(&get(&url, client).await?).map_err(|error| format!("its description: {error}"))?;
    if description.issuer != issuer {
        return Err("its description is of another issuer".to_owned());
    }
    if is_https(issuer) && !is_https(&description.jwks_uri) {
        return Err("its description leads to keys without TLS".to_owned());
    }
    Ok(description.jwks_uri)
}

async fn get(url: &str, client: &Client) -> Result<Vec<u8>, String> {
    let request = client.get(url).map_err(|error| error.to_string())?;
    let mut answer = request.send().await.map_err(|error| error.without_url().to_string())?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answered {}", answer.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
