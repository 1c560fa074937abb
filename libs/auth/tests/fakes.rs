//! An identity and a billing that do what a test tells them, and tokens to show them.
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::pending;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use weft_auth::{AUDIENCE, Claims, ISSUER, KEY_AUDIENCE, KeyClaim, Keys, Revocations, Signer, Verifier, key_session};
use weft_core::{Clock, Reason};
use weft_proto::Channel;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::billing::v1::entitlement_service_server::{EntitlementService, EntitlementServiceServer};
use weft_proto::billing::v1::{
    CheckFeatureRequest, CheckFeatureResponse, CheckQuotaRequest, CheckQuotaResponse, Entitlements,
    GetEntitlementsRequest, GetRateLimitRequest, RateLimit,
};
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{
    GetJwksRequest, Jwk, Jwks, ListRevocationsRequest, ListRevocationsResponse, ReportUseRequest, ReportUseResponse,
    Revocation,
};

/// Where every manual clock of the tests starts, in ms.
pub const START_MS: i64 = 1_800_000_000_000;
pub const START_S: i64 = START_MS / 1000;
pub const PRODUCT: &str = "adiuva";

/// How a fake answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    Slow,
    Away,
    Hanging,
}

impl Mood {
    async fn show(self) -> Result<(), Status> {
        match self {
            Mood::Well => Ok(()),
            Mood::Slow => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(())
            }
            Mood::Away => Err(Status::unavailable("away")),
            Mood::Hanging => pending().await,
        }
    }
}

/// An identity that lists keys and ended sessions.
#[derive(Clone)]
pub struct Identity(Arc<IdentityState>);

struct IdentityState {
    mood: Mutex<Mood>,
    jwks: Mutex<Vec<Jwk>>,
    fetches: AtomicUsize,
    ended: Mutex<Vec<Revocation>>,
    forgot_places: Mutex<bool>,
    polls: AtomicUsize,
    used: Mutex<Vec<String>>,
}

impl Identity {
    pub fn with_keys(jwks: Vec<Jwk>) -> Identity {
        Identity(Arc::new(IdentityState {
            mood: Mutex::new(Mood::Well),
            jwks: Mutex::new(jwks),
            fetches: AtomicUsize::new(0),
            ended: Mutex::default(),
            forgot_places: Mutex::new(false),
            polls: AtomicUsize::new(0),
            used: Mutex::default(),
        }))
    }

    pub fn lists(&self, jwks: Vec<Jwk>) {
        *self.0.jwks.lock().unwrap() = jwks;
    }

    pub fn is(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    pub fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::SeqCst)
    }

    pub fn polls(&self) -> usize {
        self.0.polls.load(Ordering::SeqCst)
    }

    pub fn ends(&self, id: impl Into<String>, expires_at: i64) {
        self.lists_revocation(id, expires_at, false);
    }

    pub fn suspends(&self, token_id: impl Into<String>, expires_at: i64) {
        self.lists_revocation(token_id, expires_at, true);
    }

    fn lists_revocation(&self, id: impl Into<String>, expires_at: i64, suspended: bool) {
        self.0.ended.lock().unwrap().push(Revocation { id: id.into(), expires_at, suspended, ..Revocation::default() });
    }

    /// The tokens that were reported as used.
    pub fn used(&self) -> Vec<String> {
        self.0.used.lock().unwrap().clone()
    }

    /// Starts with another list of ended sessions, in which no old place exists: a restored database.
    pub fn is_restored(&self) {
        self.0.ended.lock().unwrap().clear();
        *self.0.forgot_places.lock().unwrap() = true;
    }

    pub async fn client(&self, tasks: &mut JoinSet<()>) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(serve(Routes::new(KeyServiceServer::new(self.clone())), tasks).await)
    }

    fn mood(&self) -> Mood {
        *self.0.mood.lock().unwrap()
    }
}

#[tonic::async_trait]
impl KeyService for Identity {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        self.0.fetches.fetch_add(1, Ordering::SeqCst);
        self.mood().show().await?;
        Ok(Response::new(Jwks { keys: self.0.jwks.lock().unwrap().clone() }))
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        self.0.polls.fetch_add(1, Ordering::SeqCst);
        self.mood().show().await?;
        let asked = request.into_inner();
        if asked.page_token.is_empty() {
            *self.0.forgot_places.lock().unwrap() = false;
        }
        if *self.0.forgot_places.lock().unwrap() {
            return Err(Reason::InvalidArgument.status("no such place"));
        }
        let ended = self.0.ended.lock().unwrap();
        let from: usize = asked.page_token.parse().unwrap_or(0);
        let to = ended.len().min(from + usize::try_from(asked.page_size).unwrap());
        let revocations = ended[from..to].to_vec();
        Ok(Response::new(ListRevocationsResponse { revocations, next_page_token: to.to_string() }))
    }

    async fn report_use(&self, request: Request<ReportUseRequest>) -> Result<Response<ReportUseResponse>, Status> {
        self.mood().show().await?;
        let ids = request.into_inner().token_ids;
        assert!((1..=1000).contains(&ids.len()), "{} ids", ids.len());
        self.0.used.lock().unwrap().extend(ids);
        Ok(Response::new(ReportUseResponse {}))
    }
}

/// A billing that knows the features of one plan, `free`.
#[derive(Clone)]
pub struct Billing(Arc<BillingState>);

struct BillingState {
    mood: Mutex<Mood>,
    refusal: Mutex<Option<Reason>>,
    features: Mutex<HashMap<String, bool>>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Billing {
    pub fn with_features(features: &[(&str, bool)]) -> Billing {
        let features = features.iter().map(|(name, has)| ((*name).to_owned(), *has)).collect();
        Billing(Arc::new(BillingState {
            mood: Mutex::new(Mood::Well),
            refusal: Mutex::default(),
            features: Mutex::new(features),
            asked: Mutex::default(),
        }))
    }

    pub fn is(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    pub fn refuses(&self, with: Option<Reason>) {
        *self.0.refusal.lock().unwrap() = with;
    }

    pub fn sells(&self, feature: &str) {
        self.0.features.lock().unwrap().insert(feature.into(), true);
    }

    /// How often it was asked about this account.
    pub fn asked_about(&self, user_id: &str) -> usize {
        self.0.asked.lock().unwrap().get(user_id).copied().unwrap_or(0)
    }

    pub fn server(&self) -> EntitlementServiceServer<Billing> {
        EntitlementServiceServer::new(self.clone())
    }

    pub async fn client(&self, tasks: &mut JoinSet<()>) -> EntitlementServiceClient<Channel> {
        EntitlementServiceClient::new(serve(Routes::new(self.server()), tasks).await)
    }
}

#[tonic::async_trait]
impl EntitlementService for Billing {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let asked = request.into_inner();
        *self.0.asked.lock().unwrap().entry(asked.user_id.clone()).or_default() += 1;
        let mood = *self.0.mood.lock().unwrap();
        mood.show().await?;
        if let Some(reason) = *self.0.refusal.lock().unwrap() {
            return Err(reason.status("refused"));
        }
        let features = self.0.features.lock().unwrap().clone();
        let GetEntitlementsRequest { product, user_id } = asked;
        Ok(Response::new(Entitlements { product, user_id, plan: "free".into(), features, ..Entitlements::default() }))
    }

    /// Says which service asked.
    async fn check_feature(
        &self,
        request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        let caller = weft_auth::Caller::of(&request)?;
        Ok(Response::new(CheckFeatureResponse { plan: caller.service.as_deref().unwrap_or("nobody").to_owned() }))
    }

    async fn get_rate_limit(&self, _request: Request<GetRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn check_quota(&self, _request: Request<CheckQuotaRequest>) -> Result<Response<CheckQuotaResponse>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }
}

/// Serves on a free port until `tasks` is dropped.
pub async fn serve(routes: Routes, tasks: &mut JoinSet<()>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    connect(&format!("http://{address}"))
}

/// A channel to a URL, connected when first used.
pub fn connect(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().connect_timeout(Duration::from_millis(500));
    Channel::new(endpoint.connect_lazy().map_err(|error| Status::from_error(Box::new(error))))
}

/// A URL where nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub fn signer(kid: &str) -> Signer {
    let mut seed = [0x5a; 32];
    seed[..kid.len()].copy_from_slice(kid.as_bytes());
    Signer::from_seed(kid.into(), &seed)
}

/// The claims of `user` of [`PRODUCT`], good for a day from [`START_S`].
pub fn claims(user: &str) -> Claims {
    Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: user.into(),
        prd: PRODUCT.into(),
        sid: format!("session of {user}"),
        jti: format!("token of {user}"),
        email: format!("{user}@example.com"),
        roles: Vec::new(),
        scp: None,
        key: None,
        iat: START_S,
        exp: START_S + 24 * 3600,
    }
}

/// The claims of an API key of `user` with these scopes.
pub fn key_claims(user: &str, scopes: &[&str]) -> Claims {
    let id = format!("key of {user}");
    let scp = Some(scopes.iter().map(|scope| (*scope).to_owned()).collect());
    let aud = KEY_AUDIENCE.to_owned();
    Claims { aud, sid: key_session(&id), scp, key: Some(KeyClaim { id, limit: None }), ..claims(user) }
}

/// A verifier that holds the keys of these signers.
pub fn verifier(signers: &[&Signer], clock: &Clock) -> Verifier {
    let keys = Keys::fixed(signers.iter().map(|signer| signer.jwk()).collect());
    Verifier::new(keys, Revocations::new(), clock.clone())
}

pub fn secret() -> SecretString {
    SecretString::from("a secret that every service of the mesh has")
}

/// Waits until `holds`, at most 5 s.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
