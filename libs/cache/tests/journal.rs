//! What one replica writes and others read while it does.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]
use std::time::Duration;

use bytes::Bytes;
use weft_cache::{Cache, Heard, Journal, Seen, Turn};
use weft_core::{Clock, new_id};
use weft_testing::{eventually, redis};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

async fn journal(key: &str) -> Journal {
    let cache = Cache::redis(&redis::shared().await.url(), 2, Clock::System).await.unwrap();
    cache.journal(key).unwrap().unwrap()
}

fn turn(place: u64, entry: &'static str, keep_from: u64) -> Turn {
    Turn { place, entry: Bytes::from_static(entry.as_bytes()), keep_from, ttl: LONG, alive: LONG }
}

fn seen(entries: &[&'static str]) -> Seen {
    let entries = entries.iter().map(|entry| Bytes::from_static(entry.as_bytes())).collect();
    Seen { exists: true, is_written: true, entries }
}

#[tokio::test]
async fn entries_come_in_order_from_any_place_and_in_parts() {
    let key = new_id();
    let (writer, reader) = (journal(&key).await, journal(&key).await);
    for (place, entry) in [(3, "one"), (9, "two"), (10, "three")] {
        writer.write(turn(place, entry, 0)).await.unwrap();
    }
    assert_eq!(reader.read(0, 10, LONG).await.unwrap(), seen(&["one", "two", "three"]));
    assert_eq!(reader.read(4, 10, LONG).await.unwrap(), seen(&["two", "three"]));
    assert_eq!(reader.read(0, 2, LONG).await.unwrap(), seen(&["one", "two"]));
    assert_eq!(reader.read(11, 10, LONG).await.unwrap(), seen(&[]));
    writer.write(turn(11, "four", 10)).await.unwrap();
    assert_eq!(reader.read(0, 10, LONG).await.unwrap(), seen(&["three", "four"]));
    // Bytes that no text has.
    let entry = Bytes::from_static(&[0, 255, 10, 13, 0]);
    writer.write(Turn { entry: entry.clone(), ..turn(12, "", 10) }).await.unwrap();
    assert_eq!(reader.read(12, 10, LONG).await.unwrap().entries, [entry]);
}

#[tokio::test]
async fn writer_and_readers_know_of_each_other() {
    let key = new_id();
    let (writer, reader) = (journal(&key).await, journal(&key).await);
    let nothing = Seen { exists: false, is_written: false, entries: Vec::new() };
    assert_eq!(reader.read(0, 10, LONG).await.unwrap(), nothing);
    let unread = Heard { is_read: false, is_stopped: false };
    assert_eq!(writer.write(turn(0, "", 0)).await.unwrap(), unread, "who found nothing is no reader");
    let began = reader.read(0, 10, SHORT).await.unwrap();
    assert_eq!(began, Seen { exists: false, is_written: true, entries: Vec::new() });
    eventually("the reader to be forgotten", LONG, || async {
        writer.write(Turn { alive: SHORT, ..turn(1, "one", 0) }).await.unwrap() == unread
    })
    .await;
    reader.read(0, 10, LONG).await.unwrap();
    reader.stop(LONG).await.unwrap();
    let heard = writer.write(Turn { alive: SHORT, ..turn(1, "", 0) }).await.unwrap();
    assert_eq!(heard, Heard { is_read: true, is_stopped: true });
    eventually("the writer to be gone", LONG, || async { !reader.read(0, 10, LONG).await.unwrap().is_written }).await;
    assert!(reader.read(0, 10, LONG).await.unwrap().exists);
}

#[tokio::test]
async fn a_journal_is_forgotten_in_time() {
    let key = new_id();
    let (writer, reader) = (journal(&key).await, journal(&key).await);
    writer.write(Turn { ttl: SHORT, alive: SHORT, ..turn(0, "one", 0) }).await.unwrap();
    eventually("the journal to be gone", LONG, || async {
        let seen = reader.read(0, 10, LONG).await.unwrap();
        !seen.exists && !seen.is_written && seen.entries.is_empty()
    })
    .await;
}

#[tokio::test]
async fn in_process_there_is_nobody_to_write_for() {
    assert!(Cache::local(Clock::System).journal("key").unwrap().is_none());
}
