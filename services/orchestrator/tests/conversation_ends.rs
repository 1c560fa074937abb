//! How conversations end, and how many there may be; and that there are none of a product that promises to keep nothing.
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tonic::{Code, Response};
use weft_core::{Reason, new_id};
use weft_db::sql;
use weft_orchestrator::Config;
use weft_proto::orchestrator::v1::conversation_service_client::ConversationServiceClient;
use weft_proto::orchestrator::v1::open_ai_service_client::OpenAiServiceClient;
use weft_proto::orchestrator::v1::{
    CreateChatCompletionRequest, CreateSessionRequest, DeleteSessionRequest, GetSessionRequest, ListMessagesRequest,
    ListSessionsRequest, UpdateSessionRequest,
};
use weft_testing::{Database, eventually, redis};

use crate::conversations::{PATIENCE, World, in_session, leaving};
use crate::harness::{DAY_MS, NOW_MS, Orchestrator, patiently, with_token};

const HOUR: Duration = Duration::from_secs(3_600);

/// Each of them with both ways to keep conversations for an hour.
macro_rules! for_an_hour {
    ($($name:ident)*) => {
        mod for_an_hour_in_process {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&World::fleeting().await).await })*
        }
        mod for_an_hour_over_redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::shared(redis::shared().await.url()).await).await
            })*
        }
    };
}

for_an_hour! {
    a_fleeting_session_is_gone_an_hour_after_its_latest_message
    a_hundred_fleeting_sessions_are_the_most
}

async fn a_fleeting_session_is_gone_an_hour_after_its_latest_message(world: &World) {
    let (used, unused) = (world.create("").await, world.create("").await);
    world.here.clock.advance(HOUR - Duration::from_secs(1));
    world.chat(&used.id, "hello").await.unwrap();
    let expires_at = world.get(&used.id).await.unwrap().expires_at.unwrap();
    assert_eq!(expires_at, NOW_MS + 2 * 3_600_000 - 1_000);
    world.here.clock.advance(Duration::from_secs(1));
    assert_eq!(world.get(&unused.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.sessions(0, "").await.unwrap().0, std::slice::from_ref(&used.id));
    world.here.clock.advance(HOUR - Duration::from_secs(2));
    let title = Some("a new title is no message".into());
    world.update(UpdateSessionRequest { session_id: used.id.clone(), title, metadata: None }).await.unwrap();
    world.here.clock.advance(Duration::from_secs(1));
    for status in [
        world.get(&used.id).await.unwrap_err(),
        world.chat(&used.id, "hello").await.unwrap_err(),
        world.messages_from(&used.id, 0, "").await.unwrap_err(),
        world.delete(&used.id).await.unwrap_err(),
    ] {
        assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no such session"));
    }
    assert_eq!(world.sessions(0, "").await.unwrap().0, [] as [String; 0]);
}

async fn a_hundred_fleeting_sessions_are_the_most(world: &World) {
    let creates = (0..105).map(|_| {
        let (client, token) = (world.client(), world.here.token("adiuva", &world.who, 600));
        let create = move || {
            let request = with_token(CreateSessionRequest::default(), "adiuva", &token);
            let mut client = client.clone();
            async move { client.create_session(request).await.map(Response::into_inner) }
        };
        async move { patiently(create).await }
    });
    let made: Vec<_> = stream::iter(creates).buffer_unordered(8).collect().await;
    let (kept, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    // Where Redis was too slow to answer, one was begun and nobody told.
    assert!((90..=100).contains(&kept.len()) && refused.len() == 105 - kept.len(), "{} kept", kept.len());
    for status in refused {
        assert_eq!(Reason::of(&status.unwrap_err()), Some(Reason::QuotaExceeded));
    }
    let listed = world.sessions(100, "").await.unwrap();
    assert_eq!((listed.0.len(), listed.1.as_str()), (100, ""));
    world.delete(&listed.0[0]).await.unwrap();
    world.create("there is room again").await;
}

#[tokio::test]
async fn redis_has_a_session_under_its_name_and_forgets_it_by_itself() {
    let redis = redis::Redis::start().await;
    let world = World::shared(redis.url()).await;
    let session = world.create("").await;
    let left = redis.command(&format!("PTTL weft:state:adiuva:session:{}", session.id)).await;
    let left: i64 = left.trim().trim_start_matches(':').parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    redis.kill();
    let status = world.get(&session.id).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::Unavailable));
}

/// Each of them on both databases.
macro_rules! in_a_database {
    ($($name:ident: $config:expr;)*) => {
        mod in_sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::lasting(Database::sqlite(), $config).await).await
            })*
        }
        mod in_postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::lasting(Database::postgres().await, $config).await).await
            })*
        }
    };
}

in_a_database! {
    ten_thousand_sessions_and_messages_are_the_most: leaving();
    who_never_said_a_word_is_forgotten_after_a_day: leaving();
    what_nobody_uses_is_forgotten_if_the_operator_says_so: Config { weft_chat_session_days: 30, ..leaving() };
}

async fn ten_thousand_sessions_and_messages_are_the_most(world: &World) {
    let db = world.db.as_ref().unwrap();
    let session = world.create("").await;
    let fill = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 9999) \
                INSERT INTO chat_sessions (product, id, account_id, title, metadata, message_count, created_at, updated_at) \
                SELECT 'adiuva', 'filled ' || n, $1, '', '', 1, 1, 1 FROM numbers";
    sql(fill).bind(&world.who).run(db).await.unwrap();
    let refused = world.try_create(CreateSessionRequest::default()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::QuotaExceeded));
    world.chat(&session.id, "hello").await.unwrap();
    sql("UPDATE chat_sessions SET message_count = 9999 WHERE id = $1").bind(&session.id).run(db).await.unwrap();
    let refused = world.chat(&session.id, "hello").await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::QuotaExceeded));
    world.delete(&session.id).await.unwrap();
    world.create("there is room again").await;
}

async fn who_never_said_a_word_is_forgotten_after_a_day(world: &World) {
    let (empty, used) = (world.create("").await, world.create("").await);
    world.chat(&used.id, "hello").await.unwrap();
    world.here.clock.advance(Duration::from_millis(DAY_MS as u64));
    let late = world.create("").await;
    world.here.clock.advance(Duration::from_millis(1));
    eventually("the empty one to go", PATIENCE, || async { world.get(&empty.id).await.is_err() }).await;
    assert_eq!(world.get(&used.id).await.unwrap().expires_at, None);
    assert!(world.get(&late.id).await.is_ok());
}

async fn what_nobody_uses_is_forgotten_if_the_operator_says_so(world: &World) {
    let (silent, used) = (world.create("").await, world.create("").await);
    for session in [&silent, &used] {
        world.chat(&session.id, "hello").await.unwrap();
        world.here.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(world.get(&silent.id).await.unwrap().expires_at, Some(NOW_MS + 30 * DAY_MS));
    world.here.clock.advance(Duration::from_millis(30 * DAY_MS as u64 - 1));
    let db = world.db.as_ref().unwrap();
    eventually("the silent one to go", PATIENCE, || async { world.get(&silent.id).await.is_err() }).await;
    let left: Vec<String> = sql("SELECT DISTINCT session_id FROM chat_messages LIMIT 9").all(db).await.unwrap();
    assert_eq!(left, [used.id]);
}

#[tokio::test]
async fn a_product_that_promises_to_keep_nothing_keeps_nothing() {
    let here = Orchestrator::start().await;
    let mut client = ConversationServiceClient::new(here.channel.clone());
    let of = |plan: &str| here.token("adiuva", plan, 600);
    macro_rules! refused {
        ($method:ident, $message:expr) => {
            client.$method(with_token($message, "adiuva", &of("pro"))).await.map(drop).unwrap_err()
        };
    }
    let completion =
        CreateChatCompletionRequest { message: "hello".into(), session_id: new_id(), ..Default::default() };
    let mut completions = OpenAiServiceClient::new(here.channel.clone());
    let completion = completions.create_chat_completion(with_token(completion, "adiuva", &of("pro")));
    for status in [
        refused!(create_session, CreateSessionRequest::default()),
        refused!(list_sessions, ListSessionsRequest::default()),
        refused!(get_session, GetSessionRequest::default()),
        refused!(update_session, UpdateSessionRequest::default()),
        refused!(delete_session, DeleteSessionRequest::default()),
        refused!(list_messages, ListMessagesRequest::default()),
        here.chat(in_session(&new_id(), "hello")).await.unwrap_err(),
        here.stream(in_session(&new_id(), "hello")).await.end.unwrap_err(),
        completion.await.map(drop).unwrap_err(),
    ] {
        assert_eq!((status.code(), Reason::of(&status)), (Code::FailedPrecondition, Some(Reason::ZeroPlaintext)));
    }
    assert!(here.llm.calls().is_empty());
}
