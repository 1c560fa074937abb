//! An identity that has one key and never ends a session.
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weft_proto::identity::v1::key_service_server::{KeyService, KeyServiceServer};
use weft_proto::identity::v1::{GetJwksRequest, Jwk, Jwks, ListRevocationsRequest, ListRevocationsResponse};

/// Starts it and answers its URL.
pub async fn start(key: Jwk) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        let server = Server::builder().add_service(KeyServiceServer::new(OneKey(key)));
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    url
}

struct OneKey(Jwk);

#[tonic::async_trait]
impl KeyService for OneKey {
    async fn get_jwks(&self, _request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        Ok(Response::new(Jwks { keys: vec![self.0.clone()] }))
    }

    async fn list_revocations(
        &self,
        _request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        Ok(Response::new(ListRevocationsResponse { revocations: Vec::new(), next_page_token: "0".to_owned() }))
    }
}
