//! Conversations of products that keep them: each test with a product that keeps them in a database, on both, and with one
//! that keeps them for an hour, in process and over Redis. What chats do with them is in `conversation_chats`.
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::{Reason, new_id};
use weft_db::{Db, DbOptions, sql};
use weft_orchestrator::Config;
use weft_proto::orchestrator::v1::conversation_service_client::ConversationServiceClient;
use weft_proto::orchestrator::v1::personal_data_service_client::PersonalDataServiceClient;
use weft_proto::orchestrator::v1::{
    ChatRequest, ChatResponse, CreateSessionRequest, DeleteSessionRequest, EraseAccountRequest, ExportAccountRequest,
    GetSessionRequest, ListMessagesRequest, ListSessionsRequest, Session, SessionMessage, UpdateSessionRequest,
};
use weft_testing::{Database, redis};

use crate::harness::{DAY_MS, NOW_MS, Orchestrator, Replica, Start, as_struct, say, with_token};

/// Time enough for what happens every few seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// More than anything here costs.
pub const PLENTY: i64 = 1_000_000_000;
/// Tokens live longer than any time that passes here.
const LONG_S: i64 = 100 * 86_400;

/// An orchestrator whose product keeps conversations, and somebody who has some.
pub struct World {
    /// The orchestrator.
    pub here: Orchestrator,
    /// Another replica of it.
    pub elsewhere: Option<Replica>,
    /// Where lasting sessions are; None: they are in the cache.
    pub db: Option<Db>,
    /// Who asks, and pays.
    pub who: String,
}

impl World {
    /// With a product that keeps conversations in this database.
    pub async fn lasting(database: Database, config: Config) -> World {
        let options = DbOptions { url: database.url.clone(), schema: "orchestrator", max_connections: 2 };
        let mut world = World::start(Arc::new(database), products("server_side"), config).await;
        world.db = Some(Db::connect(&options).await.unwrap());
        world.elsewhere = Some(world.here.replica());
        world
    }

    /// With one that keeps them for an hour, in process.
    pub async fn fleeting() -> World {
        World::start(Arc::new(Database::sqlite()), products(FLEETING), leaving()).await
    }

    /// The same over a Redis.
    pub async fn shared(redis_url: String) -> World {
        let config = Config { redis_url: Some(redis_url.into()), ..leaving() };
        let mut world = World::start(Arc::new(Database::sqlite()), products(FLEETING), config).await;
        world.elsewhere = Some(world.here.replica());
        world
    }

    async fn start(database: Arc<Database>, products: &'static Path, config: Config) -> World {
        let start = Start { config, database: Some(database), products: Some(products), ..Start::default() };
        let here = Orchestrator::start_with(start).await;
        let who = format!("paying-{}", new_id());
        here.book.give(&who, PLENTY);
        World { here, elsewhere: None, db: None, who }
    }

    /// Whether sessions are kept until somebody deletes them.
    pub fn is_lasting(&self) -> bool {
        self.db.is_some()
    }

    /// A client, of the other replica if there is one.
    pub fn client(&self) -> ConversationServiceClient<Channel> {
        let there = self.elsewhere.as_ref().map_or(&self.here.channel, |replica| &replica.channel);
        ConversationServiceClient::new(there.clone())
    }

    /// A request of somebody.
    pub fn of<M>(&self, who: &str, message: M) -> Request<M> {
        with_token(message, "adiuva", &self.here.token("adiuva", who, LONG_S))
    }

    pub async fn create(&self, title: &str) -> Session {
        self.try_create(CreateSessionRequest { title: title.into(), metadata: None }).await.unwrap()
    }

    pub async fn try_create(&self, request: CreateSessionRequest) -> Result<Session, Status> {
        self.client().create_session(self.of(&self.who, request)).await.map(Response::into_inner)
    }

    pub async fn get(&self, id: &str) -> Result<Session, Status> {
        let request = GetSessionRequest { session_id: id.into() };
        self.client().get_session(self.of(&self.who, request)).await.map(Response::into_inner)
    }

    pub async fn update(&self, request: UpdateSessionRequest) -> Result<Session, Status> {
        self.client().update_session(self.of(&self.who, request)).await.map(Response::into_inner)
    }

    pub async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteSessionRequest { session_id: id.into() };
        self.client().delete_session(self.of(&self.who, request)).await.map(drop)
    }

    pub async fn sessions(&self, page_size: i32, page_token: &str) -> Result<(Vec<String>, String), Status> {
        let request = ListSessionsRequest { page_size, page_token: page_token.into() };
        let page = self.client().list_sessions(self.of(&self.who, request)).await?.into_inner();
        Ok((page.sessions.into_iter().map(|session| session.id).collect(), page.next_page_token))
    }

    /// Everything that was said in a session.
    pub async fn messages(&self, id: &str) -> Vec<SessionMessage> {
        self.messages_from(id, 200, "").await.unwrap().0
    }

    /// Who said what in a session, and whether it is not all.
    pub async fn said(&self, id: &str) -> Vec<(String, String, bool)> {
        let told = |message: SessionMessage| (message.role, message.content, message.incomplete);
        self.messages(id).await.into_iter().map(told).collect()
    }

    pub async fn messages_from(
        &self,
        id: &str,
        page_size: i32,
        token: &str,
    ) -> Result<(Vec<SessionMessage>, String), Status> {
        let request = ListMessagesRequest { session_id: id.into(), page_size, page_token: token.into() };
        let page = self.client().list_messages(self.of(&self.who, request)).await?.into_inner();
        Ok((page.messages, page.next_page_token))
    }

    /// Says something in a session.
    pub async fn chat(&self, id: &str, message: &str) -> Result<ChatResponse, Status> {
        self.here.client().chat(self.of(&self.who, in_session(id, message))).await.map(Response::into_inner)
    }

    fn personal(&self) -> PersonalDataServiceClient<Channel> {
        PersonalDataServiceClient::new(self.here.channel.clone())
    }
}

const FLEETING: &str = "session_only\"\nsession_ttl_s = 3600\n# \"";

/// Who leaves does not come back.
pub fn leaving() -> Config {
    Config { weft_chat_resume_ms: 0, ..Config::default() }
}

/// A message in a session.
pub fn in_session(id: &str, message: &str) -> ChatRequest {
    ChatRequest { session_id: id.into(), ..say(message) }
}

/// Adiuva, but with another data policy, and answers are finished for nobody.
fn products(policy: &str) -> &'static Path {
    let folder = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../products/adiuva.toml")).unwrap();
    let kept = text.replace("data_policy = \"zero_plaintext\"", &format!("data_policy = \"{policy}\""));
    let changed = kept.replace("on_disconnect = \"cancel\"", "on_disconnect = \"continue\"");
    assert!(text != kept && kept != changed);
    std::fs::write(folder.path().join("adiuva.toml"), changed).unwrap();
    folder.path()
}

/// Each of them with each way to keep conversations.
macro_rules! wherever_they_are_kept {
    ($($name:ident)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::lasting(Database::sqlite(), leaving()).await).await
            })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::lasting(Database::postgres().await, leaving()).await).await
            })*
        }
        mod in_process {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&World::fleeting().await).await })*
        }
        mod over_redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(&World::shared(redis::shared().await.url()).await).await
            })*
        }
    };
}
pub(crate) use wherever_they_are_kept;

wherever_they_are_kept! {
    a_session_is_begun_changed_listed_and_deleted
    a_session_of_somebody_else_is_like_one_that_does_not_exist
    what_is_sent_has_limits
    sessions_are_listed_by_their_latest_message
    pages_of_messages_stay_in_place
    an_export_has_everything_and_an_erasure_leaves_nothing
}

async fn a_session_is_begun_changed_listed_and_deleted(world: &World) {
    let metadata = json!({"tab": 3, "deep": {"list": [1, null, "x"]}});
    let request = CreateSessionRequest { title: " My week ".into(), metadata: Some(as_struct(&metadata)) };
    let session = world.try_create(request).await.unwrap();
    let expires_at = NOW_MS + if world.is_lasting() { DAY_MS } else { 3_600_000 };
    let expected = Session {
        id: session.id.clone(),
        title: "My week".into(),
        metadata: Some(as_struct(&metadata)),
        message_count: 0,
        created_at: NOW_MS,
        updated_at: NOW_MS,
        expires_at: Some(expires_at),
    };
    assert_eq!(session, expected);
    assert_eq!(world.get(&session.id).await.unwrap(), expected);

    let retitle = UpdateSessionRequest { session_id: session.id.clone(), title: Some("Mine".into()), metadata: None };
    let expected = Session { title: "Mine".into(), ..expected };
    assert_eq!(world.update(retitle).await.unwrap(), expected);
    let metadata = Some(weft_proto::json::Struct::default());
    let empty = UpdateSessionRequest { session_id: session.id.clone(), title: None, metadata: metadata.clone() };
    let expected = Session { metadata, ..expected };
    assert_eq!(world.update(empty).await.unwrap(), expected);
    assert_eq!(world.get(&session.id).await.unwrap(), expected);
    assert_eq!(world.sessions(0, "").await.unwrap(), (vec![session.id.clone()], String::new()));

    let plain = world.create("").await;
    assert_eq!((plain.title.as_str(), plain.metadata), ("", None));
    world.delete(&session.id).await.unwrap();
    assert_eq!(world.get(&session.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.delete(&session.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.sessions(0, "").await.unwrap().0, [plain.id]);
}

async fn a_session_of_somebody_else_is_like_one_that_does_not_exist(world: &World) {
    let session = world.create("mine").await;
    world.chat(&session.id, "hello").await.unwrap();
    let asked = world.here.llm.calls().len();
    let (stranger, random) = (format!("paying-{}", new_id()), new_id());
    world.here.book.give(&stranger, PLENTY);
    let long = "0".repeat(100_000);
    let asking = [(&stranger, session.id.as_str()), (&world.who, &random), (&world.who, "x"), (&world.who, "")];
    let asking = asking.into_iter().chain([(&world.who, long.as_str()), (&world.who, "sessions:a\0b")]);
    for (who, id) in asking {
        let mut client = world.client();
        let session_id = id.to_owned();
        let get = client.get_session(world.of(who, GetSessionRequest { session_id: session_id.clone() }));
        let mut told = vec![get.await.map(drop).unwrap_err()];
        let request = UpdateSessionRequest { session_id: session_id.clone(), title: Some("x".into()), metadata: None };
        told.push(client.update_session(world.of(who, request)).await.map(drop).unwrap_err());
        let request = DeleteSessionRequest { session_id: session_id.clone() };
        told.push(client.delete_session(world.of(who, request)).await.map(drop).unwrap_err());
        let request = ListMessagesRequest { session_id, ..ListMessagesRequest::default() };
        told.push(client.list_messages(world.of(who, request)).await.map(drop).unwrap_err());
        if !id.is_empty() {
            told.push(world.here.chat_on(who, in_session(id, "hello")).await.map(drop).unwrap_err());
            told.push(world.here.stream_on(who, in_session(id, "hello")).await.end.map(drop).unwrap_err());
        }
        for status in told {
            let told = (status.code(), Reason::of(&status), status.message());
            assert_eq!(told, (Code::NotFound, Some(Reason::NotFound), "there is no such session"), "{who} {id:.50}");
        }
    }
    assert_eq!(world.here.llm.calls().len(), asked, "no model was asked");
    assert_eq!(world.said(&session.id).await.len(), 2);
}

async fn what_is_sent_has_limits(world: &World) {
    let with = |title: &str, size: usize| CreateSessionRequest {
        title: title.into(),
        metadata: Some(as_struct(&json!({"a": "x".repeat(size)}))),
    };
    let session = world.try_create(with(&"é".repeat(100), 4_088)).await.unwrap();
    let refused = [with(&"é".repeat(101), 0), with("CANARY\nx", 0), with("", 4_089), with("\0", 0)];
    for request in refused {
        let CreateSessionRequest { title, metadata } = request.clone();
        let update = UpdateSessionRequest { session_id: session.id.clone(), title: Some(title), metadata };
        for status in [world.try_create(request).await.unwrap_err(), world.update(update).await.unwrap_err()] {
            assert_eq!(Reason::of(&status), Some(Reason::InvalidArgument));
            assert!(!status.message().contains("CANARY"));
        }
    }
    for size in [-1, 101] {
        assert_eq!(world.sessions(size, "").await.unwrap_err().code(), Code::InvalidArgument);
    }
    for size in [-1, 201] {
        assert_eq!(world.messages_from(&session.id, size, "").await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(world.sessions(1, "forged").await.unwrap_err().code(), Code::InvalidArgument);
    let nul = world.chat(&session.id, "a\0b").await.unwrap_err();
    assert_eq!(Reason::of(&nul), Some(Reason::InvalidArgument));
    let both = ChatRequest {
        context: Some(weft_proto::orchestrator::v1::ChatContext {
            conversation_history: vec![Default::default()],
            ..Default::default()
        }),
        ..in_session(&session.id, "hello")
    };
    let both = world.here.chat_on(&world.who, both).await.unwrap_err();
    assert_eq!(Reason::of(&both), Some(Reason::InvalidArgument));
    assert_eq!(world.said(&session.id).await, []);
}

async fn sessions_are_listed_by_their_latest_message(world: &World) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.create("").await.id);
        world.here.clock.advance(Duration::from_millis(1));
    }
    world.chat(&ids[1], "hello").await.unwrap();
    let order = [1, 4, 3, 2, 0].map(|at: usize| ids[at].clone());
    assert_eq!(world.sessions(0, "").await.unwrap(), (order.to_vec(), String::new()));
    let (first, token) = world.sessions(2, "").await.unwrap();
    assert_eq!(first, order[..2]);
    // What comes to the front meanwhile moves nothing.
    world.here.clock.advance(Duration::from_millis(1));
    let new = world.create("").await.id;
    world.here.clock.advance(Duration::from_millis(1));
    world.chat(&ids[4], "hello").await.unwrap();
    let (second, token) = world.sessions(2, &token).await.unwrap();
    assert_eq!(second, order[2..4]);
    let (last, end) = world.sessions(2, &token).await.unwrap();
    assert_eq!((last.as_slice(), end.as_str()), (&order[4..], ""));
    assert_eq!(world.sessions(2, "").await.unwrap().0, [ids[4].clone(), new]);
    // A token is its caller's and its list's.
    let stranger = world.of("paying-other", ListSessionsRequest { page_size: 2, page_token: token.clone() });
    assert_eq!(world.client().list_sessions(stranger).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.messages_from(&ids[1], 2, &token).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn pages_of_messages_stay_in_place(world: &World) {
    let session = world.create("").await;
    for at in 0..3 {
        world.here.clock.advance(Duration::from_millis(1));
        world.chat(&session.id, &format!("m{at}")).await.unwrap();
    }
    let whole = world.messages(&session.id).await;
    let (mut read, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = world.messages_from(&session.id, 2, &token).await.unwrap();
        read.extend(page);
        if next.is_empty() {
            break;
        }
        token = next;
        if read.len() == 2 {
            world.chat(&session.id, "m3").await.unwrap();
        }
    }
    assert_eq!(read[..6], whole[..]);
    let users: Vec<_> = read.iter().filter(|one| one.role == "user").map(|one| one.content.as_str()).collect();
    assert_eq!((read.len(), users), (8, vec!["m0", "m1", "m2", "m3"]));
    assert_eq!(read.iter().map(|one| &one.id).collect::<HashSet<_>>().len(), 8);
    let other = world.create("").await;
    assert_eq!(world.messages_from(&other.id, 2, &token).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn an_export_has_everything_and_an_erasure_leaves_nothing(world: &World) {
    let (first, empty) = (world.create("first").await, world.create("empty").await);
    for at in 0..11 {
        // Some of them long as JSON.
        let long = "\u{1}".repeat(if at < 8 { 30_000 } else { 1 });
        world.chat(&first.id, &format!("m{at} {long}")).await.unwrap();
    }
    let stranger = format!("paying-{}", new_id());
    let request = world.of(&stranger, CreateSessionRequest::default());
    let foreign = world.client().create_session(request).await.unwrap().into_inner();
    let service = ServiceKey::new(&"a secret that only these tests know".into(), "identity");
    let as_identity = |request: &str| {
        let mut request = Request::new(request.to_owned());
        request.metadata_mut().insert("x-weft-product", "adiuva".parse().unwrap());
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, service.mint("orchestrator").parse().unwrap());
        request
    };
    let export = async || {
        let request = as_identity(&world.who).map(|account_id| ExportAccountRequest { account_id });
        let mut parts = world.personal().export_account(request).await.unwrap().into_inner();
        let (mut sessions, mut messages) = (Vec::new(), Vec::new());
        while let Some(part) = parts.message().await.unwrap() {
            let rows: Vec<Value> = serde_json::from_str(&part.json).unwrap();
            match part.name.as_str() {
                "chat_sessions" => sessions.extend(rows),
                "chat_messages" => messages.extend(rows),
                _ => {}
            }
        }
        (sessions, messages)
    };
    let (sessions, messages) = export().await;
    let ids: HashSet<&str> = sessions.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!((sessions.len(), ids), (2, HashSet::from([first.id.as_str(), &empty.id])));
    let kept = world.messages(&first.id).await;
    assert_eq!((messages.len(), kept.len() == 22), (kept.len(), world.is_lasting()));
    // Of a long session that lives for a while the beginning is forgotten, and nothing but that.
    assert!(kept.len() > 6 && kept[kept.len() - 2].content.starts_with("m10 "), "{}", kept.len());
    for (row, kept) in messages.iter().zip(&kept) {
        assert_eq!((row["session_id"].as_str(), row["id"].as_str()), (Some(&*first.id), Some(&*kept.id)));
        assert_eq!((&row["role"], &row["content"]), (&json!(kept.role), &json!(kept.content)));
    }

    for _ in 0..2 {
        let request = as_identity(&world.who).map(|account_id| EraseAccountRequest { account_id });
        world.personal().erase_account(request).await.unwrap();
    }
    assert_eq!(export().await, (Vec::new(), Vec::new()));
    assert_eq!(world.sessions(0, "").await.unwrap().0, [] as [String; 0]);
    assert_eq!(world.get(&first.id).await.unwrap_err().code(), Code::NotFound);
    let request = world.of(&stranger, GetSessionRequest { session_id: foreign.id });
    assert!(world.client().get_session(request).await.is_ok(), "nobody else's goes");
    if let Some(db) = &world.db {
        for (table, left) in [("chat_sessions", 1), ("chat_messages", 0), ("chat_session_owners", 1)] {
            let count = weft_db::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
            assert_eq!(sql(count).one::<i64>(db).await.unwrap(), left, "{table}");
        }
    }
}
