//! The guard in front of a real server.
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use weft_auth::{Caller, Guard, GuardLayer, Policies, SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::{Clock, Reason};
use weft_proto::Channel;
use weft_proto::billing::v1::CheckFeatureRequest;
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;

use crate::fakes::{Billing, START_MS, claims, connect, secret, signer, verifier};

/// A billing behind its guard, with health and reflection.
async fn guarded(tasks: &mut JoinSet<()>) -> Channel {
    let policies = Arc::new(Policies::of(weft_proto::descriptors()).unwrap());
    let guard = Guard::new(policies, verifier(&[&signer("one")], &Clock::manual(START_MS)))
        .with_service_key(ServiceKey::new(&secret(), "billing"));
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(weft_proto::DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let routes = Routes::new(Billing::with_features(&[]).server()).add_service(health).add_service(reflection);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(GuardLayer::new(guard)).add_routes(routes);
    tasks.spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    connect(&format!("http://{address}"))
}

/// Which service the server takes us for.
async fn whoami(channel: &Channel, headers: &[(&'static str, String)]) -> Result<String, Status> {
    let mut request = Request::new(CheckFeatureRequest::default());
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    Ok(EntitlementServiceClient::new(channel.clone()).check_feature(request).await?.into_inner().plan)
}

#[tokio::test]
async fn an_admitted_call_reaches_its_handler_with_its_caller() {
    let mut tasks = JoinSet::new();
    let channel = guarded(&mut tasks).await;
    let token = ServiceKey::new(&secret(), "gateway").mint("billing");
    assert_eq!(whoami(&channel, &[(SERVICE_TOKEN_HEADER, token)]).await.unwrap(), "gateway");
}

#[tokio::test]
async fn a_refused_call_is_answered_with_its_reason() {
    let mut tasks = JoinSet::new();
    let channel = guarded(&mut tasks).await;
    let status = whoami(&channel, &[]).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unauthenticated, Some(Reason::Unauthenticated)));

    let bearer = format!("Bearer {}", signer("one").mint(&claims("ada")));
    let status = whoami(&channel, &[("authorization", bearer)]).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::PermissionDenied, Some(Reason::PermissionDenied)));
}

#[tokio::test]
async fn an_unknown_path_is_unimplemented() {
    let mut tasks = JoinSet::new();
    let mut client = tonic::client::Grpc::new(guarded(&mut tasks).await);
    client.ready().await.unwrap();
    let path = "/weft.billing.v1.EntitlementService/Nothing".parse().unwrap();
    let status = client.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await.unwrap_err();
    assert_eq!((status.code(), Reason::of(&status)), (Code::Unimplemented, Some(Reason::Unimplemented)));
}

#[tokio::test]
async fn health_and_reflection_answer_without_a_token() {
    let mut tasks = JoinSet::new();
    let channel = guarded(&mut tasks).await;
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();

    let message_request = Some(MessageRequest::ListServices(String::new()));
    let ask = ServerReflectionRequest { host: String::new(), message_request };
    let answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let first = answers.into_inner().next().await.unwrap().unwrap();
    assert!(format!("{first:?}").contains("weft.billing.v1.EntitlementService"));
}

#[test]
fn a_handler_without_a_guard_in_front_has_no_caller() {
    assert_eq!(Caller::of(&Request::new(())).unwrap_err().code(), Code::Internal);
}
