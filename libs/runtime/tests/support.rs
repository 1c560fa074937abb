//! A server whose handlers do what the request says, and channels to it.
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::pending;
use futures_util::stream::{BoxStream, StreamExt, iter, once};
use http::HeaderMap;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use weft_auth::{AUDIENCE, Caller, Claims, ISSUER, Keys, Revocations, Signer, Verifier};
use weft_core::{Clock, Reason, new_id};
use weft_proto::Channel;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::billing::v1::entitlement_service_server::{EntitlementService, EntitlementServiceServer};
use weft_proto::billing::v1::{
    CheckFeatureRequest, CheckFeatureResponse, CheckQuotaRequest, CheckQuotaResponse, Entitlements,
    GetEntitlementsRequest, GetRateLimitRequest, RateLimit,
};
use weft_proto::identity::v1::auth_service_server::{AuthService, AuthServiceServer};
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{
    AccessToken, AuthTokens, ExchangeTokenRequest, GetJwksRequest, GetMeRequest, Jwks, ListRevocationsRequest,
    ListRevocationsResponse, LoginRequest, LogoutRequest, LogoutResponse, RefreshRequest, RegisterRequest,
    ReportUseRequest, ReportUseResponse, Revocation, UserProfile,
};
use weft_proto::orchestrator::v1::chat_service_server::{ChatService, ChatServiceServer};
use weft_proto::orchestrator::v1::{
    CancelChatRequest, CancelChatResponse, ChatEvent, ChatRequest, ChatResponse, ResumeChatRequest, chat_event::Event,
};
use weft_runtime::{Environment, Mesh, MeshConfig, Server, Shutdown, Tasks};

/// Paths of the fake's RPCs.
pub const ENTITLEMENTS: &str = "/weft.billing.v1.EntitlementService/GetEntitlements";
pub const LOGIN: &str = "/weft.identity.v1.AuthService/Login";

/// The session of [`signed_in`].
const SESSION: &str = "s1";

/// A server with the fake's services.
pub struct Backend {
    pub fake: Fake,
    pub url: String,
    pub mesh: Mesh,
    pub tasks: Tasks,
}

impl Backend {
    pub async fn start(service: &'static str) -> Backend {
        Backend::configured(service, |_| (), |server| server).await
    }

    /// With other limits, or more of a server.
    pub async fn configured(
        service: &'static str,
        limits: impl FnOnce(&mut MeshConfig),
        more: impl FnOnce(Server) -> Server,
    ) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut config = config(&url);
        limits(&mut config);
        let mesh = Mesh::new(service, config, Clock::System, Shutdown::new());
        let fake = Fake::default();
        let server = more(fake.server(&mesh));
        let tasks = Tasks::new();
        tasks.spawn("server", async move { server.serve(listener).await.unwrap() });
        Backend { fake, url, mesh, tasks }
    }

    /// A channel of the service `gateway` to this server.
    pub fn channel(&self) -> Channel {
        caller(&self.url).channel(self.mesh.service())
    }

    /// A channel of somebody who is no service.
    pub fn stranger(&self) -> Channel {
        let channel = Endpoint::from_shared(self.url.clone()).unwrap().connect_lazy();
        Channel::new(channel.map_err(|error| Status::from_error(Box::new(error))))
    }
}

/// The place of `gateway` in a mesh where everybody is at `url`.
pub fn caller(url: &str) -> Mesh {
    Mesh::new("gateway", config(url), Clock::System, Shutdown::new())
}

pub fn config(url: &str) -> MeshConfig {
    MeshConfig {
        env: Environment::Test,
        weft_service_secret: Some(SecretString::from("a secret that only this test mesh knows")),
        weft_identity_url: url.to_owned(),
        weft_billing_url: url.to_owned(),
        weft_orchestrator_url: url.to_owned(),
        // Longer than any test waits: who ends in time was not cut.
        weft_drain_ms: 60_000,
        ..MeshConfig::default()
    }
}

/// Who signs the users' tokens.
fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| Signer::from_seed("test".to_owned(), &[7; 32]))
}

/// A request of a signed-in user.
pub fn signed_in<T>(message: T) -> Request<T> {
    let now_s = Clock::System.now_ms() / 1000;
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: "u1".to_owned(),
        prd: "adiuva".to_owned(),
        sid: SESSION.to_owned(),
        jti: new_id(),
        email: String::new(),
        roles: Vec::new(),
        scp: None,
        key: None,
        iat: now_s,
        exp: now_s + 3600,
    };
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", signer().mint(&claims));
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    request
}

/// Asks for the entitlements of a product whose name says what the handler does.
pub fn entitlements(product: &str) -> GetEntitlementsRequest {
    GetEntitlementsRequest { product: product.to_owned(), user_id: "u1".to_owned() }
}

/// A login whose address says what the handler does.
pub fn login(email: &str) -> LoginRequest {
    LoginRequest { email: email.to_owned(), ..LoginRequest::default() }
}

/// A chat whose message says what the handler does.
pub fn chat(message: &str) -> ChatRequest {
    ChatRequest { message: message.to_owned(), ..ChatRequest::default() }
}

/// The reason of an error.
pub fn reason<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Reason {
    let status = outcome.unwrap_err();
    Reason::of(&status).unwrap_or_else(|| panic!("no reason: {status:?}"))
}

/// Handlers that do what they are asked.
#[derive(Clone, Default)]
pub struct Fake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    calls: AtomicUsize,
    unavailable: AtomicUsize,
    seen: Mutex<Option<(HeaderMap, Caller)>>,
    billing: OnceLock<Channel>,
    revocations: Mutex<Vec<Revocation>>,
}

impl Fake {
    pub fn server(&self, mesh: &Mesh) -> Server {
        let keys = Keys::fixed(vec![signer().jwk()]);
        let guard = mesh.guard_with(Verifier::new(keys, Revocations::new(), Clock::System));
        Server::new(mesh, guard)
            .add(EntitlementServiceServer::new(self.clone()))
            .add(AuthServiceServer::new(self.clone()))
            .add(ChatServiceServer::new(self.clone()))
            .add(KeyServiceServer::new(self.clone()))
    }

    /// How many calls have arrived.
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The next calls that ask for it find the service unavailable.
    pub fn fail_next(&self, calls: usize) {
        self.0.unavailable.store(calls, Ordering::SeqCst);
    }

    /// Ends the session of [`signed_in`].
    pub fn revoke(&self) {
        let revocation = Revocation { id: SESSION.to_owned(), expires_at: i64::MAX, ..Revocation::default() };
        self.0.revocations.lock().unwrap().push(revocation);
    }

    /// Headers and caller of the last call.
    pub fn last(&self) -> (HeaderMap, Caller) {
        self.0.seen.lock().unwrap().clone().expect("a call arrived")
    }

    /// Chats ask this channel.
    pub fn ask(&self, billing: Channel) {
        assert!(self.0.billing.set(billing).is_ok());
    }

    async fn act<T>(&self, request: &Request<T>, what: &str) -> Result<(), Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let seen = (request.metadata().clone().into_headers(), Caller::of(request)?);
        *self.0.seen.lock().unwrap() = Some(seen);
        match what {
            "panic" => panic!("as asked"),
            "hang" => pending().await,
            "half a second" => tokio::time::sleep(Duration::from_millis(500)).await,
            "bare internal" => return Err(Status::internal("the table users is gone")),
            "sometimes" => {
                let take = |left: usize| left.checked_sub(1);
                if self.0.unavailable.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                    return Err(Reason::Unavailable.status("not now"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl EntitlementService for Fake {
    async fn get_entitlements(
        &self,
        request: Request<GetEntitlementsRequest>,
    ) -> Result<Response<Entitlements>, Status> {
        let product = request.get_ref().product.clone();
        self.act(&request, &product).await?;
        Ok(Response::new(Entitlements { plan: "free".to_owned(), product, ..Entitlements::default() }))
    }

    async fn check_feature(
        &self,
        request: Request<CheckFeatureRequest>,
    ) -> Result<Response<CheckFeatureResponse>, Status> {
        self.act(&request, "").await?;
        Ok(Response::new(CheckFeatureResponse::default()))
    }

    async fn get_rate_limit(&self, _request: Request<GetRateLimitRequest>) -> Result<Response<RateLimit>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn check_quota(&self, _request: Request<CheckQuotaRequest>) -> Result<Response<CheckQuotaResponse>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }
}

#[tonic::async_trait]
impl AuthService for Fake {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<AuthTokens>, Status> {
        self.act(&request, &request.get_ref().email).await?;
        Ok(Response::new(AuthTokens::default()))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Result<Response<AuthTokens>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<AuthTokens>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn get_me(&self, _: Request<GetMeRequest>) -> Result<Response<UserProfile>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }

    async fn exchange_token(&self, _: Request<ExchangeTokenRequest>) -> Result<Response<AccessToken>, Status> {
        Err(Reason::Unimplemented.status("not here"))
    }
}

#[tonic::async_trait]
impl KeyService for Fake {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        Ok(Response::new(Jwks { keys: vec![signer().jwk()] }))
    }

    async fn list_revocations(
        &self,
        _: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        let revocations = self.0.revocations.lock().unwrap().clone();
        Ok(Response::new(ListRevocationsResponse { revocations, next_page_token: "end".to_owned() }))
    }

    async fn report_use(&self, _: Request<ReportUseRequest>) -> Result<Response<ReportUseResponse>, Status> {
        Ok(Response::new(ReportUseResponse {}))
    }
}

#[tonic::async_trait]
impl ChatService for Fake {
    /// Asks billing, as a service does that calls another for its caller.
    async fn chat(&self, request: Request<ChatRequest>) -> Result<Response<ChatResponse>, Status> {
        let what = request.get_ref().message.clone();
        self.act(&request, if what == "half a second" { &what } else { "" }).await?;
        let caller = Caller::of(&request)?;
        let mut billing = EntitlementServiceClient::new(self.0.billing.get().expect("a channel").clone());
        billing.get_entitlements(caller.request(entitlements(&request.get_ref().message))).await?;
        Ok(Response::new(ChatResponse::default()))
    }

    type StreamChatStream = BoxStream<'static, Result<ChatEvent, Status>>;

    /// One token, and then what the message says.
    async fn stream_chat(&self, request: Request<ChatRequest>) -> Result<Response<Self::StreamChatStream>, Status> {
        let what = request.get_ref().message.clone();
        self.act(&request, if what == "hang before" { "hang" } else { "" }).await?;
        let token = || ChatEvent { id: String::new(), event: Some(Event::Token("hello".to_owned())) };
        let fake = self.clone();
        let rest = once(async move {
            // What is ready at once would travel together, and be lost together.
            tokio::task::yield_now().await;
            fake.act(&request, &what).await.map(|()| token())
        });
        Ok(Response::new(iter([Ok(token())]).chain(rest).boxed()))
    }

    type ResumeChatStream = BoxStream<'static, Result<ChatEvent, Status>>;

    async fn resume_chat(&self, _: Request<ResumeChatRequest>) -> Result<Response<Self::ResumeChatStream>, Status> {
        Err(Status::unimplemented("nothing is kept"))
    }

    async fn cancel_chat(&self, _: Request<CancelChatRequest>) -> Result<Response<CancelChatResponse>, Status> {
        Err(Status::unimplemented("nothing is kept"))
    }
}

/// A server in a runtime of its own that can be killed: its connections break without a word.
pub struct Process {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Process {
    /// `at`: `127.0.0.1:0`, or where an earlier one was.
    pub fn start(service: &'static str, at: &str) -> Process {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let at = at.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(at).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let mesh = Mesh::new(service, config("http://127.0.0.1:1"), Clock::System, Shutdown::new());
                tokio::select! {
                    served = Fake::default().server(&mesh).serve(listener) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Process { address: told.recv().unwrap(), stop, thread }
    }

    pub fn kill(self) -> SocketAddr {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
        self.address
    }
}
