//! An edge with a service behind it, all in this process, and the clients that call it.
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;
use weft_auth::{AUDIENCE, Claims, ISSUER, KEY_AUDIENCE, KeyClaim, Signer, key_session};
use weft_core::{Clock, Reason, new_id};
use weft_gateway::Config;
use weft_product::Products;
use weft_proto::billing::v1::Entitlements;
use weft_proto::identity::v1::auth_service_server::{AuthService, AuthServiceServer};
use weft_proto::identity::v1::{
    AccessToken, AuthTokens, ExchangeTokenRequest, GetMeRequest, LoginRequest, LogoutRequest, LogoutResponse,
    RefreshRequest, RegisterRequest, Revocation, UserProfile,
};
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::{FakeService, eventually};

/// Requests a minute of the user `limited`.
pub const LIMITED: i64 = 5;

/// Requests a minute of a user `seat…`, and of all of them.
pub const SEAT: i64 = 4;
pub const ORGANIZATION: i64 = 6;
/// Requests a minute of the user `climber`.
pub static CLIMBER: AtomicI64 = AtomicI64::new(5);

/// A running edge.
pub struct Edge {
    /// Where it listens.
    pub address: SocketAddr,
    /// Headers of every call that reached the shop.
    pub seen: Seen,
    /// Ends it.
    pub shutdown: Shutdown,
    /// The mesh of the edge, for what it says of itself.
    pub served: tokio::task::JoinHandle<Result<(), weft_gateway::Error>>,
    signer: Signer,
    descriptors: PathBuf,
    _folder: tempfile::TempDir,
    /// Identity and billing.
    _fakes: [FakeService; 2],
    pub revoked: Arc<Mutex<Vec<Revocation>>>,
    /// What identity was asked about.
    pub exchanged: Exchanged,
}

/// Headers of calls, in order, by path.
pub type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `code` of the error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("not an error: {self:?}")).to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Edge {
    /// An edge with a shop behind it.
    pub async fn start() -> Edge {
        Edge::with(|_config| {}).await
    }

    /// The same with settings of its own.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Edge {
        let seen = Seen::default();
        let shop = listen().await;
        let at = shop.local_addr().unwrap();
        tokio::spawn(serve_shop(shop, seen.clone()));
        Edge::before(at, seen, change).await
    }

    /// An edge before a shop at this address.
    pub async fn before(shop: SocketAddr, seen: Seen, change: impl FnOnce(&mut Config)) -> Edge {
        let signer = signer();
        let revoked = Arc::default();
        let exchanged = Exchanged::default();
        let identity = FakeService::identity_and(signer.jwk(), Arc::clone(&revoked), |routes| {
            routes.add_service(AuthServiceServer::new(exchanged.clone()))
        });
        let billing = FakeService::billing(allowed);
        let folder = tempfile::tempdir().unwrap();
        let descriptors = folder.path().join("shop.binpb");
        std::fs::write(&descriptors, descriptor_set()).unwrap();
        let mut config = Config {
            weft_edge_upstreams: format!("shop=http://{shop}"),
            weft_edge_descriptors: Some(descriptors.clone()),
            weft_edge_anonymous_per_minute: 100_000,
            ..Config::default()
        };
        change(&mut config);
        let mesh = MeshConfig {
            weft_service_secret: Some("a secret of at least thirty-two bytes".to_owned().into()),
            weft_identity_url: identity.url(),
            weft_billing_url: billing.url(),
            // Only its health is asked for.
            weft_orchestrator_url: billing.url(),
            weft_drain_ms: 3_000,
            weft_long_request_timeout_ms: 90_000,
            ..MeshConfig::default()
        };
        let shutdown = Shutdown::new();
        let mesh = Mesh::new("gateway", mesh, Clock::System, shutdown.clone());
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(weft_gateway::serve(config, mesh, Arc::new(Products::builtin()), listener));
        let edge = Edge {
            address,
            seen,
            shutdown,
            served,
            signer,
            descriptors,
            _folder: folder,
            _fakes: [identity, billing],
            revoked,
            exchanged,
        };
        eventually("the edge serving", Duration::from_secs(10), || async { edge.try_get("/health").await.is_some() })
            .await;
        edge
    }

    /// The file that describes the shop.
    pub fn descriptors(&self) -> &Path {
        &self.descriptors
    }

    /// The session of `user` is over, or their account is suspended.
    pub fn revoke(&self, user: &str, suspended: bool) {
        let revocation =
            Revocation { id: format!("session of {user}"), expires_at: i64::MAX, suspended, ..Revocation::default() };
        self.revoked.lock().unwrap().push(revocation);
    }

    /// A token of `user` in adiuva.
    pub fn token(&self, user: &str) -> String {
        self.token_of(user, "adiuva")
    }

    pub fn token_of(&self, user: &str, product: &str) -> String {
        self.signer.mint(&claims(user, product, 600))
    }

    /// A token of `user` in adiuva that expires in so many seconds.
    pub fn token_for(&self, user: &str, seconds: i64) -> String {
        self.signer.mint(&claims(user, "adiuva", seconds))
    }

    async fn try_get(&self, path: &str) -> Option<Answer> {
        let request = Request::get(self.url(path)).body(Full::default()).unwrap();
        send(request).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Any request with these headers.
    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request.body(Full::new(body.into())).unwrap()).await.unwrap_or_else(|| panic!("no answer to {path}"))
    }

    /// GET as the user `ana`.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[("authorization", &format!("Bearer {}", self.token("ana")))], "").await
    }

    /// POST of JSON as the user `ana`.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let bearer = format!("Bearer {}", self.token("ana"));
        self.call(Method::POST, path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }

    /// A grpc-web call of the shop as `ana`: the status of the answer, its messages, its trailers.
    pub async fn web(&self, text: bool, rpc: &str, message: &[u8]) -> (Vec<Bytes>, HashMap<String, String>) {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let bearer = format!("Bearer {}", self.token("ana"));
        let kind = if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
        let mut body = frame(message);
        if text {
            body = STANDARD.encode(&body).into();
        }
        let answer = self
            .call(
                Method::POST,
                &format!("/shop.v1.ShopService/{rpc}"),
                &[("authorization", &bearer), ("content-type", kind), ("x-grpc-web", "1")],
                body,
            )
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), kind);
        let mut bytes = answer.body.clone();
        if text {
            // Padded at every flush: decoded part by part.
            let parts = answer.body.chunks(4).map(|part| STANDARD.decode(part).unwrap());
            bytes = parts.flatten().collect::<Vec<u8>>().into();
        }
        let mut trailers: HashMap<String, String> = answer
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("grpc-"))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let mut messages = Vec::new();
        while bytes.has_remaining() {
            let flag = bytes.get_u8();
            let length = bytes.get_u32() as usize;
            let part = bytes.split_to(length);
            if flag == 0 {
                assert!(trailers.is_empty(), "a message behind the trailers");
                messages.push(part);
            } else {
                assert_eq!(flag, 0x80);
                let lines = String::from_utf8(part.to_vec()).unwrap();
                trailers.extend(
                    lines
                        .lines()
                        .map(|line| line.split_once(':').unwrap())
                        .map(|(name, value)| (name.to_owned(), value.to_owned())),
                );
            }
        }
        (messages, trailers)
    }

    /// A native gRPC client with the raw bytes of messages.
    pub async fn grpc(&self) -> tonic::client::Grpc<tonic::transport::Channel> {
        let channel = tonic::transport::Endpoint::from_shared(self.url("")).unwrap().connect().await.unwrap();
        tonic::client::Grpc::new(channel).max_decoding_message_size(usize::MAX)
    }

    /// A request of `ana` for a native client.
    pub fn signed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token("ana")).parse().unwrap());
        request
    }

    /// Bytes on a connection of their own; what comes back until it is closed, or until `patience` is over.
    pub async fn wire(&self, bytes: &[u8], patience: Duration) -> (String, bool) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut back = Vec::new();
        let closed = tokio::time::timeout(patience, stream.read_to_end(&mut back)).await.is_ok();
        (String::from_utf8_lossy(&back).into_owned(), closed)
    }
}

fn signer() -> Signer {
    Signer::from_seed("k1".to_owned(), &[7; 32])
}

fn claims(user: &str, product: &str, seconds: i64) -> Claims {
    let now = Clock::System.now_ms() / 1000;
    Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: user.to_owned(),
        prd: product.to_owned(),
        sid: format!("session of {user}"),
        jti: new_id(),
        email: String::new(),
        roles: Vec::new(),
        scp: None,
        key: None,
        iat: now - 1,
        exp: now + seconds,
    }
}

async fn send(request: Request<Full<Bytes>>) -> Option<Answer> {
    let uri: &Uri = request.uri();
    let authority = uri.authority().unwrap().to_string();
    let stream = TcpStream::connect(&authority).await.ok()?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    parts.headers.entry("host").or_insert(authority.parse().unwrap());
    parts.uri = parts.uri.path_and_query().unwrap().to_string().parse().unwrap();
    let answer = client.send_request(Request::from_parts(parts, body)).await.ok()?;
    let (head, body) = answer.into_parts();
    Some(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.ok()?.to_bytes() })
}

pub fn frame(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.into()
}

pub async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// The shop's descriptors, as an operator would give them.
pub fn descriptor_set() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(compile)
}

fn compile() -> Vec<u8> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([here.join("tests/proto"), here.join("../proto")]).unwrap();
    compiler.include_imports(true).open_file("shop/v1/shop.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

pub fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(descriptor_set()).unwrap()).clone()
}

/// The wire bytes of a message of the shop, from JSON.
pub fn message(name: &str, json: serde_json::Value) -> Vec<u8> {
    let descriptor = pool().get_message_by_name(name).unwrap();
    DynamicMessage::deserialize(descriptor, json).unwrap().encode_to_vec()
}

/// A message of the shop as JSON.
pub fn to_json(name: &str, wire: &[u8]) -> serde_json::Value {
    let descriptor = pool().get_message_by_name(name).unwrap();
    let message = DynamicMessage::decode(descriptor, wire).unwrap();
    let options = prost_reflect::SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Serves the shop until its runtime ends.
pub async fn serve_shop(listener: TcpListener, seen: Seen) {
    let pool = pool();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (pool, seen) = (pool.clone(), seen.clone());
        let service = hyper::service::service_fn(move |request| shop(pool.clone(), seen.clone(), request));
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn shop(
    pool: DescriptorPool,
    seen: Seen,
    request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    let path = request.uri().path().to_owned();
    seen.lock().unwrap().push((path.clone(), request.headers().clone()));
    let rpc = path.rsplit('/').next().unwrap().to_owned();
    let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(usize::MAX);
    let response = match rpc.as_str() {
        "Watch" | "RawStream" => {
            let stream = tower::service_fn(move |request: tonic::Request<Bytes>| {
                let outcome = watch(&pool, rpc == "RawStream", &request.into_inner());
                async move { outcome.map(tonic::Response::new) }
            });
            grpc.server_streaming(stream, request).await
        }
        "Talk" | "StreamComplete" => {
            let stream = tower::service_fn(move |request: tonic::Request<Bytes>| {
                let outcome = talk(&pool, rpc == "StreamComplete", request, seen.clone());
                async move {
                    let mut response = tonic::Response::new(outcome?);
                    response.metadata_mut().insert("x-run-id", "run".parse().unwrap());
                    Ok(response)
                }
            });
            grpc.server_streaming(stream, request).await
        }
        "Sum" => {
            let sum = tower::service_fn(move |request: tonic::Request<tonic::Streaming<Bytes>>| {
                let tick = pool.get_message_by_name("shop.v1.Tick").unwrap();
                async move {
                    let (mut total, mut stream) = (0, request.into_inner());
                    while let Some(message) = stream.next().await {
                        let message = DynamicMessage::decode(tick.clone(), message?).unwrap();
                        total += message.get_field_by_name("number").unwrap().as_i64().unwrap();
                    }
                    let mut answer = DynamicMessage::new(tick);
                    answer.set_field_by_name("number", Value::I64(total));
                    Ok(tonic::Response::new(Bytes::from(answer.encode_to_vec())))
                }
            });
            grpc.client_streaming(sum, request).await
        }
        _ => {
            let one = tower::service_fn(move |request: tonic::Request<Bytes>| {
                let message = request.into_inner();
                if rpc == "StopTalk" {
                    let run = to_json("shop.v1.StopTalkRequest", &message)["run_id"].as_str().unwrap().to_owned();
                    seen.lock().unwrap().push((format!("stopped {run}"), HeaderMap::new()));
                }
                let outcome = unary(&pool, &rpc, message);
                async move { outcome.map(tonic::Response::new) }
            });
            grpc.unary(one, request).await
        }
    };
    Ok(response)
}

fn unary(pool: &DescriptorPool, rpc: &str, message: Bytes) -> Result<Bytes, Status> {
    let service = pool.get_service_by_name("shop.v1.ShopService").unwrap();
    let method =
        service.methods().find(|method| method.name() == rpc).ok_or_else(|| Status::unimplemented("no such rpc"))?;
    let request = DynamicMessage::decode(method.input(), message.clone())
        .map_err(|_error| Reason::InvalidArgument.status("not a message"))?;
    let mut answer = DynamicMessage::new(method.output());
    match rpc {
        // The same message back.
        "Echo" | "PutOrder" | "Search" | "Items" | "Raw" | "Account" => return Ok(message),
        "Price" => {
            answer = request;
            answer.set_field_by_name("total_micros", Value::I64(9_007_199_254_740_993));
            answer.set_field_by_name("status", Value::EnumNumber(2));
        }
        "GetOrder" | "Newest" => {
            let text = |name: &str| request.get_field_by_name(name).unwrap().as_str().unwrap().to_owned();
            answer.set_field_by_name("order_id", Value::String(format!("{rpc}:{}:{}", text("order_id"), text("name"))));
            answer.set_field_by_name("customer", request.get_field_by_name("customer").unwrap().into_owned());
        }
        "Event" | "EventOf" => receive(&request, &mut answer),
        "Hello" => answer.set_field_by_name("number", Value::I64(1)),
        "Fail" | "OpenFail" => return Err(failure(&request)),
        "Complete" => answer.set_field_by_name("response", Value::String(said(&request).concat())),
        _ => {}
    }
    Ok(answer.encode_to_vec().into())
}

/// Says what arrived as an event.
fn receive(request: &DynamicMessage, answer: &mut DynamicMessage) {
    let mut copy = |from: &DynamicMessage, name: &str| {
        answer.set_field_by_name(name, from.get_field_by_name(name).unwrap().into_owned());
    };
    match request.get_field_by_name("event") {
        Some(event) => {
            copy(request, "shop");
            copy(request, "sequence");
            copy(event.as_message().unwrap(), "content_type");
            copy(event.as_message().unwrap(), "data");
        }
        None => {
            copy(request, "content_type");
            copy(request, "data");
        }
    }
}

fn failure(request: &DynamicMessage) -> Status {
    let number = |name: &str| {
        request
            .get_field_by_name(name)
            .unwrap()
            .as_i32()
            .map_or_else(|| request.get_field_by_name(name).unwrap().as_i64().unwrap(), i64::from)
    };
    let reason = request.get_field_by_name("reason").unwrap().as_str().unwrap().to_owned();
    match Reason::from_name(&reason) {
        Some(reason) => {
            let wait = Duration::from_millis(u64::try_from(number("retry_after_ms")).unwrap());
            let details = if wait.is_zero() { ErrorDetails::new() } else { ErrorDetails::with_retry_info(Some(wait)) };
            reason.status_with("told “so”", details)
        }
        None => Status::new(Code::from_i32(i32::try_from(number("code")).unwrap()), "told so"),
    }
}

/// The only API key that is one, of `ana`; see [`Exchanged`].
pub const GOOD_KEY: &str = "sk-weft-goodgoodgoodgoodgoodgoodgoodgoodgoodgoodgoo";
/// Its id.
pub const KEY_ID: &str = "key of ana";

/// An identity that gives tokens for [`GOOD_KEY`]; how often it was asked about anything.
#[derive(Clone, Default)]
pub struct Exchanged(Arc<AtomicUsize>);

impl Exchanged {
    pub fn asked(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl AuthService for Exchanged {
    async fn exchange_token(
        &self,
        request: tonic::Request<ExchangeTokenRequest>,
    ) -> Result<tonic::Response<AccessToken>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if request.get_ref().token != GOOD_KEY {
            return Err(Reason::Unauthenticated.status("no such key"));
        }
        let of_ana = claims("ana", "adiuva", 600);
        let claims = Claims {
            aud: KEY_AUDIENCE.to_owned(),
            sid: key_session(KEY_ID),
            scp: Some(vec!["shop".to_owned()]),
            key: Some(KeyClaim { id: KEY_ID.to_owned(), limit: None }),
            ..of_ana
        };
        let expires_at = claims.exp * 1000;
        Ok(tonic::Response::new(AccessToken { access_token: signer().mint(&claims), expires_at }))
    }

    async fn register(&self, _: tonic::Request<RegisterRequest>) -> Result<tonic::Response<AuthTokens>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn login(&self, _: tonic::Request<LoginRequest>) -> Result<tonic::Response<AuthTokens>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn refresh(&self, _: tonic::Request<RefreshRequest>) -> Result<tonic::Response<AuthTokens>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn logout(&self, _: tonic::Request<LogoutRequest>) -> Result<tonic::Response<LogoutResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_me(&self, _: tonic::Request<GetMeRequest>) -> Result<tonic::Response<UserProfile>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

fn watch(pool: &DescriptorPool, raw: bool, request: &[u8]) -> Result<Messages, Status> {
    let request = DynamicMessage::decode(pool.get_message_by_name("shop.v1.WatchRequest").unwrap(), request).unwrap();
    let number = |name: &str| request.get_field_by_name(name).unwrap().as_i32().unwrap();
    let (count, fail_after) = (number("count"), number("fail_after"));
    if count < 0 {
        return Err(Reason::InvalidArgument.status("count must not be negative"));
    }
    let pool = pool.clone();
    let message = move |index: i32| {
        let mut message = DynamicMessage::new(
            pool.get_message_by_name(if raw { "google.api.HttpBody" } else { "shop.v1.Tick" }).unwrap(),
        );
        if raw {
            message.set_field_by_name("content_type", Value::String("text/csv".to_owned()));
            message.set_field_by_name("data", Value::Bytes(format!("{index}\n").into()));
        } else {
            message.set_field_by_name("number", Value::I64(i64::from(index)));
        }
        Bytes::from(message.encode_to_vec())
    };
    let given = if fail_after > 0 { fail_after } else { count };
    let messages = tokio_stream::iter((1..=given).map(move |index| Ok(message(index))));
    if fail_after > 0 {
        let error = Reason::ProviderStreamInterrupted.status("the provider broke off");
        return Ok(Box::pin(messages.chain(tokio_stream::once(Err(error)))));
    }
    if request.get_field_by_name("hang").unwrap().as_bool().unwrap() {
        return Ok(Box::pin(messages.chain(tokio_stream::pending())));
    }
    Ok(Box::pin(messages))
}

/// What [`talk`] adds to what was seen when an answer is over, or nobody wants more of it.
pub const TALK_OVER: &str = "talk over";

struct TalkOver(Seen);

impl Drop for TalkOver {
    fn drop(&mut self) {
        self.0.lock().unwrap().push((TALK_OVER.to_owned(), HeaderMap::new()));
    }
}

/// What a `TalkRequest` wants to be said.
fn said(request: &DynamicMessage) -> Vec<String> {
    let field = |name: &str| request.get_field_by_name(name).unwrap().into_owned();
    let mut say: Vec<String> =
        field("say").as_list().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    let last = say.last().cloned().unwrap_or_default();
    say.extend((1..field("times").as_i32().unwrap()).map(|_| last.clone()));
    say
}

/// Events `run.0`, `run.1` …, behind the one that `last-event-id` names; then an answer without a request says `again`.
fn talk(pool: &DescriptorPool, whole: bool, request: tonic::Request<Bytes>, seen: Seen) -> Result<Messages, Status> {
    let after = request.metadata().get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
    let message = pool.get_message_by_name("shop.v1.TalkRequest").unwrap();
    let request = DynamicMessage::decode(message, request.into_inner()).unwrap();
    let field = |name: &str| request.get_field_by_name(name).unwrap().into_owned();
    let (event, done) =
        (pool.get_message_by_name("shop.v1.TalkEvent").unwrap(), pool.get_message_by_name("shop.v1.TalkDone").unwrap());
    let say = if after.is_some() { ["a", "g", "ain"].map(str::to_owned).to_vec() } else { said(&request) };
    let hang = field("hang").as_bool().unwrap();
    let fail_after = field("fail_after").as_i32().unwrap() as usize;
    let ending = |text: String| {
        let mut message = DynamicMessage::new(done.clone());
        message.set_field_by_name("response", Value::String(text));
        message.set_field_by_name("room", field("room"));
        message
    };
    let mut events: Vec<DynamicMessage> = Vec::new();
    for text in &say {
        if whole {
            events.push(ending(text.clone()));
            continue;
        }
        let mut message = DynamicMessage::new(event.clone());
        message.set_field_by_name("token", Value::String(text.clone()));
        events.push(message);
    }
    if !whole && !hang {
        let mut message = DynamicMessage::new(event.clone());
        message.set_field_by_name("done", Value::Message(ending(say.concat())));
        events.push(message);
    }
    if !whole {
        for (number, message) in events.iter_mut().enumerate() {
            message.set_field_by_name("id", Value::String(format!("run.{number}")));
        }
    }
    let first = after.map_or(0, |id| id.rsplit('.').next().unwrap().parse::<usize>().unwrap() + 1);
    let mut outcomes: Vec<Result<Bytes, Status>> =
        events.into_iter().skip(first).map(|message| Ok(message.encode_to_vec().into())).collect();
    if fail_after > 0 {
        outcomes.truncate(fail_after);
        outcomes.push(Err(Reason::ProviderStreamInterrupted.status("the provider broke off")));
    }
    let over = TalkOver(seen);
    let messages = tokio_stream::iter(outcomes).map(move |one| {
        let _alive = &over;
        one
    });
    if hang { Ok(Box::pin(messages.chain(tokio_stream::pending()))) } else { Ok(Box::pin(messages)) }
}

/// Everybody is on the plan `free`. Only some users have a rate: `limited`; `sixty…`, one a second; `seat…`, who share
/// what their organization pays for; `climber`, whose plan changes. Whoever asks for `frozen` again freezes it.
fn allowed(user_id: &str) -> Entitlements {
    static FROZEN: AtomicBool = AtomicBool::new(false);
    if user_id == "frozen" && FROZEN.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(10));
    }
    let mut allowed = Entitlements { plan: "free".to_owned(), ..Entitlements::default() };
    match user_id {
        "limited" => allowed.requests_per_minute = Some(LIMITED),
        "climber" => allowed.requests_per_minute = Some(CLIMBER.load(Ordering::Relaxed)),
        user if user.starts_with("sixty") => allowed.requests_per_minute = Some(60),
        user if user.starts_with("seat") => {
            allowed.requests_per_minute = Some(SEAT);
            allowed.organization_requests_per_minute = Some(ORGANIZATION);
            allowed.payer_id = "the organization".to_owned();
        }
        _ => {}
    }
    allowed
}
