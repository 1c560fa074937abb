//! Accounts that are connected to GitHub.
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tonic::Request;
use weft_auth::{PRODUCT_HEADER, SERVICE_TOKEN_HEADER};
use weft_core::Reason;
use weft_identity::{Config, GitHubConfig};
use weft_proto::identity::v1::git_hub_service_client::GitHubServiceClient;
use weft_proto::identity::v1::{
    DisconnectRequest, DisconnectResponse, FinishConnectRequest, GetConnectionStatusRequest, GetGitHubTokenRequest,
    GitHubConnection, GitHubToken, StartConnectRequest, StartConnectResponse,
};
use weft_testing::github::{CLIENT_ID, CLIENT_SECRET, GitHubStub, Misbehave};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, Outcome, PRODUCT, Session, World, claim, reason};

on_both_databases! {
    an_account_is_connected_and_its_token_is_nowhere_in_plain
    a_state_is_good_once_for_its_account_for_ten_minutes
    when_github_refuses_or_does_not_answer_nothing_is_connected
    a_token_of_another_account_does_not_open
    twenty_who_ask_for_an_expired_token_renew_it_once
    a_renewal_that_fails_is_told_and_tried_again_and_one_that_is_refused_is_over
    a_disconnected_token_is_worth_nothing_anywhere
    no_token_is_lost_while_keys_rotate
}

const BACK: &str = "http://localhost:3000/github";
const TOKEN_PATH: &str = "/login/oauth/access_token";

/// How servers know the stub.
fn config(world: &World, github: &GitHubStub) -> Config {
    let app = GitHubConfig {
        github_client_id: Some(CLIENT_ID.to_owned()),
        github_client_secret: Some(CLIENT_SECRET.into()),
        github_api_base: Some(github.url().to_owned()),
        github_oauth_base: Some(github.url().to_owned()),
    };
    Config { github: app, ..world.config.clone() }
}

async fn start(node: &Node, tokens: &Session, redirect_uri: &str) -> Outcome<StartConnectResponse> {
    let message = StartConnectRequest { redirect_uri: redirect_uri.to_owned() };
    let answer = node.call(tokens, "/weft.identity.v1.GitHubService/StartConnect", message).await;
    answer.map_err(|status| reason(&status))
}

async fn finish(node: &Node, tokens: &Session, code: &str, state: &str) -> Outcome<GitHubConnection> {
    let message = FinishConnectRequest { code: code.to_owned(), state: state.to_owned() };
    let answer = node.call(tokens, "/weft.identity.v1.GitHubService/FinishConnect", message).await;
    answer.map_err(|status| reason(&status))
}

/// The whole way.
async fn connect(node: &Node, github: &GitHubStub, tokens: &Session, login: &str) -> GitHubConnection {
    let begun = start(node, tokens, BACK).await.unwrap();
    let (code, state) = github.allow(&begun.authorization_url, login).await;
    assert_eq!(state, begun.state);
    finish(node, tokens, &code, &state).await.unwrap()
}

async fn status(node: &Node, tokens: &Session) -> Outcome<GitHubConnection> {
    let path = "/weft.identity.v1.GitHubService/GetConnectionStatus";
    node.call(tokens, path, GetConnectionStatusRequest {}).await.map_err(|status| reason(&status))
}

async fn disconnect(node: &Node, tokens: &Session) {
    let path = "/weft.identity.v1.GitHubService/Disconnect";
    let answer: DisconnectResponse = node.call(tokens, path, DisconnectRequest {}).await.unwrap();
    assert!(answer.ok);
}

/// What a service is told.
async fn token_as(world: &World, node: &Node, service: &'static str, tokens: &Session) -> Outcome<GitHubToken> {
    let account_id = claim(tokens, "sub").as_str().unwrap().to_owned();
    let mut request = Request::new(GetGitHubTokenRequest { account_id });
    request.metadata_mut().insert(PRODUCT_HEADER, PRODUCT.parse().unwrap());
    request.metadata_mut().insert(SERVICE_TOKEN_HEADER, world.service(service).mint("identity").parse().unwrap());
    let answer = GitHubServiceClient::new(node.channel.clone()).get_git_hub_token(request).await;
    answer.map(|answer| answer.into_inner()).map_err(|status| reason(&status))
}

async fn token(world: &World, node: &Node, tokens: &Session) -> Outcome<GitHubToken> {
    token_as(world, node, "workspace", tokens).await
}

async fn an_account_is_connected_and_its_token_is_nowhere_in_plain(world: &World) {
    let github = GitHubStub::start().await;
    github.expire_after(Some(28_800));
    let node = world.node_with(config(world, &github)).await;
    let ana = node.register("ana@example.com").await;
    assert_eq!(status(&node, &ana).await, Err(Reason::NotFound));
    assert_eq!(token(world, &node, &ana).await, Err(Reason::NotFound));
    for elsewhere in ["", "https://evil.example.com/", "http://localhost:3000@evil.example.com/", "javascript:x"] {
        assert_eq!(start(&node, &ana, elsewhere).await.map(drop), Err(Reason::InvalidArgument), "{elsewhere}");
    }
    let connection = connect(&node, &github, &ana, "ana-hub").await;
    assert_eq!((connection.login.as_str(), connection.connected_at), ("ana-hub", world.clock.now_ms()));
    assert_eq!(connection.scopes, ["repo"]);
    assert_eq!(status(&node, &ana).await, Ok(connection));
    let given = token(world, &node, &ana).await.unwrap();
    assert!(github.is_good(&given.token));
    assert_eq!((given.login.as_str(), given.expires_at), ("ana-hub", world.clock.now_ms() + 28_800_000));
    assert_eq!(token_as(world, &node, "orchestrator", &ana).await, Err(Reason::PermissionDenied));

    let sealed: Vec<Vec<u8>> = world.column("SELECT sealed FROM github_connections LIMIT 10").await;
    let mut kept = sealed;
    if world.config.database_url.starts_with("sqlite") {
        kept.extend(world.files().iter().map(|file| std::fs::read(file).unwrap()));
    }
    for secret in github.tokens().iter().map(String::as_str).chain([CLIENT_SECRET]) {
        let found = |bytes: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!kept.iter().any(found), "a secret is in the database");
    }
    assert_eq!(github.tokens().len(), 2);
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY number LIMIT 10").await;
    assert_eq!(kinds, ["register", "github_connected"]);

    let old = given.token;
    let connection = connect(&node, &github, &ana, "ana-at-work").await;
    assert_eq!(connection.login, "ana-at-work");
    assert!(!github.is_good(&old), "what nobody knows any more is given back");
    let plain = world.node().await;
    assert_eq!(start(&plain, &ana, BACK).await.map(drop), Err(Reason::PreconditionFailed), "without an app");
}

async fn a_state_is_good_once_for_its_account_for_ten_minutes(world: &World) {
    let github = GitHubStub::start().await;
    let node = world.node_with(config(world, &github)).await;
    let (ana, eve) = (node.register("ana@example.com").await, node.register("eve@example.com").await);
    let begun = start(&node, &ana, BACK).await.unwrap();
    let (code, state) = github.allow(&begun.authorization_url, "eve-hub").await;
    assert_eq!(finish(&node, &eve, &code, &state).await, Err(Reason::InvalidArgument), "another account's");
    assert_eq!(finish(&node, &ana, &code, &state[1..]).await, Err(Reason::InvalidArgument));
    let twice = join_all((0..5).map(|_| finish(&node, &ana, &code, &state))).await;
    assert_eq!(twice.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{twice:?}");
    assert_eq!(github.calls("exchange"), 1);

    let begun = start(&node, &ana, BACK).await.unwrap();
    let (code, state) = github.allow(&begun.authorization_url, "ana-hub").await;
    world.pass(600);
    let ana = node.login("ana@example.com").await.unwrap();
    assert_eq!(finish(&node, &ana, &code, &state).await, Err(Reason::InvalidArgument), "too late");
    let hashes: Vec<String> = world.column("SELECT hash FROM github_states LIMIT 10").await;
    assert!(!hashes.iter().any(|hash| hash.contains(&state)), "states are not stored");
}

async fn when_github_refuses_or_does_not_answer_nothing_is_connected(world: &World) {
    let github = GitHubStub::start().await;
    let node = world.node_with(config(world, &github)).await;
    let ana = node.register("ana@example.com").await;
    for (path, misbehave, expected) in [
        (TOKEN_PATH, Misbehave::Refuse("bad_verification_code"), Reason::InvalidArgument),
        (TOKEN_PATH, Misbehave::Refuse("incorrect_client_credentials"), Reason::Unavailable),
        (TOKEN_PATH, Misbehave::Status(500), Reason::Unavailable),
        (TOKEN_PATH, Misbehave::Malformed, Reason::Unavailable),
        (TOKEN_PATH, Misbehave::Slow(Duration::from_secs(60)), Reason::Unavailable),
        ("/user", Misbehave::Status(401), Reason::InvalidArgument),
        ("/user", Misbehave::Status(302), Reason::Unavailable),
    ] {
        let begun = start(&node, &ana, BACK).await.unwrap();
        let (code, state) = github.allow(&begun.authorization_url, "ana-hub").await;
        github.misbehave_at(path, misbehave.clone());
        let asked = Instant::now();
        assert_eq!(finish(&node, &ana, &code, &state).await, Err(expected), "{misbehave:?}");
        assert!(asked.elapsed() < Duration::from_secs(8), "{misbehave:?}");
        assert_eq!(status(&node, &ana).await, Err(Reason::NotFound));
    }
    let begun = start(&node, &ana, BACK).await.unwrap();
    assert_eq!(finish(&node, &ana, "no code", &begun.state).await, Err(Reason::InvalidArgument));
    let (one, other) = (start(&node, &ana, BACK).await.unwrap(), start(&node, &ana, BACK).await.unwrap());
    let (code, _) = github.allow(&one.authorization_url, "ana-hub").await;
    assert_eq!(
        finish(&node, &ana, &code, &other.state).await,
        Err(Reason::InvalidArgument),
        "the code of another state"
    );
}

async fn a_token_of_another_account_does_not_open(world: &World) {
    let github = GitHubStub::start().await;
    let node = world.node_with(config(world, &github)).await;
    let (ana, eve) = (node.register("ana@example.com").await, node.register("eve@example.com").await);
    connect(&node, &github, &ana, "ana-hub").await;
    connect(&node, &github, &eve, "eve-hub").await;
    assert!(token(world, &node, &eve).await.is_ok());
    world
        .tamper(
            "UPDATE github_connections SET sealed = (SELECT sealed FROM github_connections o \
             WHERE o.product = github_connections.product AND o.login = 'ana-hub')",
        )
        .await;
    assert_eq!(token(world, &node, &eve).await, Err(Reason::Internal));
    assert!(token(world, &node, &ana).await.is_ok());
}

async fn twenty_who_ask_for_an_expired_token_renew_it_once(world: &World) {
    let github = GitHubStub::start().await;
    github.expire_after(Some(28_800));
    let (one, other) = tokio::join!(world.node_with(config(world, &github)), world.node_with(config(world, &github)));
    let ana = one.register("ana@example.com").await;
    connect(&one, &github, &ana, "ana-hub").await;
    let old = token(world, &one, &ana).await.unwrap().token;
    world.pass(28_801);
    github.misbehave_at(TOKEN_PATH, Misbehave::Slow(Duration::from_millis(300)));
    let ask = |number| token(world, if number % 2 == 0 { &one } else { &other }, &ana);
    let given: Vec<GitHubToken> = join_all((0..20).map(ask)).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(github.calls("renewal"), 1);
    assert!(given.iter().all(|token| *token == given[0]) && given[0].token != old);
    assert!(github.is_good(&given[0].token) && !github.is_good(&old));
    assert_eq!(given[0].expires_at, world.clock.now_ms() + 28_800_000);

    world.pass(28_800 - 299);
    let early = token(world, &one, &ana).await.unwrap();
    assert_ne!(early.token, given[0].token, "not in the last minutes");

    // Whoever asked has gone away: what GitHub gave is kept all the same.
    world.pass(28_801);
    github.misbehave_at(TOKEN_PATH, Misbehave::Slow(Duration::from_millis(500)));
    let gone = tokio::time::timeout(Duration::from_millis(200), token(world, &one, &ana)).await;
    assert!(gone.is_err(), "{gone:?}");
    let kept = token(world, &other, &ana).await.unwrap();
    assert!(github.is_good(&kept.token));
    assert_eq!(github.calls("renewal"), 3);
}

async fn a_renewal_that_fails_is_told_and_tried_again_and_one_that_is_refused_is_over(world: &World) {
    let github = GitHubStub::start().await;
    github.expire_after(Some(28_800));
    let node = world.node_with(config(world, &github)).await;
    let ana = node.register("ana@example.com").await;
    connect(&node, &github, &ana, "ana-hub").await;
    let old = token(world, &node, &ana).await.unwrap();
    world.pass(28_800 - 100);
    github.misbehave_at(TOKEN_PATH, Misbehave::Status(503));
    assert_eq!(token(world, &node, &ana).await.as_ref(), Ok(&old), "it is good for 100 s yet");
    world.pass(100);
    github.misbehave_at(TOKEN_PATH, Misbehave::Malformed);
    assert_eq!(token(world, &node, &ana).await, Err(Reason::Unavailable));
    let renewed = token(world, &node, &ana).await.unwrap();
    assert_ne!(renewed.token, old.token);

    world.pass(28_800);
    github.misbehave_at(TOKEN_PATH, Misbehave::Refuse("bad_refresh_token"));
    assert_eq!(token(world, &node, &ana).await, Err(Reason::FailedPrecondition));
    assert_eq!(token(world, &node, &ana).await, Err(Reason::FailedPrecondition));
    let ana = node.login("ana@example.com").await.unwrap();
    connect(&node, &github, &ana, "ana-hub").await;
    assert!(token(world, &node, &ana).await.is_ok());
}

async fn a_disconnected_token_is_worth_nothing_anywhere(world: &World) {
    let github = GitHubStub::start().await;
    let node = world.node_with(config(world, &github)).await;
    let ana = node.register("ana@example.com").await;
    connect(&node, &github, &ana, "ana-hub").await;
    let given = token(world, &node, &ana).await.unwrap();
    assert_eq!(given.expires_at, 0);
    disconnect(&node, &ana).await;
    assert!(!github.is_good(&given.token));
    assert_eq!(token(world, &node, &ana).await, Err(Reason::NotFound));
    assert_eq!(status(&node, &ana).await, Err(Reason::NotFound));
    disconnect(&node, &ana).await;

    connect(&node, &github, &ana, "ana-hub").await;
    github.misbehave_at("/applications", Misbehave::Status(500));
    disconnect(&node, &ana).await;
    assert_eq!(token(world, &node, &ana).await, Err(Reason::NotFound), "forgotten here though GitHub did not answer");
    let kinds: Vec<String> = world.column("SELECT kind FROM audit_events ORDER BY number LIMIT 10").await;
    let pair = ["github_connected", "github_disconnected"];
    assert_eq!(kinds, [&["register"], &pair[..], &pair[..]].concat());
}

async fn no_token_is_lost_while_keys_rotate(world: &World) {
    let github = GitHubStub::start().await;
    github.expire_after(Some(28_800));
    let config = config(world, &github);
    let (one, other) = tokio::join!(world.node_with(config.clone()), world.node_with(config.clone()));
    let ana = one.register("ana@example.com").await;
    connect(&one, &github, &ana, "ana-hub").await;
    for round in 0..4 {
        world.pass(28_801);
        let rotate = weft_identity::rotate_keys(&config, world.clock.clone());
        let ask = |number| token(world, if number % 2 == 0 { &one } else { &other }, &ana);
        let (rotated, given) = tokio::join!(rotate, join_all((0..8).map(ask)));
        rotated.unwrap();
        assert!(given.iter().all(Result::is_ok), "round {round}: {given:?}");
        assert_eq!(given[0], given[7]);
    }
    world.pass(61);
    eventually("one key, and the token under it", Duration::from_secs(20), async || {
        let keys: Vec<String> = world.column("SELECT id FROM data_keys LIMIT 10").await;
        keys == world.column::<String>("SELECT key_id FROM github_connections LIMIT 10").await
    })
    .await;
    assert!(github.is_good(&token(world, &one, &ana).await.unwrap().token));
}
