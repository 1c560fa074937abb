//! What cannot work says so in one sentence with an exit status, before anything is served.
use std::process::Output;

use tokio::net::TcpListener;
use tokio::process::Command;

use crate::WEFT;

async fn weft(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(WEFT);
    command.args(arguments).env("RUST_LOG", "off").kill_on_drop(true);
    command.envs(environment.iter().copied());
    let run = tokio::time::timeout(std::time::Duration::from_secs(30), command.output());
    let Output { status, stderr, .. } = run.await.expect("ends by itself").unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let (status, text) = weft(&["up", "--listen", &address, "--data-dir", data.path().to_str().unwrap()], &[]).await;
    assert_eq!(status, 73);
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let (status, text) = weft(&["up", "--listen", "127.0.0.1:0", "--data-dir", "/proc/nowhere"], &[]).await;
    assert_eq!(status, 73);
    assert!(text.contains("cannot use the data folder /proc/nowhere"), "{text}");
}

#[tokio::test]
async fn a_broken_manifest_is_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../products/adiuva.toml")).unwrap();
    let lines_before = text.lines().take_while(|line| !line.starts_with('[')).count();
    let broken: Vec<&str> =
        text.lines().take(lines_before).chain(["surprise = 1"]).chain(text.lines().skip(lines_before)).collect();
    std::fs::write(folder.path().join("adiuva.toml"), broken.join("\n")).unwrap();
    let products = [("WEFT_PRODUCTS_DIR", folder.path().to_str().unwrap())];
    let data = tempfile::tempdir().unwrap();
    for arguments in
        [&["config", "check"][..], &["up", "--listen", "127.0.0.1:0", "--data-dir", data.path().to_str().unwrap()][..]]
    {
        let (status, text) = weft(arguments, &products).await;
        assert_eq!(status, 64, "{text}");
        assert!(text.contains(&format!("adiuva.toml:{}", lines_before + 1)), "{text}");
        assert!(text.contains("surprise"), "{text}");
    }
}

#[tokio::test]
async fn an_unreachable_database_is_named_at_start() {
    let environment = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("WEFT_LISTEN", "127.0.0.1:0"),
        ("WEFT_SERVICE_SECRET", "a secret of at least this length"),
        ("WEFT_IDENTITY_SECRET", "another secret of at least this length"),
    ];
    for service in ["identity", "billing"] {
        let (status, text) = weft(&["serve", service], &environment).await;
        assert_eq!(status, 69, "{text}");
        assert!(text.contains("postgresql at 127.0.0.1:1 cannot be reached"), "{text}");
        assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    }
}

#[tokio::test]
async fn the_check_names_every_mistake_at_once() {
    let environment =
        [("WEFT_REQUEST_TIMEOUT_MS", "soon"), ("WEFT_WORKER_THREADS", "many"), ("ENV", "dev"), ("ENVIRONMENT", "prod")];
    let (status, text) = weft(&["config", "check"], &environment).await;
    assert_eq!(status, 64);
    let lower = text.to_lowercase();
    for key in ["weft_request_timeout_ms", "weft_worker_threads", "environment"] {
        assert!(lower.contains(key), "{key} is missing in: {text}");
    }
}

#[tokio::test]
async fn a_mesh_without_its_secrets_does_not_start() {
    let (status, text) = weft(&["config", "check"], &[]).await;
    assert_eq!(status, 64, "{text}");
    for key in ["DATABASE_URL", "WEFT_IDENTITY_SECRET", "WEFT_ORCHESTRATOR_SECRET", "WEFT_SERVICE_SECRET"] {
        assert!(text.contains(&format!("{key}: is not set")), "{key} is missing in: {text}");
    }
    for service in ["identity", "billing", "orchestrator", "gateway"] {
        let (status, text) = weft(&["serve", service], &[("WEFT_LISTEN", "127.0.0.1:0")]).await;
        assert_eq!((status, text.contains("WEFT_SERVICE_SECRET")), (64, true), "{service}: {text}");
    }
}
