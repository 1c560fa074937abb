//! Shutdown and background work.
use std::future::pending;
use std::time::Duration;

use tokio::sync::oneshot;
use weft_runtime::{Shutdown, Tasks};

#[tokio::test]
async fn everybody_hears_of_the_shutdown() {
    let shutdown = Shutdown::new();
    let other = shutdown.clone();
    assert!(!other.is_triggered());
    shutdown.trigger();
    shutdown.trigger();
    other.wait().await;
    assert!(other.is_triggered());
}

#[tokio::test]
async fn background_work_is_waited_for() {
    let tasks = Tasks::new();
    let (go, gone) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    tasks.spawn("work", async move {
        gone.await.unwrap();
        done.send(()).unwrap();
    });
    assert_eq!(tasks.running(), 1);
    go.send(()).unwrap();
    assert!(tasks.drain(Duration::from_secs(5)).await);
    is_done.await.unwrap();
}

#[tokio::test]
async fn work_that_never_ends_is_not_waited_for_for_ever() {
    let tasks = Tasks::new();
    tasks.spawn("work", pending());
    assert!(!tasks.drain(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn work_that_panics_ends_alone() {
    let tasks = Tasks::new();
    tasks.spawn("work", async { panic!("as asked") });
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
