//! A database that is away, comes back, hangs, or was never there.
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_db::{Db, DbError, DbOptions, Held, Tx, sql};
use weft_testing::{eventually, postgres};

use super::{Place, on_both, options, refusal};

async fn says_one(db: &Db) -> Result<bool, DbError> {
    sql("SELECT TRUE").one(db).await
}

on_both! {
    async fn a_database_that_runs_answers_a_ping(place: Place) {
        let db = place.open().await;
        db.ping().await.unwrap();
        db.close().await;
        assert!(db.ping().await.unwrap_err().is_unavailable());
    }
}

/// On one thread, because that is how far a test's own recorder reaches.
#[tokio::test]
async fn a_ping_shows_how_many_connections_there_are() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    for (place, pool) in [(Place::sqlite(), "write"), (Place::postgres().await, "all")] {
        let db = place.open().await;
        db.write("hold", async |_: Tx| db.ping().await).await.unwrap();
        let used = format!("weft_db_pool_connections{{service=\"testing\",pool=\"{pool}\",state=\"used\"}} 1");
        let shown = recorder.handle().render();
        assert!(shown.contains(&used), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgresql_is_unavailable_at_once_and_used_again_when_it_is_back() {
    let server = postgres::Postgres::start().await;
    let db = Db::connect(&options(server.database().await)).await.unwrap();
    assert!(says_one(&db).await.unwrap());

    server.pause().await;
    for _ in 0..3 {
        let asked = Instant::now();
        let error = says_one(&db).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }
    let nothing: Result<(), DbError> = db.write("away", async |_: Tx| Ok(())).await;
    assert!(nothing.unwrap_err().is_unavailable());

    server.resume().await;
    eventually("an answer", Duration::from_secs(5), async || says_one(&db).await.is_ok()).await;
}

/// Idle connections are tried before they are used, so nobody notices a restart that is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_postgresql_between_two_calls_is_not_noticed() {
    let server = postgres::Postgres::start().await;
    let db = Db::connect(&options(server.database().await)).await.unwrap();
    join_all((0..8).map(|_| says_one(&db))).await;
    server.pause().await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    server.resume().await;
    for _ in 0..10 {
        assert!(says_one(&db).await.unwrap());
    }
}

/// What the pool tries between two uses, a task that keeps its connection does not; but it finds another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_one_session_until_it_is_lost() {
    let server = postgres::Postgres::start().await;
    let db = Db::connect(&options(server.database().await)).await.unwrap();
    let session = async |on: &Held| sql("SELECT CAST(pg_backend_pid() AS BIGINT)").one::<i64>(on).await;
    let held = db.held();
    let first = session(&held).await.unwrap();
    assert_ne!(session(&db.held()).await.unwrap(), first, "kept for one alone");
    assert!(sql("SELECT 1 / 0").run(&held).await.is_err());
    assert_eq!(session(&held).await.unwrap(), first, "a refusal is none of the connection's");

    let end = "SELECT pg_terminate_backend(CAST($1 AS INTEGER))";
    assert!(sql(end).bind(first).one::<bool>(&db).await.unwrap());
    eventually("another session", Duration::from_secs(5), async || session(&held).await.is_ok_and(|now| now != first))
        .await;
    let second = session(&held).await.unwrap();
    // Who waits no longer leaves a statement behind, and no later one waits for it.
    let slow = tokio::time::timeout(Duration::from_millis(100), sql("SELECT pg_sleep(3)").run(&held)).await;
    assert!(slow.is_err());
    let asked = Instant::now();
    assert_ne!(session(&held).await.unwrap(), second);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());

    // It rested, and meanwhile the server was away.
    server.pause().await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    server.resume().await;
    session(&held).await.unwrap();
    // What is kept goes back when nobody needs it any more.
    drop(held);
    tokio::time::timeout(Duration::from_secs(5), db.close()).await.unwrap();
}

/// Forwards to the shared server. Once `silent` was true, a connection of that time never says anything again.
async fn proxy(silent: watch::Receiver<bool>) -> (String, JoinSet<()>) {
    let postgres = postgres::shared().await;
    let server = format!("127.0.0.1:{}", postgres.port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = postgres.database().await.replace(&server, &listener.local_addr().unwrap().to_string());
    let mut forwarding = JoinSet::new();
    forwarding.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut upstream = TcpStream::connect(&server).await.unwrap();
            let mut silent = silent.clone();
            connections.spawn(async move {
                tokio::select! {
                    biased;
                    _ = silent.wait_for(|silent| *silent) => {}
                    _ = copy_bidirectional(&mut client, &mut upstream) => return,
                }
                std::future::pending().await
            });
        }
    });
    (url, forwarding)
}

/// A machine that is cut off does not refuse: it says nothing, and its connections never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_postgresql_fails_a_ping_within_its_second_and_its_successor_is_found() {
    let (silence, silent) = watch::channel(false);
    let (url, _forwarding) = proxy(silent).await;
    let db = Db::connect(&DbOptions { max_connections: 2, ..options(url) }).await.unwrap();
    let (one, other) = join(db.ping(), db.ping()).await;
    one.and(other).unwrap();
    // Until both connections are back in the pool, so that the calls below have them to hang on.
    tokio::time::sleep(Duration::from_millis(200)).await;

    silence.send_replace(true);
    for _ in 0..3 {
        let asked = Instant::now();
        let (one, other) = join(db.ping(), db.ping()).await;
        assert!(one.unwrap_err().is_unavailable() && other.unwrap_err().is_unavailable());
        assert!(asked.elapsed() < Duration::from_millis(1_300), "{:?}", asked.elapsed());
    }

    silence.send_replace(false);
    eventually("an answer", Duration::from_secs(5), async || db.ping().await.is_ok()).await;
}

#[tokio::test]
async fn a_postgresql_that_is_not_there_is_named_without_the_password() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = refusal(&options(format!("postgres://weft:secret@127.0.0.1:{free}/x"))).await;
    assert_eq!(
        error.to_string(),
        format!("postgresql at 127.0.0.1:{free} cannot be reached, check that it runs and the url")
    );
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_exist_is_named() {
    let port = postgres::shared().await.port();
    let error = refusal(&options(format!("postgres://weft:secret@127.0.0.1:{port}/nowhere"))).await;
    let expected = format!(
        "postgresql at 127.0.0.1:{port} refused the connection, check the user, the password and the database in the url"
    );
    assert_eq!(error.to_string(), expected);
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "not a folder").unwrap();
    let path = folder.path().join("file/below/x.db");
    let error = refusal(&options(format!("sqlite://{}", path.display()))).await;
    let expected = format!("the sqlite file {} cannot be opened, check that its folder is writable", path.display());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn urls_of_other_kinds_are_refused() {
    for (url, part) in [
        ("", "must begin with sqlite:// or postgres://"),
        ("mysql://localhost/x", "must begin with sqlite:// or postgres://"),
        ("sqlite::memory:", "name a file"),
        ("sqlite:///tmp/x.db?mode=never", "the sqlite url is not valid"),
        ("postgres://localhost:notaport/x", "the postgres url is not valid"),
    ] {
        let error = refusal(&options(url.to_owned())).await;
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
}
