//! The refresh race against three identity processes.
use std::collections::HashSet;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request};
use weft_core::Reason;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::identity::v1::{AuthTokens, GetMeRequest, RefreshRequest, RegisterRequest};
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::postgres;

use crate::WEFT;

/// Parallel refreshes of one token.
const RACERS: usize = 50;

fn for_adiuva<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-weft-product", "adiuva".parse().unwrap());
    request
}

async fn refresh(client: &AuthServiceClient<Channel>, token: &str) -> Result<AuthTokens, tonic::Status> {
    let request = for_adiuva(RefreshRequest { refresh_token: token.to_owned() });
    client.clone().refresh(request).await.map(tonic::Response::into_inner)
}

async fn me(client: &AuthServiceClient<Channel>, token: &str) -> Result<(), tonic::Status> {
    let mut request = for_adiuva(GetMeRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    client.clone().get_me(request).await.map(drop)
}

/// Five rounds here; `scripts/prove refresh` runs 200.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_refreshes_leave_one_usable_leaf_and_nobody_logged_out() {
    let rounds: usize =
        std::env::var_os("WEFT_PROVE_ROUNDS").map_or(5, |rounds| rounds.to_str().unwrap().parse().unwrap());
    let mut options = Options::new(WEFT);
    options.postgres = Some(postgres::shared().await.database().await);
    options.identities = 3;
    let mesh = Mesh::start(options).await;
    let mut replicas = Vec::new();
    for process in &mesh.identities {
        replicas.push(AuthServiceClient::connect(process.url.clone()).await.unwrap());
    }
    let register =
        RegisterRequest { email: "racer@example.com".to_owned(), password: "correct horse battery".to_owned() };
    let mut current = replicas[0].clone().register(for_adiuva(register)).await.unwrap().into_inner();

    for round in 0..rounds {
        let mut racing = tokio::task::JoinSet::new();
        for racer in 0..RACERS {
            let (client, token) = (replicas[racer % replicas.len()].clone(), current.refresh_token.clone());
            racing.spawn(async move { refresh(&client, &token).await });
        }
        let mut leaves = HashSet::new();
        let mut answers = Vec::new();
        while let Some(answer) = racing.join_next().await {
            let answer = answer
                .unwrap()
                .unwrap_or_else(|status| panic!("round {round}: an honest client was refused: {status}"));
            leaves.insert(answer.refresh_token.clone());
            answers.push(answer);
        }
        assert_eq!((answers.len(), leaves.len()), (RACERS, 1), "round {round}: one successor");
        let next = answers.pop().unwrap();
        for replica in &replicas {
            me(replica, &next.access_token).await.unwrap_or_else(|status| panic!("round {round}: {status}"));
        }
        current = next;
    }
    println!("{rounds} rounds of {RACERS} parallel refreshes over {} processes: one leaf each", replicas.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_of_another_product_is_nothing_here() {
    let mesh = Mesh::start(Options::new(WEFT)).await;
    let mut client = AuthServiceClient::connect(mesh.identities[0].url.clone()).await.unwrap();
    let register =
        RegisterRequest { email: "racer@example.com".to_owned(), password: "correct horse battery".to_owned() };
    let tokens = client.register(for_adiuva(register)).await.unwrap().into_inner();
    let mut request = Request::new(RefreshRequest { refresh_token: tokens.refresh_token.clone() });
    request.metadata_mut().insert("x-weft-product", "zerobs".parse().unwrap());
    let refused = client.refresh(request).await.unwrap_err();
    assert_eq!((refused.code(), Reason::of(&refused)), (Code::Unauthenticated, Some(Reason::Unauthenticated)));
    assert!(refresh(&client, &tokens.refresh_token).await.is_ok(), "and it still works where it belongs");
}

/// In real time, because processes have no clock that a test could move: the grace is 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_the_grace_ends_the_session_on_every_process_within_a_second() {
    let mut options = Options::new(WEFT);
    options.postgres = Some(postgres::shared().await.database().await);
    options.identities = 3;
    let mesh = Mesh::start(options).await;
    let mut replicas = Vec::new();
    for process in &mesh.identities {
        replicas.push(AuthServiceClient::connect(process.url.clone()).await.unwrap());
    }
    let register =
        RegisterRequest { email: "robbed@example.com".to_owned(), password: "correct horse battery".to_owned() };
    let stolen = replicas[0].clone().register(for_adiuva(register)).await.unwrap().into_inner();
    let honest = refresh(&replicas[1], &stolen.refresh_token).await.unwrap();
    me(&replicas[1], &honest.access_token).await.expect("the successor is used");

    let thief = &replicas[2];
    eventually("the replay to be found out", Duration::from_secs(20), || async {
        match refresh(thief, &stolen.refresh_token).await {
            Ok(repeated) => {
                assert_eq!(repeated.refresh_token, honest.refresh_token, "within the grace it is the same pair");
                false
            }
            Err(status) => Reason::of(&status) == Some(Reason::RefreshReused),
        }
    })
    .await;
    for replica in &replicas {
        eventually("the session to be over", Duration::from_secs(1), || async {
            me(replica, &honest.access_token).await.is_err_and(|status| status.code() == Code::Unauthenticated)
        })
        .await;
        let refused = refresh(replica, &honest.refresh_token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}
