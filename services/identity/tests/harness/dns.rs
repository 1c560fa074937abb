//! A name server (RFC 1035) that knows TXT records.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

type Records = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// A running server; it ends with this value.
pub struct NameServer {
    pub address: SocketAddr,
    records: Records,
    _tasks: JoinSet<()>,
}

impl NameServer {
    pub async fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let records = Records::default();
        let mut tasks = JoinSet::new();
        let known = Arc::clone(&records);
        tasks.spawn(async move {
            let mut query = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = answer(&query[..length], &known.lock().unwrap());
                let _sent = socket.send_to(&answer, from).await;
            }
        });
        NameServer { address, records, _tasks: tasks }
    }

    /// Gives a domain these TXT records.
    pub fn set(&self, domain: &str, records: &[&str]) {
        let records = records.iter().map(|record| (*record).to_owned()).collect();
        self.records.lock().unwrap().insert(domain.to_owned(), records);
    }
}

/// The question again, and a record for each text.
fn answer(query: &[u8], known: &BTreeMap<String, Vec<String>>) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).to_lowercase());
        at += 1 + length;
    }
    let question = &query[12..at + 5];
    let asks_txt = question[question.len() - 4..] == [0, 16, 0, 1];
    let texts = known.get(&labels.join(".")).filter(|_| asks_txt);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if texts.is_some() { 0x80 } else { 0x83 }, 0, 1, 0]);
    answer.push(texts.map_or(0, Vec::len) as u8);
    answer.extend([0; 4]);
    answer.extend(question);
    for text in texts.into_iter().flatten() {
        answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, text.len() as u8 + 1, text.len() as u8]);
        answer.extend(text.as_bytes());
    }
    answer
}
