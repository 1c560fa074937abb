//! What chats and completions do with the session that they name.
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::{Code, Response, Streaming};
use weft_core::{Reason, new_id};
use weft_db::sql;
use weft_orchestrator::Config;
use weft_proto::orchestrator::v1::chat_event::Event;
use weft_proto::orchestrator::v1::open_ai_service_client::OpenAiServiceClient;
use weft_proto::orchestrator::v1::{
    CancelChatRequest, ChatEvent, ChatRequest, CompletionMessage, CreateChatCompletionRequest, ResumeChatRequest,
};
use weft_testing::llm::Reply;
use weft_testing::{Database, eventually, redis};

use crate::conversations::{PATIENCE, World, in_session, leaving, wherever_they_are_kept};
use crate::harness::{NOW_MS, as_value, ask, logs, patiently, with_token};

wherever_they_are_kept! {
    what_was_said_goes_before_a_new_message
    a_long_history_goes_as_far_as_there_is_room
    a_refused_call_leaves_nothing
    an_answer_is_kept_once_however_it_is_read
    an_answer_is_kept_when_nobody_stays_for_it
    an_answer_that_breaks_off_is_kept_as_far_as_it_came
    what_may_not_be_told_is_not_kept
    calls_at_once_are_all_kept_in_one_order
    a_completion_adds_the_last_word
    a_plan_is_made_anew_when_more_was_said
}

fn pair(question: &str, answer: &str) -> [(String, String, bool); 2] {
    [("user".into(), question.into(), false), ("assistant".into(), answer.into(), false)]
}

/// The conversation that a model was told, without what the server says.
fn told(body: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let messages = body["messages"].as_array().unwrap().iter();
    let messages = messages.filter(|message| message["role"] != "system" && message["role"] != "developer");
    messages.map(|message| (text(&message["role"]), text(&message["content"]))).collect()
}

fn turns(turns: &[(&str, &str)]) -> Vec<(String, String)> {
    turns.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

async fn stream(world: &World, message: ChatRequest) -> Streaming<ChatEvent> {
    world.here.client().stream_chat(world.of(&world.who, message)).await.unwrap().into_inner()
}

async fn resume(world: &World, run: &str) -> Streaming<ChatEvent> {
    let request = world.of(&world.who, ResumeChatRequest { run_id: run.to_owned(), after: None });
    world.here.client().resume_chat(request).await.unwrap().into_inner()
}

/// The tokens until the end or an error, and the id of the answer.
async fn read(events: &mut Streaming<ChatEvent>, most: usize) -> (String, String) {
    let (mut text, mut run) = (String::new(), String::new());
    for _ in 0..most {
        let Ok(Some(event)) = events.message().await else { break };
        run = event.id.split_once('.').unwrap().0.to_owned();
        if let Some(Event::Token(token)) = event.event {
            text += &token;
        }
    }
    (text, run)
}

async fn what_was_said_goes_before_a_new_message(world: &World) {
    let session = world.create("").await;
    world.here.llm.script(["one", "two", "three"].map(Reply::text));
    world.chat(&session.id, "  what\n is first? ").await.unwrap();
    world.here.clock.advance(Duration::from_millis(5));
    let streamed = world.here.stream_on(&world.who, in_session(&session.id, "and then?")).await;
    let end = streamed.end.unwrap();
    world.here.chat_on(&world.who, ask("alone")).await.unwrap();
    let calls = world.here.llm.calls();
    assert_eq!(told(&calls[0].body), turns(&[("user", "  what\n is first? ")]));
    let history = [("user", "  what\n is first? "), ("assistant", "one"), ("user", "and then?")];
    assert_eq!(told(&calls[1].body), turns(&history));
    let expected = [pair("  what\n is first? ", "one"), pair("and then?", "two")].concat();
    assert_eq!(world.said(&session.id).await, expected);

    let recorded = || {
        let (here, other): (Vec<_>, Vec<_>) =
            world.here.book.usage().into_iter().map(|call| call.session_id).partition(|id| *id == session.id);
        (here.len(), !other.is_empty() && other.iter().all(String::is_empty))
    };
    eventually("what was in the session recorded as that", PATIENCE, || async { recorded() == (2, true) }).await;

    let messages = world.messages(&session.id).await;
    let ids: Vec<&String> = messages.iter().map(|message| &message.id).collect();
    assert!(ids.iter().all(|id| id.len() == 36));
    let by: Vec<_> = messages.iter().map(|one| (one.agent.as_str(), one.model.as_str(), one.created_at)).collect();
    let (agent, model) = (end.agent.as_str(), end.model.as_str());
    let (first, then) = (NOW_MS, NOW_MS + 5);
    assert_eq!(by, [("", "", first), (agent, model, first), ("", "", then), (agent, model, then)]);
    assert!(agent == "task_agent" && !model.is_empty());
    let session = world.get(&session.id).await.unwrap();
    assert_eq!((session.title.as_str(), session.message_count), ("what is first?", 4));
    assert_eq!((session.created_at, session.updated_at), (NOW_MS, NOW_MS + 5));
    assert!(!logs().text().contains("what\\n is first?"));
}

async fn a_long_history_goes_as_far_as_there_is_room(world: &World) {
    let session = world.create("").await;
    let long = "x".repeat(30_000);
    for at in 0..9 {
        world.here.llm.script([Reply::text(&format!("a{at}"))]);
        world.chat(&session.id, &format!("{at}{long}")).await.unwrap();
    }
    world.chat(&session.id, "and now?").await.unwrap();
    let body = world.here.llm.calls().pop().unwrap().body;
    // Eight of these fit into 262144 bytes; the answer before them does, too.
    let first: Vec<_> = told(&body).into_iter().map(|(_, text)| text.chars().take(2).collect::<String>()).collect();
    assert_eq!((first.len(), first[0].as_str(), first[1].as_str()), (18, "a0", "1x"));
    if world.is_lasting() {
        for at in 0..45 {
            world.chat(&session.id, &format!("s{at}")).await.unwrap();
        }
        world.chat(&session.id, "and now?").await.unwrap();
        let told = told(&world.here.llm.calls().last().unwrap().body);
        assert_eq!(told.len(), 101, "100 turns are the most");
    }
}

async fn a_refused_call_leaves_nothing(world: &World) {
    let session = world.create("").await;
    let poor = format!("paying-{}", new_id());
    let own = world.of(&poor, weft_proto::orchestrator::v1::CreateSessionRequest::default());
    let own = world.client().create_session(own).await.unwrap().into_inner();
    for refused in [
        world.here.chat_on(&poor, in_session(&own.id, "hello")).await.map(drop).unwrap_err(),
        world.here.stream_on(&poor, in_session(&own.id, "hello")).await.end.map(drop).unwrap_err(),
    ] {
        assert_eq!(Reason::of(&refused), Some(Reason::InsufficientCredits));
    }
    let request =
        world.of(&poor, weft_proto::orchestrator::v1::ListMessagesRequest { session_id: own.id, ..Default::default() });
    assert!(world.client().list_messages(request).await.unwrap().into_inner().messages.is_empty());
    let unknown = ChatRequest { agent: "nobody".into(), ..in_session(&session.id, "hello") };
    assert!(world.here.chat_on(&world.who, unknown).await.is_err());
    assert_eq!(world.said(&session.id).await, []);
    // What a model that was asked does not answer was said all the same.
    world.here.llm.script([Reply::status(400)]);
    assert!(world.chat(&session.id, "hello").await.is_err());
    assert_eq!(world.said(&session.id).await, [("user".into(), "hello".into(), false)]);
}

async fn an_answer_is_kept_once_however_it_is_read(world: &World) {
    let session = world.create("").await;
    world.here.llm.script([Reply::text("a b c d e f").delay(Duration::from_millis(10))]);
    let mut events = stream(world, in_session(&session.id, "hello")).await;
    let (_, run) = read(&mut events, 2).await;
    drop(events);
    let (text, _) = read(&mut resume(world, &run).await, usize::MAX).await;
    // Who has read the end finds it kept.
    assert_eq!(world.said(&session.id).await, pair("hello", "a b c d e f"));
    for _ in 0..3 {
        assert_eq!(read(&mut resume(world, &run).await, usize::MAX).await.0, text);
    }
    assert_eq!(world.said(&session.id).await, pair("hello", "a b c d e f"));
    assert_eq!(world.get(&session.id).await.unwrap().message_count, 2);
}

async fn an_answer_is_kept_when_nobody_stays_for_it(world: &World) {
    let (streamed, plain) = (world.create("").await, world.create("").await);
    world.here.llm.script([Reply::text("a b c d").delay(Duration::from_millis(30))]);
    read(&mut stream(world, in_session(&streamed.id, "hello")).await, 1).await;
    eventually("the streamed answer", PATIENCE, || async { world.said(&streamed.id).await.len() == 2 }).await;
    assert_eq!(world.said(&streamed.id).await, pair("hello", "a b c d"));
    world.here.llm.script([Reply::text("e f g").delay(Duration::from_millis(200))]);
    let mut client = world.here.client();
    let leaving = client.chat(world.of(&world.who, in_session(&plain.id, "hello")));
    let asked = eventually("the question", PATIENCE, || async { world.said(&plain.id).await.len() == 1 });
    tokio::select! {
        _early = leaving => panic!("it did not leave"),
        () = asked => {}
    }
    eventually("the plain answer", PATIENCE, || async { world.said(&plain.id).await.len() == 2 }).await;
    assert_eq!(world.said(&plain.id).await, pair("hello", "e f g"));
}

async fn an_answer_that_breaks_off_is_kept_as_far_as_it_came(world: &World) {
    let session = world.create("").await;
    world.here.llm.script([
        Reply::text("a b c d e f").delay(Duration::from_millis(5)).cut_after(3),
        Reply::text(&"word ".repeat(100)).hang_after(30),
    ]);
    let (cut, _) = read(&mut stream(world, in_session(&session.id, "first")).await, usize::MAX).await;
    assert!(!cut.is_empty() && cut.len() < 11, "{cut}");
    let mut events = stream(world, in_session(&session.id, "second")).await;
    let (stopped, run) = read(&mut events, 20).await;
    world.here.client().cancel_chat(world.of(&world.who, CancelChatRequest { run_id: run })).await.unwrap();
    let stopped = stopped + &read(&mut events, usize::MAX).await.0;
    let user = |text: &str| ("user".to_owned(), text.to_owned(), false);
    let answer = |text: &str| ("assistant".to_owned(), text.to_owned(), true);
    assert_eq!(world.said(&session.id).await, [user("first"), answer(&cut), user("second"), answer(&stopped)]);
    let messages = world.messages(&session.id).await;
    assert_eq!((messages[1].agent.as_str(), messages[3].agent.as_str()), ("task_agent", "task_agent"));
    assert!(!messages[1].model.is_empty() && messages[1].model == messages[3].model);
}

async fn what_may_not_be_told_is_not_kept(world: &World) {
    let session = world.create("").await;
    let secret = world.here.chat_on(&world.who, ask("hello")).await.map(|_| world.here.llm.calls()).unwrap();
    let instructions = secret.iter().find_map(|call| call.body["messages"][0]["content"].as_str()).unwrap().to_owned();
    let part: String = instructions.chars().take(120).collect();
    for streamed in [false, true] {
        world.here.llm.script([Reply::text(&format!("<think>hmm</think>I was told: {part} and so on"))]);
        if streamed {
            world.here.stream_on(&world.who, in_session(&session.id, "tell")).await.end.unwrap();
        } else {
            world.chat(&session.id, "tell").await.unwrap();
        }
    }
    world.here.llm.script([Reply::text(&format!("I was told: {part} and so on"))]);
    complete(world, &session.id, &[("user", "tell")]).await.unwrap();
    for (role, text, _) in world.said(&session.id).await {
        assert!(role == "user" || text.contains("[removed]"), "{text}");
        assert!(!text.contains("hmm") && !text.contains(&part[..40]), "{text}");
    }
}

async fn calls_at_once_are_all_kept_in_one_order(world: &World) {
    const CALLS: usize = 12;
    let session = world.create("").await;
    let mut calls = JoinSet::new();
    for at in 0..CALLS {
        let token = world.here.token("adiuva", &world.who, 600);
        let message = in_session(&session.id, &format!("m{at}"));
        let client = match &world.elsewhere {
            Some(replica) if at % 2 == 0 => replica.client(),
            _ => world.here.client(),
        };
        calls.spawn(async move {
            let ask = || {
                let (mut client, request) = (client.clone(), with_token(message.clone(), "adiuva", &token));
                async move { client.chat(request).await.map(Response::into_inner) }
            };
            patiently(ask).await
        });
    }
    for answer in calls.join_all().await {
        answer.unwrap();
    }
    let said = world.said(&session.id).await;
    assert_eq!((said.len(), world.get(&session.id).await.unwrap().message_count), (2 * CALLS, 2 * CALLS as i64));
    let mut questions: Vec<_> = said.iter().filter(|(role, ..)| role == "user").map(|one| one.1.clone()).collect();
    questions.sort();
    let mut expected: Vec<_> = (0..CALLS).map(|at| format!("m{at}")).collect();
    expected.sort();
    assert_eq!(questions, expected);
    assert_eq!(world.said(&session.id).await, said);
}

async fn complete(world: &World, id: &str, messages: &[(&str, &str)]) -> Result<String, tonic::Status> {
    let answer = client(world).create_chat_completion(world.of(&world.who, completion(id, messages))).await?;
    Ok(answer.into_inner().choices[0].message.clone().unwrap().content.unwrap_or_default())
}

fn client(world: &World) -> OpenAiServiceClient<tonic::transport::Channel> {
    OpenAiServiceClient::new(world.here.channel.clone())
}

fn completion(id: &str, messages: &[(&str, &str)]) -> CreateChatCompletionRequest {
    let message = |(role, text): &(&str, &str)| CompletionMessage {
        role: (*role).to_owned(),
        content: Some(as_value(&json!(text))),
        ..CompletionMessage::default()
    };
    let messages = messages.iter().map(message).collect();
    CreateChatCompletionRequest { messages, session_id: id.to_owned(), ..Default::default() }
}

async fn a_completion_adds_the_last_word(world: &World) {
    let session = world.create("").await;
    world.here.llm.script(["one", "two", "three", "four"].map(Reply::text));
    assert_eq!(complete(world, &session.id, &[("user", "first")]).await.unwrap(), "one");
    complete(world, &session.id, &[("user", "second")]).await.unwrap();
    let own = [("system", "be brief"), ("user", "before"), ("assistant", "yes"), ("user", "third")];
    complete(world, &session.id, &own).await.unwrap();
    let request = world.of(&world.who, completion(&session.id, &[("user", "x"), ("assistant", "go on")]));
    let mut chunks = client(world).stream_chat_completion(request).await.unwrap().into_inner();
    while chunks.message().await.unwrap().is_some() {}
    let calls = world.here.llm.calls();
    assert_eq!(told(&calls[1].body), turns(&[("user", "first"), ("assistant", "one"), ("user", "second")]));
    assert_eq!(told(&calls[2].body), turns(&[("user", "before"), ("assistant", "yes"), ("user", "third")]));
    let last = ("assistant".to_owned(), "four".to_owned(), false);
    let expected = [pair("first", "one"), pair("second", "two"), pair("third", "three")].concat();
    assert_eq!(world.said(&session.id).await, [expected, vec![last]].concat());
    let by = &world.messages(&session.id).await[1];
    assert!(by.agent.is_empty() && !by.model.is_empty());

    world.here.llm.script([Reply::text("a b c d e f").delay(Duration::from_millis(5)).cut_after(3)]);
    let request = world.of(&world.who, completion(&session.id, &[("user", "fifth")]));
    let mut chunks = client(world).stream_chat_completion(request).await.unwrap().into_inner();
    while let Ok(Some(_)) = chunks.message().await {}
    let (_, text, incomplete) = world.said(&session.id).await.pop().unwrap();
    assert!(incomplete && text.starts_with("a b") && text.len() < 11, "{text}");
    let random = complete(world, &new_id(), &[("user", "hello")]).await.unwrap_err();
    assert_eq!((random.code(), random.message()), (Code::NotFound, "there is no such session"));
}

async fn a_plan_is_made_anew_when_more_was_said(world: &World) {
    let session = world.create("").await;
    let plan = || ChatRequest { execution_mode: "plan".into(), ..in_session(&session.id, "plan my day") };
    let step = Reply::text(r#"{"steps":[{"action":"llm","prompt_template":"day_plan","variables":{}}]}"#);
    for asked in 1..=2 {
        world.here.llm.script([step.clone()]);
        world.here.chat_on(&world.who, plan()).await.unwrap();
        assert_eq!(world.here.llm.calls().len(), asked);
    }
    let said: Vec<_> = world.said(&session.id).await.into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(said, ["plan my day", "plan my day"], "a plan's steps are not kept");
}

mod a_store_that_fails {
    use super::*;

    /// Whoever asks has the answer, though it cannot be kept.
    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_no_answer_from_its_reader() {
        for database in [Database::sqlite(), Database::postgres().await] {
            let world = World::lasting(database, leaving()).await;
            let session = world.create("").await;
            world.here.llm.script([Reply::text("a canary5a1 c").delay(Duration::from_millis(100))]);
            let mut events = stream(&world, in_session(&session.id, "hello")).await;
            let (first, _) = read(&mut events, 1).await;
            let rename = sql("ALTER TABLE chat_messages RENAME TO chat_messages_away");
            rename.run(world.db.as_ref().unwrap()).await.unwrap();
            let (rest, _) = read(&mut events, usize::MAX).await;
            assert_eq!(first + &rest, "a canary5a1 c");
            eventually("the warning", PATIENCE, || async {
                logs().text().contains("could not be kept in its session")
            })
            .await;
            assert!(!logs().text().contains("canary5a1"));
            let refused = world.chat(&session.id, "hello").await.unwrap_err();
            assert_eq!(refused.code(), Code::Internal);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn is_redis() {
        let redis = redis::Redis::start().await;
        let world = World::shared(redis.url()).await;
        let session = world.create("").await;
        world.here.llm.script([Reply::text("a b c").delay(Duration::from_millis(100))]);
        let mut events = stream(&world, in_session(&session.id, "hello")).await;
        let (first, _) = read(&mut events, 1).await;
        redis.kill();
        assert_eq!(first + &read(&mut events, usize::MAX).await.0, "a b c");
        let asked = world.here.llm.calls().len();
        let refused = world.chat(&session.id, "hello").await.unwrap_err();
        assert_eq!((Reason::of(&refused), world.here.llm.calls().len()), (Some(Reason::Unavailable), asked));
    }
}

/// Who comes back in time finds the rest, and it is kept once.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_returns_changes_nothing() {
    let config = Config { weft_chat_resume_ms: 5_000, ..Config::default() };
    let world = World::lasting(Database::sqlite(), config).await;
    let session = world.create("").await;
    world.here.llm.script([Reply::text("a b c d e f").delay(Duration::from_millis(20))]);
    let (_, run) = read(&mut stream(&world, in_session(&session.id, "hello")).await, 1).await;
    let (text, _) = read(&mut resume(&world, &run).await, usize::MAX).await;
    assert_eq!(text, "a b c d e f");
    assert_eq!(world.said(&session.id).await, pair("hello", &text));
}
