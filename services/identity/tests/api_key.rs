//! API keys: what their owner does with them, and the access tokens that are given for them.
use std::time::Duration;

use serde_json::json;
use weft_auth::{API_KEY_PREFIX, Policies};
use weft_core::Reason;
use weft_proto::identity::v1::{
    AccessToken, ApiKey, AuthTokens, ChangePasswordRequest, ChangePasswordResponse, CreateApiKeyRequest,
    CreateApiKeyResponse, EraseAccountRequest, EraseAccountResponse, ExchangeTokenRequest, ListApiKeysRequest,
    ListApiKeysResponse, LogoutAllRequest, LogoutAllResponse, RevokeApiKeyRequest, RevokeApiKeyResponse,
    UpdateApiKeyRequest, UpdateUserRequest, User,
};
use weft_testing::{eventually, on_both_databases};

use crate::harness::{Node, OTHER_PRODUCT, PASSWORD, PRODUCT, Session, World, claim, reason, with};

on_both_databases! {
    a_key_is_seen_once_listed_changed_and_revoked
    an_account_has_fifty_keys_also_if_they_are_made_at_once
    what_is_wrong_with_a_key_to_make_is_said
    a_budget_needs_a_product_with_credits
    a_key_gives_a_token_that_may_call_what_its_scopes_name_and_nothing_of_the_account
    whatever_is_no_key_is_refused_alike
    a_revoked_key_is_refused_everywhere_within_a_second
    no_token_survives_a_revocation_that_raced_its_exchange
    a_suspended_accounts_keys_are_refused_within_a_second_and_work_again_afterwards
    keys_outlive_sessions_and_passwords
    a_new_budget_counts_within_a_second_and_a_new_name_changes_no_token
    the_last_use_is_known_to_the_minute
    a_key_ends_at_its_time_and_so_do_its_tokens
    what_is_spent_is_billings_word
    an_erased_account_takes_its_keys_along
    what_happened_to_keys_is_written_down
}

const MINUTE_MS: i64 = 60_000;
/// A product with credits, where keys may have budgets.
const METERED: &str = OTHER_PRODUCT;

/// The product of somebody.
fn product(owner: &Session) -> String {
    claim(owner, "prd").as_str().unwrap().to_owned()
}

async fn create(node: &Node, owner: &Session, request: CreateApiKeyRequest) -> Result<CreateApiKeyResponse, Reason> {
    let answer = node.call_in(&product(owner), owner, "/weft.identity.v1.ApiKeyService/CreateApiKey", request).await;
    answer.map_err(|status| reason(&status))
}

fn named(name: &str) -> CreateApiKeyRequest {
    CreateApiKeyRequest { name: name.to_owned(), ..CreateApiKeyRequest::default() }
}

/// A key of an account: its text and what is known of it.
async fn key(node: &Node, owner: &Session) -> (String, ApiKey) {
    let CreateApiKeyResponse { key, api_key } = create(node, owner, named("my program")).await.unwrap();
    (key, api_key.unwrap())
}

async fn list(node: &Node, owner: &Session) -> Vec<ApiKey> {
    let path = "/weft.identity.v1.ApiKeyService/ListApiKeys";
    node.call_in::<_, ListApiKeysResponse>(&product(owner), owner, path, ListApiKeysRequest {}).await.unwrap().api_keys
}

async fn update(node: &Node, owner: &Session, request: UpdateApiKeyRequest) -> Result<ApiKey, Reason> {
    let answer = node.call_in(&product(owner), owner, "/weft.identity.v1.ApiKeyService/UpdateApiKey", request).await;
    answer.map_err(|status| reason(&status))
}

async fn revoke(node: &Node, owner: &Session, id: &str) -> Result<(), Reason> {
    let path = "/weft.identity.v1.ApiKeyService/RevokeApiKey";
    let request = RevokeApiKeyRequest { id: id.to_owned() };
    let answer = node.call_in::<_, RevokeApiKeyResponse>(&product(owner), owner, path, request).await;
    answer.map(|answer| assert!(answer.ok)).map_err(|status| reason(&status))
}

async fn exchange_in(node: &Node, product: &str, key: &str) -> Result<Session, Reason> {
    let answer = node.auth().exchange_token(with(product, None, ExchangeTokenRequest { token: key.to_owned() })).await;
    let AccessToken { access_token, expires_at } = answer.map_err(|status| reason(&status))?.into_inner();
    Ok(AuthTokens { access_token, refresh_token: String::new(), expires_at })
}

async fn exchange(node: &Node, key: &str) -> Result<Session, Reason> {
    exchange_in(node, PRODUCT, key).await
}

fn account(tokens: &Session) -> String {
    claim(tokens, "sub").as_str().unwrap().to_owned()
}

async fn a_key_is_seen_once_listed_changed_and_revoked(world: &World) {
    let node = world.node().await;
    let [ana, bob] = ["ana@example.com", "bob@example.com"].map(|email| node.register_in(METERED, email, PASSWORD));
    let (ana, bob) = (ana.await.unwrap(), bob.await.unwrap());
    let (text, first) = key(&node, &ana).await;
    assert!(text.starts_with(API_KEY_PREFIX) && text.ends_with(&first.last_four) && text.len() == 51, "{text}");
    let now_ms = world.clock.now_ms();
    assert_eq!(first.scopes, ["chat", "embeddings", "models"]);
    assert_eq!((first.name.as_str(), first.created_at, first.spent), ("my program", now_ms, Some(0)));
    assert_eq!((first.budget, first.expires_at, first.last_used_at), (None, None, None));
    let (_, second) = key(&node, &ana).await;
    assert_eq!(list(&node, &ana).await, [second.clone(), first.clone()], "newest first");
    assert_eq!(list(&node, &bob).await, []);

    let rename = UpdateApiKeyRequest { id: first.id.clone(), name: Some(" other ".to_owned()), budget: None };
    let renamed = update(&node, &ana, rename.clone()).await.unwrap();
    assert_eq!(renamed, ApiKey { name: "other".to_owned(), ..first.clone() });
    let limit = UpdateApiKeyRequest { id: first.id.clone(), name: None, budget: Some(5) };
    assert_eq!(update(&node, &ana, limit.clone()).await.unwrap(), ApiKey { budget: Some(5), ..renamed.clone() });
    assert_eq!(update(&node, &ana, limit).await.unwrap().budget, Some(5), "again");

    assert_eq!(update(&node, &bob, rename).await, Err(Reason::NotFound));
    assert_eq!(revoke(&node, &bob, &first.id).await, Err(Reason::NotFound));
    revoke(&node, &ana, &first.id).await.unwrap();
    assert_eq!(list(&node, &ana).await, [second]);
    assert_eq!(revoke(&node, &ana, &first.id).await, Err(Reason::NotFound));
    for nobody in ["", "x", "\0"] {
        assert!(revoke(&node, &ana, nobody).await.is_err(), "{nobody:?}");
    }
    let stored: Vec<i64> = world.column("SELECT COUNT(*) FROM api_keys WHERE LENGTH(hash) = 32").await;
    assert_eq!(stored, [1]);
}

async fn an_account_has_fifty_keys_also_if_they_are_made_at_once(world: &World) {
    let node = world.node().await;
    let (ana, bob) = (node.register("ana@example.com").await, node.register("bob@example.com").await);
    let made = futures_util::future::join_all((0..55).map(|_| create(&node, &ana, named("one of many")))).await;
    let refused: Vec<Reason> = made.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused, [Reason::QuotaExceeded; 5]);
    let keys = list(&node, &ana).await;
    assert_eq!(keys.len(), 50);
    create(&node, &bob, named("somebody else")).await.unwrap();
    revoke(&node, &ana, &keys[7].id).await.unwrap();
    create(&node, &ana, named("in its place")).await.unwrap();
}

async fn what_is_wrong_with_a_key_to_make_is_said(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let now_ms = world.clock.now_ms();
    let good = named("good");
    let scopes = |scopes: &[&str]| CreateApiKeyRequest {
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..good.clone()
    };
    for bad in [
        named(""),
        named(&"x".repeat(101)),
        named("a\nb"),
        scopes(&["admin"]),
        scopes(&["chat", ""]),
        CreateApiKeyRequest { budget: Some(-1), ..good.clone() },
        CreateApiKeyRequest { budget: Some(i64::MAX), ..good.clone() },
        CreateApiKeyRequest { expires_at: Some(now_ms), ..good.clone() },
        CreateApiKeyRequest { expires_at: Some(now_ms + 11 * 366 * 24 * 3_600_000), ..good.clone() },
    ] {
        assert_eq!(create(&node, &ana, bad.clone()).await, Err(Reason::InvalidArgument), "{bad:?}");
    }
    let chosen = create(&node, &ana, scopes(&["models", "chat", "chat"])).await.unwrap().api_key.unwrap();
    assert_eq!(chosen.scopes, ["chat", "models"]);
    let wrong = UpdateApiKeyRequest { id: chosen.id, name: Some(String::new()), budget: None };
    assert_eq!(update(&node, &ana, wrong).await, Err(Reason::InvalidArgument));
}

async fn a_budget_needs_a_product_with_credits(world: &World) {
    let node = world.node().await;
    let limited = CreateApiKeyRequest { budget: Some(5), ..named("a program") };
    let ana = node.register_in(METERED, "ana@example.com", PASSWORD).await.unwrap();
    assert_eq!(create(&node, &ana, limited.clone()).await.unwrap().api_key.unwrap().budget, Some(5));
    let bob = node.register("bob@example.com").await;
    assert_eq!(create(&node, &bob, limited).await, Err(Reason::InvalidArgument), "nothing would be counted");
    let (_, known) = key(&node, &bob).await;
    let limit = UpdateApiKeyRequest { id: known.id.clone(), name: None, budget: Some(5) };
    assert_eq!(update(&node, &bob, limit).await, Err(Reason::InvalidArgument));
    let rename = UpdateApiKeyRequest { id: known.id.clone(), name: Some("other".to_owned()), budget: None };
    assert_eq!(update(&node, &bob, rename).await.unwrap(), ApiKey { name: "other".to_owned(), ..known });
}

async fn a_key_gives_a_token_that_may_call_what_its_scopes_name_and_nothing_of_the_account(world: &World) {
    let node = world.node().await;
    node.register("ana@example.com").await;
    world.grant("ana@example.com", "admin").await;
    let ana = node.login("ana@example.com").await.unwrap();
    let order = CreateApiKeyRequest { scopes: vec!["chat".to_owned()], ..named("a program") };
    let CreateApiKeyResponse { key, api_key } = create(&node, &ana, order).await.unwrap();
    let id = api_key.unwrap().id;
    let token = exchange(&node, &key).await.unwrap();
    assert_eq!(claim(&token, "sub"), claim(&ana, "sub"));
    assert_eq!(claim(&token, "sid"), json!(format!("key:{id}")));
    assert_eq!(claim(&token, "scp"), json!(["chat"]));
    assert_eq!(claim(&token, "key"), json!({"id": id}));
    assert_eq!(
        (claim(&token, "aud"), claim(&ana, "aud")),
        (json!("weft:key"), json!("weft")),
        "not taken for a user's"
    );
    assert_eq!((claim(&token, "roles"), claim(&token, "email")), (json!([]), json!("")));
    let life = world.product().identity.access_ttl_s;
    assert_eq!(token.expires_at, (world.clock.now_ms() / 1000 + life) * 1000);

    let policies = Policies::of(weft_proto::descriptors()).unwrap();
    let ours = policies.paths().filter(|path| path.starts_with("/weft.identity.v1."));
    assert!(ours.into_iter().all(|path| policies.get(path).unwrap().scope.is_none()));
    assert_eq!(node.me(&token).await, Err(Reason::ScopeMissing));
    let listed = node.call::<_, ListApiKeysResponse>(
        &token,
        "/weft.identity.v1.ApiKeyService/ListApiKeys",
        ListApiKeysRequest {},
    );
    assert_eq!(reason(&listed.await.unwrap_err()), Reason::ScopeMissing);
    assert_eq!(revoke(&node, &token, &id).await, Err(Reason::ScopeMissing), "not even to end itself");
    assert_eq!(node.logout(&token).await, Err(Reason::ScopeMissing));
}

async fn whatever_is_no_key_is_refused_alike(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let (text, _) = key(&node, &ana).await;
    let other = format!("{}{}", &text[..50], if text.ends_with('A') { "B" } else { "A" });
    let long = format!("{text}A");
    for wrong in ["sk-weft-", "sk-weft-short", other.as_str(), long.as_str(), &text.to_uppercase(), &format!(" {text}")]
    {
        assert_eq!(exchange(&node, wrong).await, Err(Reason::Unauthenticated), "{wrong}");
    }
    assert_eq!(exchange_in(&node, OTHER_PRODUCT, &text).await, Err(Reason::Unauthenticated), "of another product");
    exchange(&node, &text).await.unwrap();
    let (before, many) = (world.column::<i64>("SELECT COUNT(*) FROM refresh_tokens").await, 100);
    let flood = (0..many).map(|number| {
        let (node, wrong) = (&node, format!("{API_KEY_PREFIX}{number:043}"));
        async move { exchange(node, &wrong).await }
    });
    let refused = futures_util::future::join_all(flood).await;
    assert!(refused.into_iter().all(|refused| refused == Err(Reason::Unauthenticated)));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM refresh_tokens").await, before, "nothing is written");
}

async fn a_revoked_key_is_refused_everywhere_within_a_second(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let elsewhere = world.neighbour(&nodes[1]);
    let ana = nodes[0].register("ana@example.com").await;
    let ((text, first), (kept, _)) = (key(&nodes[0], &ana).await, key(&nodes[0], &ana).await);
    let (token, other) = (exchange(&nodes[0], &text).await.unwrap(), exchange(&nodes[1], &kept).await.unwrap());
    let claims = elsewhere.verifier().verify(&token.access_token).await.unwrap();
    let verifier = elsewhere.verifier();
    let over = verifier.until_over(&claims);
    revoke(&nodes[0], &ana, &first.id).await.unwrap();
    assert_eq!(nodes[0].me(&token).await, Err(Reason::Unauthenticated), "where it was revoked: at once");
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        elsewhere.verifier().verify(&token.access_token).await.is_err()
            && nodes[1].me(&token).await == Err(Reason::Unauthenticated)
    })
    .await;
    let told = tokio::time::timeout(Duration::from_secs(1), over).await.expect("streams end");
    assert_eq!(reason(&told), Reason::Unauthenticated);
    assert_eq!(exchange(&nodes[1], &text).await, Err(Reason::Unauthenticated));
    elsewhere.verifier().verify(&other.access_token).await.expect("the other key");
    assert!(nodes[0].me(&ana).await.is_ok(), "the session goes on");
    elsewhere.shutdown().trigger();
}

async fn no_token_survives_a_revocation_that_raced_its_exchange(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let ana = nodes[0].register("ana@example.com").await;
    for _ in 0..8 {
        let (text, known) = key(&nodes[0], &ana).await;
        let (revoked, exchanged) = tokio::join!(revoke(&nodes[0], &ana, &known.id), exchange(&nodes[1], &text));
        revoked.unwrap();
        if let Ok(token) = exchanged {
            eventually("the refusal", Duration::from_secs(1), async || {
                nodes[1].me(&token).await == Err(Reason::Unauthenticated)
            })
            .await;
        }
    }
}

async fn a_suspended_accounts_keys_are_refused_within_a_second_and_work_again_afterwards(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let admin = world.admin(&node, "root@example.com").await;
    let ana = node.register("ana@example.com").await;
    let (text, _) = key(&node, &ana).await;
    let token = exchange(&node, &text).await.unwrap();
    elsewhere.verifier().verify(&token.access_token).await.unwrap();
    // Nothing else of the account is out, so that its keys alone have to be found.
    node.logout(&ana).await.unwrap();
    let suspend = async |suspended: bool| {
        let suspend_reason = if suspended { "sent spam" } else { "" }.to_owned();
        let (user_id, suspended) = (account(&token), Some(suspended));
        let order = UpdateUserRequest { user_id, suspended, suspend_reason, ..UpdateUserRequest::default() };
        node.call::<_, User>(&admin, "/weft.identity.v1.AdminService/UpdateUser", order).await.unwrap();
    };
    let refused = async || {
        let verified = elsewhere.verifier().verify(&token.access_token).await;
        verified.err().map(|status| reason(&status))
    };
    suspend(true).await;
    eventually("the refusal", Duration::from_secs(1), async || refused().await == Some(Reason::AccountSuspended)).await;
    assert_eq!(exchange(&node, &text).await, Err(Reason::AccountSuspended));
    suspend(false).await;
    eventually("it may try again", Duration::from_secs(1), async || refused().await == Some(Reason::Unauthenticated))
        .await;
    let again = exchange(&node, &text).await.unwrap();
    elsewhere.verifier().verify(&again.access_token).await.unwrap();
    elsewhere.shutdown().trigger();
}

async fn keys_outlive_sessions_and_passwords(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let (text, _) = key(&node, &ana).await;
    let token = exchange(&node, &text).await.unwrap();
    let message = ChangePasswordRequest { old_password: PASSWORD.to_owned(), new_password: "another pass".to_owned() };
    let path = "/weft.identity.v1.PasswordService/ChangePassword";
    node.call::<_, ChangePasswordResponse>(&ana, path, message).await.unwrap();
    let all = LogoutAllRequest { keep_current: false };
    let path = "/weft.identity.v1.SessionService/LogoutAll";
    node.call::<_, LogoutAllResponse>(&ana, path, all).await.unwrap();
    assert_eq!(node.me(&ana).await, Err(Reason::Unauthenticated));
    assert_eq!(node.me(&token).await, Err(Reason::ScopeMissing), "it is still good");
    exchange(&node, &text).await.unwrap();
    assert!(create(&node, &ana, named("by a session that is over")).await.is_err());
}

async fn a_new_budget_counts_within_a_second_and_a_new_name_changes_no_token(world: &World) {
    let nodes = [world.node().await, world.node().await];
    let elsewhere = world.neighbour(&nodes[1]);
    let ana = nodes[0].register_in(METERED, "ana@example.com", PASSWORD).await.unwrap();
    let (text, known) = key(&nodes[0], &ana).await;
    let old = exchange_in(&nodes[0], METERED, &text).await.unwrap();
    let claims = elsewhere.verifier().verify(&old.access_token).await.unwrap();
    assert_eq!(claims.key.as_ref().unwrap().limit, None);
    let order = UpdateApiKeyRequest { id: known.id.clone(), name: Some("renamed".to_owned()), budget: None };
    update(&nodes[0], &ana, order).await.unwrap();
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM revocations").await, [0]);

    let order = UpdateApiKeyRequest { id: known.id, name: None, budget: Some(3_000_000) };
    update(&nodes[0], &ana, order).await.unwrap();
    let verifier = elsewhere.verifier();
    eventually("the refusal of the old token at the edge", Duration::from_secs(1), async || {
        verifier.at_edge().verify(&old.access_token).await.is_err()
    })
    .await;
    verifier.verify(&old.access_token).await.expect("where the edge forwards it meanwhile, it is good");
    let over = verifier.until_over(&claims);
    let soon = tokio::time::timeout(Duration::from_millis(50), over).await;
    assert!(soon.is_err(), "what it has begun goes on");
    let token = exchange_in(&nodes[1], METERED, &text).await.unwrap();
    let claims = verifier.at_edge().verify(&token.access_token).await.unwrap();
    assert_eq!(claims.key.as_ref().unwrap().limit, Some(3_000_000));
    elsewhere.shutdown().trigger();
}

async fn the_last_use_is_known_to_the_minute(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let ana = node.register("ana@example.com").await;
    let (text, _) = key(&node, &ana).await;
    let last = async || list(&node, &ana).await[0].last_used_at;
    assert_eq!(last().await, None);
    let token = exchange(&node, &text).await.unwrap();
    let minute = |now_ms: i64| now_ms / MINUTE_MS * MINUTE_MS;
    assert_eq!(last().await, Some(minute(world.clock.now_ms())));
    for _ in 0..3 {
        world.pass(60);
        elsewhere.verifier().verify(&token.access_token).await.unwrap();
        let now = Some(minute(world.clock.now_ms()));
        eventually("the use", Duration::from_secs(2), async || last().await == now).await;
    }
    world.tamper("UPDATE api_keys SET last_used_at = 0").await;
    elsewhere.verifier().verify(&token.access_token).await.unwrap();
    // A report that comes after this one: had the use been noted again, it would have been told by then.
    elsewhere.verifier().verify(&ana.access_token).await.unwrap();
    world.is_used(&ana).await;
    assert_eq!(last().await, Some(0), "once a minute is enough");
    elsewhere.shutdown().trigger();
}

async fn a_key_ends_at_its_time_and_so_do_its_tokens(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let expires_at = world.clock.now_ms() + 60_000;
    let order = CreateApiKeyRequest { expires_at: Some(expires_at), ..named("for a minute") };
    let CreateApiKeyResponse { key, api_key } = create(&node, &ana, order).await.unwrap();
    assert_eq!(api_key.unwrap().expires_at, Some(expires_at));
    let token = exchange(&node, &key).await.unwrap();
    assert_eq!(token.expires_at, expires_at / 1000 * 1000);
    world.pass(59);
    assert_eq!(node.me(&token).await, Err(Reason::ScopeMissing));
    world.pass(1);
    assert_eq!(node.me(&token).await, Err(Reason::Unauthenticated));
    assert_eq!(exchange(&node, &key).await, Err(Reason::Unauthenticated));
    assert_eq!(list(&node, &ana).await.len(), 1, "it is still seen");
}

async fn what_is_spent_is_billings_word(world: &World) {
    let node = world.node().await;
    let ana = node.register("ana@example.com").await;
    let ((_, first), (_, second)) = (key(&node, &ana).await, key(&node, &ana).await);
    world.wallets.spend(&account(&ana), &first.id, 42);
    world.wallets.spend("somebody else", &second.id, 43);
    let spent: Vec<Option<i64>> = list(&node, &ana).await.into_iter().map(|key| key.spent).collect();
    assert_eq!(spent, [Some(0), Some(42)]);
    world.billing.go_away();
    let spent: Vec<Option<i64>> = list(&node, &ana).await.into_iter().map(|key| key.spent).collect();
    assert_eq!(spent, [None, None]);
    create(&node, &ana, named("billing is not needed for this")).await.unwrap();
    world.billing.come_back();
}

async fn an_erased_account_takes_its_keys_along(world: &World) {
    let node = world.node().await;
    let elsewhere = world.neighbour(&node);
    let ana = node.register("ana@example.com").await;
    let (text, _) = key(&node, &ana).await;
    let token = exchange(&node, &text).await.unwrap();
    elsewhere.verifier().verify(&token.access_token).await.unwrap();
    let message = EraseAccountRequest { password: PASSWORD.to_owned() };
    let path = "/weft.identity.v1.PersonalDataService/EraseAccount";
    node.call::<_, EraseAccountResponse>(&ana, path, message).await.unwrap();
    assert_eq!(node.me(&token).await, Err(Reason::Unauthenticated));
    eventually("the refusal elsewhere", Duration::from_secs(1), async || {
        elsewhere.verifier().verify(&token.access_token).await.is_err()
    })
    .await;
    assert_eq!(exchange(&node, &text).await, Err(Reason::Unauthenticated));
    assert_eq!(world.column::<i64>("SELECT COUNT(*) FROM api_keys").await, [0]);
    elsewhere.shutdown().trigger();
}

async fn what_happened_to_keys_is_written_down(world: &World) {
    let node = world.node().await;
    let ana = node.register_in(METERED, "ana@example.com", PASSWORD).await.unwrap();
    let (text, known) = key(&node, &ana).await;
    exchange_in(&node, METERED, &text).await.unwrap();
    let same = UpdateApiKeyRequest { id: known.id.clone(), ..UpdateApiKeyRequest::default() };
    update(&node, &ana, same.clone()).await.unwrap();
    update(&node, &ana, UpdateApiKeyRequest { budget: Some(1), ..same }).await.unwrap();
    revoke(&node, &ana, &known.id).await.unwrap();
    let events: Vec<(String, Option<String>, Option<String>)> = world
        .column("SELECT kind, account_id, detail FROM audit_events WHERE kind LIKE 'api_key_%' ORDER BY number")
        .await;
    let of = |kind: &str| (kind.to_owned(), Some(account(&ana)), Some(known.id.clone()));
    assert_eq!(events, [of("api_key_created"), of("api_key_changed"), of("api_key_revoked")]);
    let rows: Vec<String> = world.column("SELECT COALESCE(detail, '') FROM audit_events").await;
    assert!(rows.iter().all(|detail| !detail.contains(&text[8..])));
}
