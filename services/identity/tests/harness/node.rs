//! One identity server and calls to it.
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use weft_auth::{PRODUCT_HEADER, SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::Reason;
use weft_identity::{Config, Error};
use weft_product::Products;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::identity::v1::key_service_client::KeyServiceClient;
use weft_proto::identity::v1::{
    AuthTokens, GetJwksRequest, GetMeRequest, Jwks, ListRevocationsRequest, ListRevocationsResponse, LoginRequest,
    LogoutRequest, RefreshRequest, RegisterRequest, ReportUseRequest, UserProfile,
};
use weft_runtime::{Mesh, Shutdown};
use weft_testing::eventually;

use super::{PASSWORD, PRODUCT};

/// What a call came to: an answer, or why not.
pub type Outcome<T> = Result<T, Reason>;

/// Why a call failed, for clients.
pub fn reason(status: &Status) -> Reason {
    Reason::of(status).unwrap_or_else(|| panic!("a status without a reason: {status:?}"))
}

/// What a call came to. One whose connection broke before anybody answered is made once more, as clients of the mesh do.
async fn outcome<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> Outcome<T> {
    let answered = match call().await {
        Err(status) if Reason::of(&status).is_none() => call().await,
        answered => answered,
    };
    answered.map(Response::into_inner).map_err(|status| reason(&status))
}

/// The pair that somebody holds.
pub type Session = AuthTokens;

/// A running server.
pub struct Node {
    pub channel: Channel,
    /// Where other services find it.
    pub url: String,
    shutdown: Shutdown,
    serving: JoinHandle<Result<(), Error>>,
}

impl Node {
    pub async fn start(config: Config, mesh: Mesh, products: Arc<Products>) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint::from_shared(url.clone()).unwrap();
        let shutdown = mesh.shutdown().clone();
        #[expect(clippy::disallowed_methods, reason = "joined in stop, or ends with the test")]
        let serving = tokio::spawn(weft_identity::serve(config, mesh, products, listener));
        let node = Node { channel: endpoint.connect_lazy(), url, shutdown, serving };
        eventually("the server's first answer", Duration::from_secs(20), async || {
            assert!(!node.serving.is_finished(), "the server ended");
            KeyServiceClient::new(node.channel.clone()).get_jwks(GetJwksRequest {}).await.is_ok()
        })
        .await;
        node
    }

    /// Shuts it down and waits for its end.
    pub async fn stop(self) {
        drop(self.channel);
        self.shutdown.trigger();
        self.serving.await.unwrap().unwrap();
    }

    pub fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel.clone())
    }

    pub async fn register_in(&self, product: &str, email: &str, password: &str) -> Result<AuthTokens, Status> {
        let message = RegisterRequest { email: email.to_owned(), password: password.to_owned() };
        Ok(self.auth().register(with(product, None, message)).await?.into_inner())
    }

    /// A new account with the right password.
    pub async fn register(&self, email: &str) -> AuthTokens {
        self.register_in(PRODUCT, email, PASSWORD).await.unwrap()
    }

    pub async fn login_in(&self, product: &str, email: &str, password: &str) -> Result<AuthTokens, Status> {
        let message =
            LoginRequest { email: email.to_owned(), password: password.to_owned(), ..LoginRequest::default() };
        Ok(self.auth().login(with(product, None, message)).await?.into_inner())
    }

    pub async fn login(&self, email: &str) -> Outcome<AuthTokens> {
        self.login_in(PRODUCT, email, PASSWORD).await.map_err(|status| reason(&status))
    }

    pub async fn refresh_in(&self, product: &str, token: &str) -> Outcome<AuthTokens> {
        let message = RefreshRequest { refresh_token: token.to_owned() };
        outcome(async || self.auth().refresh(with(product, None, message.clone())).await).await
    }

    pub async fn refresh(&self, tokens: &AuthTokens) -> Outcome<AuthTokens> {
        self.refresh_in(PRODUCT, &tokens.refresh_token).await
    }

    pub async fn me(&self, tokens: &AuthTokens) -> Outcome<UserProfile> {
        self.me_in(PRODUCT, tokens).await
    }

    pub async fn me_in(&self, product: &str, tokens: &AuthTokens) -> Outcome<UserProfile> {
        outcome(async || self.auth().get_me(with(product, Some(&tokens.access_token), GetMeRequest {})).await).await
    }

    pub async fn logout(&self, tokens: &AuthTokens) -> Outcome<bool> {
        let message = || with(PRODUCT, Some(&tokens.access_token), LogoutRequest {});
        outcome(async || self.auth().logout(message()).await).await.map(|answer| answer.ok)
    }

    /// Calls any RPC with a token; for those that few tests call.
    pub async fn call<M, A>(&self, tokens: &AuthTokens, path: &'static str, message: M) -> Result<A, Status>
    where
        M: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call_as(Some(&tokens.access_token), path, message).await
    }

    /// The same in any product.
    pub async fn call_in<M, A>(
        &self,
        product: &str,
        tokens: &AuthTokens,
        path: &'static str,
        message: M,
    ) -> Result<A, Status>
    where
        M: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        let request = with(product, Some(&tokens.access_token), message);
        Ok(grpc.unary(request, path, ProstCodec::<M, A>::default()).await?.into_inner())
    }

    /// The same, perhaps as nobody.
    pub async fn call_as<M, A>(&self, token: Option<&str>, path: &'static str, message: M) -> Result<A, Status>
    where
        M: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::from_static(path);
        Ok(grpc.unary(with(PRODUCT, token, message), path, ProstCodec::<M, A>::default()).await?.into_inner())
    }

    pub async fn jwks(&self) -> Jwks {
        KeyServiceClient::new(self.channel.clone()).get_jwks(GetJwksRequest {}).await.unwrap().into_inner()
    }

    pub async fn report_use(&self, service: &ServiceKey, token_ids: Vec<String>) -> Result<(), Status> {
        let mut request = Request::new(ReportUseRequest { token_ids });
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, service.mint("identity").parse().unwrap());
        KeyServiceClient::new(self.channel.clone()).report_use(request).await.map(drop)
    }

    pub async fn revocations(
        &self,
        service: &ServiceKey,
        page_token: &str,
        page_size: i32,
    ) -> Result<ListRevocationsResponse, Status> {
        let mut request = Request::new(ListRevocationsRequest { page_token: page_token.to_owned(), page_size });
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, service.mint("identity").parse().unwrap());
        Ok(KeyServiceClient::new(self.channel.clone()).list_revocations(request).await?.into_inner())
    }
}

/// The id of an access token.
pub fn token_id(tokens: &AuthTokens) -> String {
    claim(tokens, "jti").as_str().unwrap().to_owned()
}

/// A call for a product, perhaps signed in.
pub fn with<M>(product: &str, access_token: Option<&str>, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(PRODUCT_HEADER, product.parse().unwrap());
    if let Some(token) = access_token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// A claim of an access token.
pub fn claim(tokens: &AuthTokens, name: &str) -> serde_json::Value {
    let payload = tokens.access_token.split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims[name].clone()
}
