//! The refresh race, and whatever ends a session, against three identity processes.
use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Request};
use weft_core::Reason;
use weft_proto::identity::v1::auth_service_client::AuthServiceClient;
use weft_proto::identity::v1::{AuthTokens, GetMeRequest, RefreshRequest, RegisterRequest};
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::Client;
use weft_testing::smtp::link_token;
use weft_testing::{eventually, postgres};

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

/// A mesh with three identity processes on one database, and a client of each.
async fn three(postgres: bool, environment: &[(&str, &str)]) -> (Mesh, Vec<AuthServiceClient<Channel>>) {
    let mut options = Options::new(WEFT);
    if postgres {
        options.postgres = Some(postgres::shared().await.database().await);
    }
    options.identities = 3;
    options.environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mesh = Mesh::start(options).await;
    let mut replicas = Vec::new();
    for process in &mesh.identities {
        replicas.push(AuthServiceClient::connect(process.url.clone()).await.unwrap());
    }
    (mesh, replicas)
}

/// Five rounds here; `scripts/prove refresh` runs 200.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_refreshes_leave_one_usable_leaf_and_nobody_logged_out() {
    for postgres in [true, false] {
        refresh_in_parallel(postgres).await;
    }
}

#[expect(clippy::print_stdout, reason = "the figures of the proof")]
async fn refresh_in_parallel(postgres: bool) {
    let rounds: usize =
        std::env::var_os("WEFT_PROVE_ROUNDS").map_or(5, |rounds| rounds.to_str().unwrap().parse().unwrap());
    let (_mesh, replicas) = three(postgres, &[]).await;
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
    tokio::join!(replay(true), replay(false));
}

async fn replay(postgres: bool) {
    let (_mesh, replicas) = three(postgres, &[]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_by_a_link_ends_every_session_on_every_process() {
    tokio::join!(reset(true), reset(false));
}

async fn reset(postgres: bool) {
    let mail = tempfile::tempdir().unwrap();
    let (mesh, replicas) = three(postgres, &[("WEFT_MAIL_DIR", mail.path().to_str().unwrap())]).await;
    let client = Client::new(mesh.edge(), "adiuva");
    let ana = json!({"email": "ana@example.com", "password": "correct horse battery"});
    let mut sessions: Vec<AuthTokens> = Vec::new();
    for path in ["register", "login", "login"] {
        let (status, tokens) = client.post(&format!("/api/v1/auth/{path}"), None, &ana).await;
        assert_eq!(status, 200, "{tokens}");
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        sessions.push(AuthTokens {
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
            expires_at: 0,
        });
    }
    for email in ["nobody@example.com", "ana@example.com"] {
        let told = client.post("/api/v1/auth/password/forgot", None, &json!({"email": email})).await;
        assert_eq!(told, (202, json!({"ok": true})), "{email}");
    }
    let mails = || {
        let files = std::fs::read_dir(mail.path()).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "eml")).collect::<Vec<_>>()
    };
    eventually("the mail", Duration::from_secs(10), || async { !mails().is_empty() }).await;
    let text = std::fs::read_to_string(&mails()[0]).unwrap();
    let (_, token) = link_token(&text);
    let new = json!({"token": token, "new_password": "another horse battery"});
    assert_eq!(client.post("/api/v1/auth/password/reset", None, &new).await, (200, json!({"ok": true})));
    let (status, refused) = client.post("/api/v1/auth/password/reset", None, &new).await;
    assert_eq!(status, 400, "a link works once: {refused}");
    for replica in &replicas {
        for tokens in &sessions {
            assert_eq!(refresh(replica, &tokens.refresh_token).await.unwrap_err().code(), Code::Unauthenticated);
            eventually("the session to be over", Duration::from_secs(1), || async {
                me(replica, &tokens.access_token).await.is_err_and(|status| status.code() == Code::Unauthenticated)
            })
            .await;
        }
    }
    assert_eq!(client.post("/api/v1/auth/login", None, &ana).await.0, 401, "the old password");
    assert_eq!(mails().len(), 1, "nobody has the other address");
}
