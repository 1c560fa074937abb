//! Services of one process, which call each other without a connection.
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tonic::{Code, Request};
use weft_core::{Clock, Reason};
use weft_proto::billing::v1::entitlement_service_client::EntitlementServiceClient;
use weft_proto::orchestrator::v1::chat_service_client::ChatServiceClient;
use weft_runtime::{Mesh, Neighbours, Shutdown, Tasks};
use weft_testing::eventually;

use crate::support::{Fake, chat, config, entitlements, reason, signed_in};

/// At every URL is nobody: what is answered came from a neighbour.
fn mesh(neighbours: &Neighbours, service: &'static str) -> Mesh {
    Mesh::beside(neighbours.clone(), service, config("http://127.0.0.1:1"), Clock::System, Shutdown::new())
}

/// Serves as `mesh` says.
async fn serve(mesh: &Mesh) -> (Fake, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (fake, tasks) = (Fake::default(), Tasks::new());
    let server = fake.server(mesh);
    tasks.spawn("server", async move { server.serve(listener).await.unwrap() });
    (fake, tasks)
}

#[tokio::test]
async fn a_call_waits_for_its_neighbour_and_proves_itself() {
    let neighbours = Neighbours::new(["billing", "gateway"]);
    let (billing, gateway) = (mesh(&neighbours, "billing"), mesh(&neighbours, "gateway"));
    let mut client = EntitlementServiceClient::new(gateway.channel("billing"));
    let mut early = client.clone();
    let (early, (fake, _tasks)) = tokio::join!(early.get_entitlements(entitlements("x")), serve(&billing));
    early.unwrap();

    let (headers, caller) = fake.last();
    assert_eq!(caller.service.as_deref(), Some("gateway"));
    assert!(headers.contains_key("grpc-timeout"));
    let answer = client.get_entitlements(entitlements("y")).await.unwrap().into_inner();
    assert_eq!((answer.product.as_str(), fake.calls()), ("y", 2));

    let mut nobody = config("http://127.0.0.1:1");
    nobody.weft_service_secret = None;
    let nobody = Mesh::beside(neighbours, "gateway", nobody, Clock::System, Shutdown::new());
    let refused = EntitlementServiceClient::new(nobody.channel("billing")).get_entitlements(entitlements("x")).await;
    assert_eq!(reason(refused), Reason::Unauthenticated, "the guard is not passed by");
}

#[tokio::test]
async fn a_neighbours_mistakes_are_those_of_one_call() {
    let neighbours = Neighbours::new(["billing", "orchestrator"]);
    let (billing, orchestrator) = (mesh(&neighbours, "billing"), mesh(&neighbours, "orchestrator"));
    let (_fake, tasks) = serve(&billing).await;
    let mut client = EntitlementServiceClient::new(orchestrator.channel("billing"));
    assert_eq!(client.get_entitlements(entitlements("panic")).await.unwrap_err().code(), Code::Internal);
    let mut hangs = Request::new(entitlements("hang"));
    hangs.set_timeout(Duration::from_millis(50));
    assert_eq!(reason(client.get_entitlements(hangs).await), Reason::DeadlineExceeded);
    client.get_entitlements(entitlements("x")).await.unwrap();

    let (_fake, _tasks) = serve(&orchestrator).await;
    let mut chats = ChatServiceClient::new(orchestrator.channel("orchestrator"));
    let mut stream = chats.stream_chat(signed_in(chat("bare internal"))).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Internal);

    billing.shutdown().trigger();
    assert!(tasks.drain(Duration::from_secs(30)).await, "a call that was given up is not waited for");
}

#[tokio::test]
async fn a_neighbour_ends_its_calls_and_then_is_away() {
    let neighbours = Neighbours::new(["billing", "gateway"]);
    let (billing, gateway) = (mesh(&neighbours, "billing"), mesh(&neighbours, "gateway"));
    let (fake, tasks) = serve(&billing).await;
    let mut client = EntitlementServiceClient::new(gateway.channel("billing"));
    let mut late = client.clone();
    let answer = async {
        late.get_entitlements(entitlements("half a second")).await.unwrap();
        Instant::now()
    };
    let end = async {
        eventually("the call", Duration::from_secs(10), async || fake.calls() == 1).await;
        billing.shutdown().trigger();
        assert!(tasks.drain(Duration::from_secs(30)).await);
        Instant::now()
    };
    let (answered, ended) = tokio::join!(answer, end);
    assert!(answered <= ended, "the server has ended under a call");
    assert_eq!(reason(client.get_entitlements(entitlements("x")).await), Reason::Unavailable);
}
