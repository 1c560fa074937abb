//! Users' own keys: kept sealed, never shown, used before ours and for nothing.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use weft_core::{Clock, Reason, new_id};
use weft_db::keyring::Keyring;
use weft_db::{Db, DbOptions, sql};
use weft_proto::orchestrator::v1::personal_data_service_client::PersonalDataServiceClient;
use weft_proto::orchestrator::v1::provider_key_service_client::ProviderKeyServiceClient;
use weft_proto::orchestrator::v1::{
    CreateProviderKeyRequest, DeleteProviderKeyRequest, EraseAccountRequest, ExportAccountRequest,
    ListProviderKeyUsageRequest, ListProviderKeysRequest, ProviderKey, ProviderKeyUse, UpdateProviderKeyRequest,
};
use weft_testing::{Database, eventually, on_both_databases};

use crate::harness::{NOW_MS, Orchestrator, SECRET, Start, logs, patiently, say, with_token};

const PATIENCE: Duration = Duration::from_secs(15);
const KEY: &str = "sk-CANARY-of-the-users-own-7788";

pub struct World {
    here: Orchestrator,
    db: Db,
}

impl World {
    pub async fn on(database: Database) -> World {
        let database = Arc::new(database);
        let here = Orchestrator::start_with(start(&database)).await;
        let options = DbOptions { url: database.url.clone(), schema: "orchestrator", max_connections: 2 };
        World { here, db: Db::connect(&options).await.unwrap() }
    }
}

fn start(database: &Arc<Database>) -> Start {
    Start { database: Some(Arc::clone(database)), networks: "127.0.0.0/8", ..Start::default() }
}

fn client(at: &Orchestrator) -> ProviderKeyServiceClient<Channel> {
    ProviderKeyServiceClient::new(at.channel.clone())
}

fn as_user<M>(at: &Orchestrator, user: &str, message: M) -> tonic::Request<M> {
    with_token(message, "adiuva", &at.token("adiuva", user, 600))
}

async fn keep(at: &Orchestrator, user: &str, provider: &str, key: &str) -> Result<ProviderKey, Status> {
    let base_url = if provider == "compatible" { at.llm.url().to_owned() } else { String::new() };
    let request =
        CreateProviderKeyRequest { provider: provider.into(), key: key.into(), name: String::new(), base_url };
    client(at).create_provider_key(as_user(at, user, request)).await.map(Response::into_inner)
}

async fn keep_one_of_many(at: &Orchestrator, user: &str, provider: &str) -> Result<ProviderKey, Status> {
    patiently(|| keep(at, user, provider, KEY)).await
}

async fn list(at: &Orchestrator, user: &str) -> Vec<ProviderKey> {
    let request = as_user(at, user, ListProviderKeysRequest::default());
    client(at).list_provider_keys(request).await.unwrap().into_inner().keys
}

async fn uses(at: &Orchestrator, user: &str, id: &str) -> Result<Vec<ProviderKeyUse>, Status> {
    let request = ListProviderKeyUsageRequest { id: id.into(), ..ListProviderKeyUsageRequest::default() };
    let answer = client(at).list_provider_key_usage(as_user(at, user, request)).await?;
    Ok(answer.into_inner().uses)
}

async fn update(at: &Orchestrator, user: &str, request: UpdateProviderKeyRequest) -> Result<ProviderKey, Status> {
    client(at).update_provider_key(as_user(at, user, request)).await.map(Response::into_inner)
}

async fn delete(at: &Orchestrator, user: &str, id: &str) -> Result<(), Status> {
    client(at).delete_provider_key(as_user(at, user, DeleteProviderKeyRequest { id: id.into() })).await.map(drop)
}

/// The key that the last request to the provider came with.
fn last_key(at: &Orchestrator) -> String {
    at.llm.calls().last().unwrap().key.clone().unwrap()
}

on_both_databases! {
    a_key_of_ones_own_goes_before_the_operators_and_costs_nothing
    a_key_is_in_no_answer_no_log_and_not_in_the_database
    keys_of_others_are_not_there
    the_newest_active_key_is_used_and_changes_count_at_once
    a_change_counts_at_once_however_many_calls_read_keys
    a_change_at_another_replica_counts_within_a_second
    a_plan_limits_providers_however_many_ask_at_once
    twenty_keys_are_the_most
    a_server_of_ones_own_answers_for_its_models
    keys_can_be_replaced_while_calls_run
    uses_are_listed_by_pages_and_go_after_ninety_days
    an_export_has_keys_and_uses_and_an_erasure_leaves_none
}

async fn a_key_of_ones_own_goes_before_the_operators_and_costs_nothing(World { here, .. }: &World) {
    here.book.give("paying-ana", 1_000_000_000);
    here.chat_on("paying-ana", say("hello")).await.unwrap();
    assert_eq!(last_key(here), "sk-stub");
    let spent = here.book.balance("paying-ana");
    let key = keep(here, "paying-ana", "openai", KEY).await.unwrap();
    assert!(spent < 1_000_000_000);
    let answer = here.chat_on("paying-ana", say("hello")).await.unwrap();
    assert_eq!(last_key(here), KEY);
    assert_eq!((here.book.balance("paying-ana"), answer.usage.unwrap().credits), (spent, 0));
    eventually("its use", PATIENCE, async || !uses(here, "paying-ana", &key.id).await.unwrap().is_empty()).await;
    let used = uses(here, "paying-ana", &key.id).await.unwrap();
    assert_eq!((used[0].outcome.as_str(), used[0].created_at), ("ok", NOW_MS));
    assert!(used[0].prompt_tokens > 0 && used[0].completion_tokens > 0, "{used:?}");
    assert_eq!(list(here, "paying-ana").await[0].used_at, Some(NOW_MS));
}

async fn a_key_is_in_no_answer_no_log_and_not_in_the_database(World { here, db }: &World) {
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    assert_eq!((key.last_four.as_str(), key.name.as_str(), key.active), ("7788", "openai", true));
    here.llm.script([weft_testing::llm::Reply::status(401)]);
    let refused = here.chat_on("ana", say("hello")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    here.chat_on("ana", say("hello")).await.unwrap();
    let wrong = CreateProviderKeyRequest { provider: "openai".into(), key: format!("{KEY} "), ..Default::default() };
    let refused = client(here).create_provider_key(as_user(here, "ana", wrong)).await.unwrap_err();
    let told = format!("{key:?} {:?} {refused:?}", list(here, "ana").await);
    assert!(!told.contains("CANARY"), "{told}");
    assert!(!logs().text().contains("sk-CANARY"));
    let sealed: Vec<u8> = sql("SELECT sealed FROM provider_keys").one(db).await.unwrap();
    assert!(!sealed.windows(6).any(|part| part == b"CANARY"));
    if let Some(folder) = &here.database.folder {
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|part| part == b"CANARY"));
        }
    }
}

async fn keys_of_others_are_not_there(World { here, .. }: &World) {
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    let order = |id: &str| UpdateProviderKeyRequest { id: id.to_owned(), active: Some(false), ..Default::default() };
    let mut told = HashSet::new();
    for id in [key.id.as_str(), &new_id(), "", "x"] {
        for status in [
            update(here, "bob", order(id)).await.unwrap_err(),
            delete(here, "bob", id).await.unwrap_err(),
            uses(here, "bob", id).await.unwrap_err(),
        ] {
            told.insert((status.code(), status.message().to_owned()));
        }
    }
    assert_eq!(told, HashSet::from([(Code::NotFound, "there is no such provider key".to_owned())]));
    let zerobs = with_token(ListProviderKeysRequest::default(), "zerobs", &here.token("zerobs", "ana", 600));
    assert!(client(here).list_provider_keys(zerobs).await.unwrap().into_inner().keys.is_empty());
    assert!(list(here, "bob").await.is_empty());
    assert_eq!(list(here, "ana").await, [key]);
    here.chat_on("bob", say("hello")).await.unwrap();
    assert_eq!(last_key(here), "sk-stub");
}

async fn the_newest_active_key_is_used_and_changes_count_at_once(World { here, .. }: &World) {
    let used = async || {
        here.chat_on("ana", say("hello")).await.unwrap();
        last_key(here)
    };
    let old = keep(here, "ana", "openai", "sk-old-key-1").await.unwrap();
    let new = keep(here, "ana", "openai", "sk-new-key-2").await.unwrap();
    keep(here, "ana", "anthropic", "sk-other-vendor").await.unwrap();
    assert_eq!(used().await, "sk-new-key-2");
    let off = UpdateProviderKeyRequest { id: new.id.clone(), active: Some(false), ..Default::default() };
    assert!(!update(here, "ana", off).await.unwrap().active);
    assert_eq!(used().await, "sk-old-key-1");
    let (id, key, name) = (old.id.clone(), Some("sk-third-key-3".to_owned()), Some("mine".to_owned()));
    let changed = update(here, "ana", UpdateProviderKeyRequest { id, key, name, active: None }).await.unwrap();
    assert_eq!((changed.last_four.as_str(), changed.name.as_str(), changed.active), ("ey-3", "mine", true));
    assert_eq!(used().await, "sk-third-key-3");
    delete(here, "ana", &old.id).await.unwrap();
    assert_eq!(used().await, "sk-stub");
    assert_eq!(delete(here, "ana", &old.id).await.unwrap_err().code(), Code::NotFound);
}

/// Whoever calls while a key changes reads the old one; that must not be what is known afterwards.
async fn a_change_counts_at_once_however_many_calls_read_keys(World { here, .. }: &World) {
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    let other = keep(here, "ana", "xai", KEY).await.unwrap();
    let rename =
        || UpdateProviderKeyRequest { id: other.id.clone(), name: Some("another".into()), ..Default::default() };
    let changing = async {
        for round in 0..40 {
            let secret = format!("sk-of-round-{round:02}");
            let order =
                UpdateProviderKeyRequest { id: key.id.clone(), key: Some(secret.clone()), ..Default::default() };
            patiently(|| update(here, "ana", order.clone())).await.unwrap();
            let message = format!("in round {round:02}");
            patiently(|| here.chat_on("ana", say(&message))).await.unwrap();
            let calls = here.llm.calls();
            let call = calls.iter().rfind(|call| call.body.to_string().contains(&message)).unwrap();
            assert_eq!(call.key.as_ref(), Some(&secret));
        }
    };
    // Each of these changes makes the next call read the keys again.
    let renaming = async {
        loop {
            patiently(|| update(here, "ana", rename())).await.unwrap();
        }
    };
    let calling = join_all((0..4).map(async |_| {
        loop {
            patiently(|| here.chat_on("ana", say("hello"))).await.unwrap();
        }
    }));
    tokio::select! {
        () = changing => {}
        () = renaming => {}
        _ = calling => {}
    }
}

async fn a_change_at_another_replica_counts_within_a_second(World { here, .. }: &World) {
    let there = Orchestrator::start_with(start(&here.database)).await;
    let used = async || {
        there.chat_on("ana", say("hello")).await.unwrap();
        last_key(&there)
    };
    assert_eq!(used().await, "sk-stub");
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(used().await, KEY);
    delete(here, "ana", &key.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(used().await, "sk-stub");
}

async fn a_plan_limits_providers_however_many_ask_at_once(World { here, .. }: &World) {
    let providers = ["openai", "anthropic", "gemini", "xai", "compatible"];
    let kept = join_all((0..10).map(|at| keep_one_of_many(here, "one-provider", providers[at % 5]))).await;
    let refused: Vec<&Status> = kept.iter().filter_map(|kept| kept.as_ref().err()).collect();
    assert!(refused.iter().all(|status| Reason::of(status) == Some(Reason::QuotaExceeded)), "{refused:?}");
    let there: HashSet<String> = list(here, "one-provider").await.into_iter().map(|key| key.provider).collect();
    assert_eq!((there.len(), refused.len()), (1, 8), "the same provider twice is one");
    assert_eq!(join_all(providers.map(|provider| keep_one_of_many(here, "free-of-limits", provider))).await.len(), 5);
    assert_eq!(list(here, "free-of-limits").await.len(), 5);
}

async fn twenty_keys_are_the_most(World { here, .. }: &World) {
    let kept = join_all((0..24).map(|_| keep_one_of_many(here, "ana", "openai"))).await;
    assert_eq!(kept.iter().filter(|kept| kept.is_ok()).count(), 20);
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = as_user(here, "ana", ListProviderKeysRequest { page_size: 7, page_token });
        let page = client(here).list_provider_keys(request).await.unwrap().into_inner();
        ids.extend(page.keys.into_iter().map(|key| key.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(ids.len() == 20 && ids.is_sorted_by(|a, b| a > b), "{ids:?}");
}

async fn a_server_of_ones_own_answers_for_its_models(World { here, .. }: &World) {
    let mut question = say("hello");
    question.model = "compatible/llama3.2".to_owned();
    let refused = here.chat_on("ana", question.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    keep(here, "ana", "compatible", KEY).await.unwrap();
    here.chat_on("ana", question).await.unwrap();
    let call = here.llm.calls().pop().unwrap();
    assert_eq!((call.model.as_str(), call.key.as_deref()), ("llama3.2", Some(KEY)));
    for (base_url, provider) in
        [("http://10.0.0.1/v1", "compatible"), ("https://169.254.169.254/", "compatible"), ("https://host", "openai")]
    {
        let (provider, key, base_url) = (provider.to_owned(), KEY.to_owned(), base_url.to_owned());
        let request = CreateProviderKeyRequest { provider, key, base_url, ..Default::default() };
        let refused = client(here).create_provider_key(as_user(here, "ana", request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

async fn keys_can_be_replaced_while_calls_run(World { here, db }: &World) {
    let secret = SecretString::from(SECRET);
    let ring = Keyring::open(db, &secret, Clock::manual(NOW_MS)).await.unwrap();
    let old = ring.current().await.unwrap();
    keep(here, "ana", "openai", KEY).await.unwrap();
    let calls = join_all((0..20).map(|at| async move {
        if at % 5 == 0 {
            keep_one_of_many(here, &format!("user-{at}"), "openai").await.unwrap();
        }
        patiently(|| here.chat_on("ana", say("hello"))).await.unwrap();
    }));
    let (_, current) = tokio::join!(calls, async { ring.rotate().await.unwrap() });
    assert!(here.llm.calls().iter().all(|call| call.key.as_deref() == Some(KEY)));
    eventually("every key sealed again", PATIENCE, async || {
        let names: Vec<String> = sql("SELECT DISTINCT key_id FROM provider_keys LIMIT 9").all(db).await.unwrap();
        names == [current.clone()]
    })
    .await;
    here.chat_on("ana", say("hello")).await.unwrap();
    assert_eq!(last_key(here), KEY);
    here.clock.advance(Duration::from_secs(61));
    eventually("the old data key gone", PATIENCE, async || {
        sql("SELECT COUNT(*) FROM data_keys WHERE id = $1").bind(&old).one::<i64>(db).await.unwrap() == 0
    })
    .await;
}

async fn uses_are_listed_by_pages_and_go_after_ninety_days(World { here, db }: &World) {
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    for _ in 0..3 {
        here.chat_on("ana", say("hello")).await.unwrap();
    }
    eventually("uses", PATIENCE, async || uses(here, "ana", &key.id).await.unwrap().len() >= 3).await;
    delete(here, "ana", &key.id).await.unwrap();
    let request = ListProviderKeyUsageRequest { id: key.id.clone(), page_size: 2, page_token: String::new() };
    let page = client(here).list_provider_key_usage(as_user(here, "ana", request.clone())).await.unwrap().into_inner();
    assert_eq!(page.uses.len(), 2);
    let (page_token, id) = (page.next_page_token, "another".to_owned());
    let next = ListProviderKeyUsageRequest { page_token: page_token.clone(), ..request.clone() };
    let next = client(here).list_provider_key_usage(as_user(here, "ana", next)).await.unwrap().into_inner();
    assert!(!next.uses.is_empty());
    let forged = ListProviderKeyUsageRequest { page_token, id, page_size: 2 };
    let refused = client(here).list_provider_key_usage(as_user(here, "ana", forged)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    here.clock.advance(Duration::from_secs(90 * 24 * 3_600 + 1));
    eventually("no uses", PATIENCE, async || {
        sql("SELECT COUNT(*) FROM provider_key_uses").one::<i64>(db).await.unwrap() == 0
    })
    .await;
    here.clock.set(NOW_MS);
    assert_eq!(uses(here, "ana", &key.id).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_call_that_might_cost_wrongly_is_refused_and_offline_answers() {
    // A folder of this name cannot be made: a file stands there.
    let database = Database::sqlite();
    let folder = database.folder.as_ref().unwrap().path().join("file");
    std::fs::write(&folder, "").unwrap();
    let database = Arc::new(Database { url: format!("sqlite://{}/x.db", folder.display()), ..database });
    let here = Orchestrator::start_with(Start { unmigrated: true, ..start(&database) }).await;
    let mut offline = say("hello");
    offline.model = "offline".to_owned();
    here.chat_on("ana", offline).await.unwrap();
    let refused = here.chat_on("ana", say("hello")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(keep(&here, "ana", "openai", KEY).await.unwrap_err().code(), Code::Unavailable);
    assert!(here.llm.calls().is_empty());
}

async fn an_export_has_keys_and_uses_and_an_erasure_leaves_none(World { here, db }: &World) {
    let key = keep(here, "ana", "openai", KEY).await.unwrap();
    keep(here, "ben", "openai", "sk-of-ben-0000").await.unwrap();
    let insert = "INSERT INTO provider_key_uses (product, id, provider_key_id, account_id, model, prompt_tokens, \
         completion_tokens, outcome, created_at) \
         VALUES ($1, $2, $3, 'ana', 'm', 1, 2, 'ok', $4)";
    for number in 0..1_001 {
        let row = sql(insert).bind("adiuva").bind(format!("{number:05}")).bind(&key.id);
        row.bind(NOW_MS).run(db).await.unwrap();
    }
    let product = "adiuva".parse::<tonic::metadata::MetadataValue<_>>().unwrap();
    let service = weft_auth::ServiceKey::new(&"a secret that only these tests know".into(), "identity");
    let service = service.mint("orchestrator");
    let mut client =
        PersonalDataServiceClient::with_interceptor(here.channel.clone(), |mut call: tonic::Request<()>| {
            call.metadata_mut().insert("x-weft-product", product.clone());
            call.metadata_mut().insert(weft_auth::SERVICE_TOKEN_HEADER, service.parse().unwrap());
            Ok(call)
        });
    let whose = || ExportAccountRequest { account_id: "ana".into() };
    let mut parts = client.export_account(whose()).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        assert!(!part.json.contains("CANARY") && !part.json.contains("0000\""), "{}", part.name);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&part.json).unwrap();
        got.push((part.name, rows.len()));
    }
    let expected = [("provider_keys", 1), ("provider_key_uses", 1_000), ("provider_key_uses", 1)];
    assert_eq!(got, expected.map(|(name, rows)| (name.to_owned(), rows)));

    for _ in 0..2 {
        client.erase_account(EraseAccountRequest { account_id: "ana".into() }).await.unwrap();
    }
    here.chat_on("ana", say("hello")).await.unwrap();
    assert_eq!(last_key(here), "sk-stub", "the key is used no more");
    for table in ["provider_keys", "provider_key_uses", "provider_key_owners"] {
        let left = format!("SELECT COUNT(*) FROM {table} WHERE account_id = 'ana'");
        assert_eq!(sql(weft_db::AssertSqlSafe(left)).one::<i64>(db).await.unwrap(), 0, "{table}");
    }
    assert_eq!(list(here, "ben").await.len(), 1, "somebody else's");
    let nobody = client.erase_account(EraseAccountRequest::default()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::InvalidArgument);
}
