//! A client's connection below HTTP: a client that takes nothing is given up, and an HTTP/1.1 head that others
//! might cut differently is found out.
//!
//! hyper settles such heads as RFC 9112 says (chunked wins, bare line feeds end lines). That is safe here, but not
//! for a proxy in front that settles them the other way: what it takes for one request would be two. So they are
//! refused, which needs the bytes, because hyper's headers no longer show it.
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// A head is looked at up to this size; hyper refuses larger ones.
const MAX_HEAD_BYTES: usize = 128 * 1024;

/// A client's connection.
pub struct Socket {
    stream: TcpStream,
    heads: Option<Heads>,
    write_timeout: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// A connection on which the heads are watched, if it is HTTP/1.1.
    pub fn new(stream: TcpStream, heads: Option<Heads>, write_timeout: Duration) -> Self {
        Socket { stream, heads, write_timeout, stuck: None }
    }

    /// Gives the connection up when it has been stuck for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let until = Instant::now() + self.write_timeout;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(until)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(())), Some(heads)) = (&outcome, &this.heads) {
            heads.see(&buffer.filled()[before..]);
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bytes);
        this.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// What was seen of a request's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Why it is refused.
    pub fault: Option<&'static str>,
    /// Its body is chunked. The connection ends with it: only hyper knows where such a body ends.
    pub chunked: bool,
}

/// The heads on one HTTP/1.1 connection, shared by the socket and the service.
#[derive(Clone, Default)]
pub struct Heads(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    phase: Phase,
    seen: VecDeque<Seen>,
}

enum Phase {
    /// In a head; what is there of it.
    Head(Vec<u8>),
    /// In a body with so many bytes to come.
    Body(u64),
    /// No longer watching.
    Off,
}

impl Default for Phase {
    fn default() -> Self {
        Phase::Head(Vec::new())
    }
}

impl Heads {
    /// What was seen of the next request's head.
    pub fn next(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).seen.pop_front().unwrap_or_default()
    }

    /// What follows is not HTTP.
    pub fn off(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).phase = Phase::Off;
    }

    fn see(&self, mut bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            match &mut state.phase {
                Phase::Off => return,
                Phase::Body(left) => {
                    let skipped = (*left).min(bytes.len() as u64) as usize;
                    *left -= skipped as u64;
                    bytes = &bytes[skipped..];
                    if *left == 0 {
                        state.phase = Phase::default();
                    }
                }
                Phase::Head(begun) => {
                    let fresh = begun.len();
                    // The usual head comes in one piece and is not copied.
                    if let (true, Some(end)) = (begun.is_empty(), head_end(bytes)) {
                        let head = Head::read(&bytes[..end]);
                        bytes = &bytes[end..];
                        state.end_of(head);
                        continue;
                    }
                    begun.extend_from_slice(bytes);
                    match head_end(begun) {
                        Some(end) => {
                            let head = Head::read(&begun[..end]);
                            bytes = &bytes[end - fresh..];
                            state.end_of(head);
                        }
                        None if begun.len() > MAX_HEAD_BYTES => state.phase = Phase::Off,
                        None => return,
                    }
                }
            }
        }
    }
}

impl State {
    fn end_of(&mut self, head: Head) {
        let fault = head.fault();
        self.seen.push_back(Seen { fault, chunked: head.chunked });
        self.phase = match head.length {
            _ if head.chunked || fault.is_some() => Phase::Off,
            Some(0) | None => Phase::default(),
            Some(length) => Phase::Body(length),
        };
    }
}

/// Behind the empty line that ends a head. Empty lines before it belong to nothing and are skipped by hyper too.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = begin;
    loop {
        let line = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        if matches!(&bytes[at..at + line], b"" | b"\r") && at > begin {
            return Some(at + line + 1);
        }
        at += line + 1;
    }
}

/// What matters of a head.
#[derive(Default)]
struct Head {
    length: Option<u64>,
    lengths: usize,
    chunked: bool,
    bare_line_feed: bool,
    folded: bool,
    underscore: bool,
}

impl Head {
    fn read(bytes: &[u8]) -> Head {
        let mut head = Head::default();
        for (number, line) in bytes.trim_ascii_start().split_inclusive(|byte| *byte == b'\n').enumerate() {
            head.bare_line_feed |= !line.ends_with(b"\r\n");
            if number == 0 {
                continue;
            }
            head.folded |= matches!(line.first(), Some(b' ' | b'\t'));
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = &line[..colon];
            head.underscore |= name.contains(&b'_');
            if name.eq_ignore_ascii_case(b"content-length") {
                head.lengths += 1;
                head.length = std::str::from_utf8(&line[colon + 1..]).ok().and_then(|text| text.trim().parse().ok());
            }
            head.chunked |= name.eq_ignore_ascii_case(b"transfer-encoding");
        }
        head
    }

    fn fault(&self) -> Option<&'static str> {
        if self.chunked && self.lengths > 0 {
            return Some("the request has both a content-length and a transfer-encoding");
        }
        if self.lengths > 1 {
            return Some("the request has more than one content-length");
        }
        if self.bare_line_feed || self.folded {
            return Some("the request's lines do not end as they must");
        }
        self.underscore.then_some("the request has a header with an underscore in its name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(parts: &[&[u8]]) -> Vec<Seen> {
        let heads = Heads::default();
        parts.iter().for_each(|part| heads.see(part));
        let state = heads.0.lock().unwrap();
        state.seen.iter().copied().collect()
    }

    #[test]
    fn heads_are_found_between_bodies_however_they_are_cut() {
        let stream = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\na\n\r\n\nGET /b HTTP/1.1\r\nhost: x\r\n\r\n\r\nGET /c HTTP/1.1\r\nx_y: 1\r\n\r\n";
        for cut in 0..stream.len() {
            let found = seen(&[&stream[..cut], &stream[cut..]]);
            let faults: Vec<bool> = found.iter().map(|one| one.fault.is_some()).collect();
            assert_eq!(faults, [false, false, true], "cut at {cut}");
        }
    }

    #[test]
    fn heads_that_can_be_read_in_two_ways_are_refused() {
        for bad in [
            &b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\n",
            b"GET / HTTP/1.1\nhost: x\n\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nx_user_id: 1\r\n\r\n",
        ] {
            assert!(seen(&[bad])[0].fault.is_some(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_chunked_body_ends_the_watch() {
        let found = seen(&[b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"5\r\na_b: \r\n0\r\n\r\n"]);
        assert_eq!(found, [Seen { fault: None, chunked: true }]);
    }
}
