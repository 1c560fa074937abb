//! Wire transcripts of embeddings, `tests/golden/<vendor>/embedding.txt`: `response` is given, `request` and `outcome` are
//! compared, or written anew with `WEFT_GOLDEN_WRITE=1`.
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weft_core::Clock;

use super::*;
use crate::config::Config;
use crate::models::{Meter, Models};

#[tokio::test]
async fn every_dialect_of_embeddings_is_spoken_to_the_byte() {
    for (vendor, model, dimensions) in
        [("openai", "text-embedding-3-small", Some(3)), ("gemini", "gemini-embedding-001", None)]
    {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{vendor}/embedding.txt"));
        let text = std::fs::read_to_string(&file).unwrap();
        let response = text.split("=== request\n").next().unwrap();
        let (request, outcome) = exchange(vendor, model, dimensions, response).await;
        let now = format!("{response}=== request\n{request}\n=== outcome\n{outcome}\n");
        if std::env::var_os("WEFT_GOLDEN_WRITE").is_some() {
            std::fs::write(&file, &now).unwrap();
        } else {
            assert_eq!(now, text, "{}", file.display());
        }
    }
}

async fn exchange(vendor: &str, model: &str, dimensions: Option<u32>, response: &str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut config = Config::default();
    let (key, base) = (Some("key-of-nobody".into()), Some(url.clone()));
    match vendor {
        "openai" => (config.openai_api_key, config.openai_base_url) = (key, base),
        _ => (config.gemini_api_key, config.gemini_base_url) = (key, base),
    }
    let models = Models::new(&config, Clock::System).unwrap();
    let (_, message) = response.split_once('\n').unwrap();
    let (head, body) = message.split_once("\n\n").unwrap();
    let answer = format!("{}\r\ncontent-length: {}\r\n\r\n{body}", head.replace('\n', "\r\n"), body.len());
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0, "the request was cut");
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        (String::from_utf8(request).unwrap(), socket)
    };
    let texts = ["Buy milk".to_owned(), "Olá ✓".to_owned()];
    let meter = Meter::default();
    let texts = Texts { texts: &texts, dimensions };
    let (outcome, (request, _socket)) = tokio::join!(models.embed(model, texts, &meter), served);
    let request = request.replace("\r\n", "\n").replace(&url["http://".len()..], "HOST");
    (request, format!("{outcome:?}\n{:?}", meter.answers()))
}

/// Whether the head and as many bytes as it says are there.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
    request.len() == head.len() + 4 + length
}
