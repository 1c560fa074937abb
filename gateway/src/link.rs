//! What is under way at one service: how many calls a connection carries, whether its peer still lives, and the answers
//! that must not outlive their time.
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::upstream::{Piece, Source};

/// How often a service with calls under way is asked whether it is still there …
const PING_EVERY: Duration = Duration::from_millis(400);
/// … and how long it may think about it. With [`PING_EVERY`] a mute service is found out within a second.
const PONG_WITHIN: Duration = Duration::from_millis(500);
/// How often a service of the mesh is asked while nothing is under way.
const PING_IDLE_EVERY: Duration = Duration::from_secs(5);
/// Questions to an operator's service before it has said something else: most gRPC servers close a connection after
/// the fourth ping without data in five minutes, and with it every call on it.
const PINGS_TO_STRANGERS: u32 = 2;
/// How often answers are looked for whose time is over.
const CUT_EVERY: Duration = Duration::from_millis(250);

/// What is under way on one connection, or at a service of this process. Each call holds one: their number is the
/// connection's load.
#[derive(Default)]
pub struct Load {
    /// Whether the peer has said anything since it was last asked for.
    heard: AtomicBool,
    answers: Mutex<Vec<Weak<Rest>>>,
}

impl Load {
    /// The peer has said something.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Ends the answers whose time is over, and forgets those that have ended.
    fn cut(&self) {
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|rest| match rest.upgrade() {
            Some(rest) if rest.deadline <= now => {
                rest.stop();
                false
            }
            Some(_on_its_way) => true,
            None => false,
        });
    }
}

/// The rest of an answer behind its headers. It is polled only as fast as the client takes it, so its time is
/// watched from outside: a client that takes nothing would hold the call, and its part of the connection's window,
/// for as long as it likes.
pub struct Rest {
    deadline: Instant,
    flow: Mutex<Option<Flow>>,
}

struct Flow {
    source: Source,
    load: Arc<Load>,
    /// Sends the rest of the request, where requests stream; ends with the answer.
    _upload: Option<JoinSet<()>>,
}

impl Rest {
    /// An answer that is over at `deadline` at the latest.
    pub fn new(source: Source, load: Arc<Load>, upload: Option<JoinSet<()>>, deadline: Instant) -> Arc<Rest> {
        let flow = Flow { source, load: load.clone(), _upload: upload };
        let rest = Arc::new(Rest { deadline, flow: Mutex::new(Some(flow)) });
        load.answers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&rest));
        rest
    }

    /// Cancels what is left of the call.
    pub fn stop(&self) {
        let flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(flow);
    }

    /// What comes next; None if it was stopped.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let mut flow = self.flow.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Flow { source, load, .. }) = flow.as_mut() else { return Poll::Ready(None) };
        let piece = ready!(source.poll(cx));
        load.hear();
        Poll::Ready(Some(piece))
    }
}

/// Cuts what takes too long on a connection, for as long as it lives.
pub async fn cut_overdue(load: Weak<Load>) {
    loop {
        sleep(CUT_EVERY).await;
        let Some(load) = load.upgrade() else { return };
        load.cut();
    }
}

/// Ends when the peer has stopped answering. `ours`: it is a service of the mesh, which minds no question.
pub async fn signs_of_life(load: Weak<Load>, ping: Option<PingPong>, ours: bool) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    let heard = || load.upgrade().is_some_and(|load| load.heard.swap(false, Ordering::Relaxed));
    let (mut asked, mut unheard) = (Instant::now(), 0);
    loop {
        sleep(PING_EVERY).await;
        if heard() {
            unheard = 0;
        }
        // The list of open connections holds one.
        let busy = load.strong_count() > 1;
        let ask = if ours { busy || asked.elapsed() >= PING_IDLE_EVERY } else { busy && unheard < PINGS_TO_STRANGERS };
        if !ask {
            continue;
        }
        (asked, unheard) = (Instant::now(), unheard + 1);
        if ping.send_ping(Ping::opaque()).is_err() {
            return;
        }
        // A peer that sends something else meanwhile is busy, not gone.
        while let Some(failed) = pong(&mut ping).await {
            if failed || !heard() {
                return;
            }
            unheard = 0;
        }
    }
}

/// None when the answer has come, else whether the connection has failed.
async fn pong(ping: &mut PingPong) -> Option<bool> {
    match timeout(PONG_WITHIN, poll_fn(|cx| ping.poll_pong(cx))).await {
        Ok(Ok(_pong)) => None,
        Ok(Err(_failed)) => Some(true),
        Err(_elapsed) => Some(false),
    }
}
