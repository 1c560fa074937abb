//! What a login costs, and what happens when there are too many.
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use tonic::Code;
use tonic_types::StatusExt;
use weft_core::Reason;
use weft_identity::Config;
use weft_testing::{Database, on_both_databases};

use crate::harness::{PASSWORD, PRODUCT, World, reason};

on_both_databases! {
    a_login_that_finds_the_queue_full_is_told_to_come_back
}

async fn a_login_that_finds_the_queue_full_is_told_to_come_back(world: &World) {
    let config = Config { weft_identity_hash_threads: 1, weft_identity_hash_queue: 1, ..world.config.clone() };
    let node = world.node_with(config).await;
    let session = node.register("ana@example.com").await;
    let logins = join_all((0..40).map(|_| node.login_in(PRODUCT, "ana@example.com", PASSWORD)));
    let (logins, me) = tokio::join!(logins, node.me(&session));
    assert!(me.is_ok(), "who is signed in does not notice: {me:?}");
    let (served, shed): (Vec<_>, Vec<_>) = logins.into_iter().partition(Result::is_ok);
    assert!(!served.is_empty(), "nobody was served");
    assert!(!shed.is_empty(), "nobody was shed");
    for status in shed.into_iter().map(Result::unwrap_err) {
        assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, Reason::RateLimited));
        assert!(status.get_details_retry_info().unwrap().retry_delay.unwrap().as_millis() > 0);
    }
    assert!(node.login("ana@example.com").await.is_ok(), "once the queue is empty");
}

/// On one thread, so that the counters of this test's server are nobody else's.
#[tokio::test(flavor = "current_thread")]
async fn a_failed_login_costs_one_hash_whether_the_account_exists_or_not() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    let hashes = || {
        let text = recorder.handle().render();
        let line = text.lines().find_map(|line| line.strip_prefix("weft_identity_password_hashes_total "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let world = World::on(Database::sqlite()).await;
    let node = world.node().await;
    node.register("ana@example.com").await;
    assert_eq!(hashes(), 1);
    for (number, (email, password)) in [
        ("ana@example.com", "not the password"),
        ("bob@example.com", PASSWORD),
        ("ana@example.com", "short"),
        ("no address", PASSWORD),
    ]
    .into_iter()
    .enumerate()
    {
        let status = node.login_in(PRODUCT, email, password).await.unwrap_err();
        assert_eq!(reason(&status), Reason::InvalidCredentials);
        assert_eq!(hashes(), 2 + number as u64, "{email:?}");
    }
}
