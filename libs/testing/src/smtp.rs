//! A mail server that takes what it is given (RFC 5321), or is in a mood.
#![expect(clippy::panic, reason = "a test bench that cannot be set up ends the test")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::eventually;

/// One mail as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// Sender of the envelope.
    pub from: String,
    /// Recipients of the envelope.
    pub to: Vec<String>,
    /// Headers and text.
    pub data: String,
}

/// A running server; it ends with this value.
pub struct MailServer {
    /// `smtp://127.0.0.1:…`, for `SMTP_URL`.
    pub url: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    /// What it answers to RCPT instead of 250, so many times.
    answers: Mutex<Vec<&'static str>>,
    refused: Mutex<usize>,
}

impl MailServer {
    /// Starts it on a free port.
    pub async fn start() -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.unwrap_or_else(|error| panic!("a port for mail: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("the port for mail: {error}"));
        let url = format!("smtp://{address}");
        let state = Arc::new(State::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        MailServer { url, state, _tasks: tasks }
    }

    /// Waits for the mail with this number, from 1.
    pub async fn mail(&self, number: usize) -> Received {
        eventually("the mail", Duration::from_secs(10), async || self.received().len() >= number).await;
        self.received().swap_remove(number - 1)
    }

    /// Answers the next recipients like this.
    pub fn answers(&self, answers: &[&'static str]) {
        *lock(&self.state.answers) = answers.to_vec();
    }

    /// What it has taken, oldest first.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state.received).clone()
    }

    /// How many recipients were not taken.
    pub fn refused(&self) -> usize {
        *lock(&self.state.refused)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut talks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        talks.spawn(async move { talk(stream, &state).await.unwrap_or_default() });
    }
}

async fn talk(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mail.test ESMTP\r\n").await?;
    let mut mail = Received { from: String::new(), to: Vec::new(), data: String::new() };
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let command = line.trim_end().to_owned();
        line.clear();
        let upper = command.to_uppercase();
        let answer = if upper.starts_with("EHLO") {
            "250-mail.test\r\n250 8BITMIME"
        } else if upper.starts_with("MAIL FROM:") {
            mail.from = path(&command);
            "250 ok"
        } else if upper.starts_with("RCPT TO:") {
            let mut answers = lock(&state.answers);
            if answers.is_empty() {
                mail.to.push(path(&command));
                "250 ok"
            } else {
                *lock(&state.refused) += 1;
                answers.remove(0)
            }
        } else if upper == "DATA" {
            stream.write_all(b"354 go on\r\n").await?;
            while stream.read_line(&mut line).await? > 0 && line != ".\r\n" {
                mail.data.push_str(line.strip_prefix('.').unwrap_or(&line));
                line.clear();
            }
            line.clear();
            lock(&state.received).push(mail.clone());
            mail = Received { from: String::new(), to: Vec::new(), data: String::new() };
            "250 taken"
        } else if upper == "QUIT" {
            stream.write_all(b"221 bye\r\n").await?;
            return Ok(());
        } else {
            "250 ok"
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

fn path(command: &str) -> String {
    let inner = command.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(address, _)| address.to_owned())
}

/// The link in a mail, and its token.
pub fn link_token(mail: &str) -> (String, String) {
    let link = mail.lines().find(|line| line.starts_with("http")).unwrap_or_else(|| panic!("no link in {mail}"));
    let parts = link.trim_end().split_once("#token=");
    let (base, token) = parts.unwrap_or_else(|| panic!("no token in {link}"));
    (base.to_owned(), token.to_owned())
}
