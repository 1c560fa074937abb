//! Streams split, cut and garbled at every byte, in every dialect.
use futures_util::stream;
use secrecy::SecretString;

use super::*;
use crate::models::vendor::{ANTHROPIC, GEMINI, OPENAI, VENDORS};
use crate::models::{Finish, ToolCall, Usage};

/// The same answer in each dialect, and where in it the finish is told.
const STREAMS: [(Dialect, &str, &str); 3] = [
    (
        Dialect::OpenAi(Cap::MaxTokens),
        concat!(
            ": a comment keeps the connection alive\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Olá, \"}}]}\n\n",
            "data:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Ána ✓\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"t\",\"arguments\":\"{\\\"a\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
            "data: [DONE]\n\n",
        ),
        "\"finish_reason\"",
    ),
    (
        Dialect::Anthropic,
        concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n",
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\r\n\r\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Olá, \"}}\n\n",
            "event: content_block_delta\ndata:{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Ána ✓\"}}\n\n",
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"t\",\"input\":{}}}\n\n",
            "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\"}}\n\n",
            "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\\":1}\"}}\n\n",
            "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
            "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":4}}\n\n",
            "data: {\"type\":\"message_stop\"}\n\n",
        ),
        "\"stop_reason\"",
    ),
    (
        Dialect::Gemini,
        concat!(
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Olá, \"}],\"role\":\"model\"}}],\"usageMetadata\":{\"promptTokenCount\":3}}\r\n\r\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Ána ✓\"}],\"role\":\"model\"}}]}\n\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"id\":\"c\",\"name\":\"t\",\"args\":{\"a\":1}}}],\"role\":\"model\"}}]}\n\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":3,\"candidatesTokenCount\":4}}\n\n",
        ),
        "\"finishReason\"",
    ),
];

async fn read(dialect: Dialect, pieces: Vec<Bytes>) -> (Result<Completion, ModelError>, String) {
    let mut speaker = Speaker::collecting();
    speaker.meter().begin();
    let outcome = read_events(dialect, stream::iter(pieces.into_iter().map(Ok)), &mut speaker).await;
    if outcome.is_ok() {
        assert_eq!(speaker.meter().answers(), [USAGE]);
    }
    (outcome, speaker.into_said())
}

const USAGE: Usage = Usage { prompt_tokens: Some(3), completion_tokens: Some(4), total_tokens: None };

fn whole() -> Completion {
    let (id, name, arguments) = ("c".to_owned(), "t".to_owned(), "{\"a\":1}".to_owned());
    Completion {
        text: "Olá, Ána ✓".to_owned(),
        calls: vec![ToolCall { id, name, arguments, signature: None }],
        finish: Finish::ToolCalls,
        ..Completion::default()
    }
}

#[tokio::test]
async fn a_stream_split_at_any_byte_is_read_the_same() {
    for (dialect, stream, _) in STREAMS {
        let bytes = Bytes::from_static(stream.as_bytes());
        for at in 0..=bytes.len() {
            let (outcome, said) = read(dialect, vec![bytes.slice(..at), bytes.slice(at..)]).await;
            assert_eq!((outcome.unwrap(), said), (whole(), whole().text), "{dialect:?} split at {at}");
        }
        let (outcome, said) = read(dialect, (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect()).await;
        assert_eq!((outcome.unwrap(), said), (whole(), whole().text));
    }
}

#[tokio::test]
async fn a_line_in_a_million_pieces_is_read_once() {
    let text = "x".repeat(1_000_000);
    let choice = format!("{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}");
    let usage = "{\"prompt_tokens\":3,\"completion_tokens\":4}";
    let line = format!("data: {{\"choices\":[{choice}],\"usage\":{usage}}}\n\n");
    let bytes = Bytes::from(line);
    let begun = std::time::Instant::now();
    let pieces = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
    let (outcome, said) = read(Dialect::OpenAi(Cap::MaxTokens), pieces).await;
    assert_eq!((outcome.unwrap().text.len(), said.len()), (1_000_000, 1_000_000));
    // Read anew with every piece it takes hours.
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_before_its_finish_is_no_answer() {
    for (dialect, stream, finish) in STREAMS {
        let finish = stream.find(finish).unwrap();
        for at in 0..finish {
            let (outcome, said) = read(dialect, vec![Bytes::from_static(&stream.as_bytes()[..at])]).await;
            // In the middle of a character it looks malformed.
            let is_broken = matches!(outcome, Err(ModelError::Interrupted(Break::Cut | Break::Malformed)));
            assert!(is_broken, "{dialect:?} cut at {at}");
            assert!(whole().text.starts_with(&said));
        }
    }
}

#[tokio::test]
async fn what_is_not_the_dialect_is_malformed() {
    for (dialect, ..) in STREAMS {
        for text in ["data: {\"choices\":7,\"candidates\":7}\n\n", "data: hello\n\n", "data: {\n\n", "data: 7\n\n"] {
            let (outcome, _) = read(dialect, vec![Bytes::from_static(text.as_bytes())]).await;
            assert_eq!(outcome, Err(ModelError::Interrupted(Break::Malformed)), "{dialect:?} {text}");
        }
    }
}

#[test]
fn an_unusable_url_or_key_is_refused_at_start() {
    let made = |at: usize, url: &str, key: Option<&str>| {
        let account = Account { url: Some(url.to_owned()), key: key.map(SecretString::from) };
        Provider::new(&VENDORS[at], account, &Config::default()).map(drop)
    };
    for at in [OPENAI, ANTHROPIC, GEMINI] {
        for url in ["127.0.0.1:80/v1", "ftp://example.test/v1", "http://", ""] {
            assert!(matches!(made(at, url, None), Err(Error::Config { .. })), "{url}");
        }
        let refused = made(at, "http://127.0.0.1:1/v1", Some("a\nb")).unwrap_err();
        assert!(!refused.to_string().contains('\n'));
        assert!(made(at, "http://127.0.0.1:1/v1", Some(" key ")).is_ok());
    }
}
