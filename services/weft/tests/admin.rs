//! The first administrator, made at the command line while the mesh runs.
use std::process::Output;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use weft_testing::eventually;
use weft_testing::mesh::{Mesh, Options};
use weft_testing::persona::{Client, Persona};

use crate::WEFT;

async fn weft(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(WEFT);
    command.args(arguments).env("RUST_LOG", "off").env_remove("DATABASE_URL").kill_on_drop(true);
    command.envs(environment.iter().copied());
    let run = tokio::time::timeout(Duration::from_secs(30), command.output());
    let Output { status, stdout, stderr } = run.await.expect("ends by itself").unwrap();
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_the_first_admin_while_the_mesh_runs_on_sqlite() {
    let mesh = Mesh::start(Options::new(WEFT)).await;
    let root = Persona::register(mesh.edge(), "adiuva", "root@example.com").await;
    assert_eq!(root.get("/api/admin/users").await.0, 403);
    let data = mesh.folder().to_str().unwrap();
    let (status, text) = weft(&["admin", "grant", "Root@example.com", "--data-dir", data], &[]).await;
    assert_eq!((status, text.contains("has the role admin in adiuva")), (0, true), "{text}");
    eventually("the old token to be refused", Duration::from_secs(2), || async {
        root.get("/api/v1/auth/me").await.0 == 401
    })
    .await;

    let client = Client::new(mesh.edge(), "adiuva");
    let token = async || {
        let body = json!({"email": root.email, "password": root.password});
        let (status, tokens) = client.post("/api/v1/auth/login", None, &body).await;
        assert_eq!(status, 200, "{tokens}");
        tokens["access_token"].as_str().unwrap().to_owned()
    };
    for path in ["/api/admin/users", "/api/v1/admin/users?email=root&limit=1"] {
        let (status, list) = client.get(path, Some(&token().await)).await;
        assert_eq!((status, &list["users"][0]["email"]), (200, &json!("root@example.com")), "{list}");
        assert_eq!(list["users"][0]["roles"], json!(["user", "admin"]));
    }
    let (status, text) = weft(&["admin", "revoke", "root@example.com", "--data-dir", data], &[]).await;
    assert_eq!((status, text.contains("has lost the role admin")), (0, true), "{text}");
    assert_eq!(client.get("/api/admin/users", Some(&token().await)).await.0, 403);
}

#[tokio::test]
async fn what_an_operator_cannot_do_is_one_sentence() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let told = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let (status, text) = weft(&[&["admin", "grant", "ana@example.com"], arguments].concat(), environment).await;
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");
        (status, text)
    };
    let (status, text) = told(&["--data-dir", folder], &[]).await;
    assert_eq!((status, text.contains("--data-dir")), (69, true), "{text}");
    assert!(std::fs::read_dir(folder).unwrap().next().is_none(), "no empty database is left behind");
    let (status, text) = told(&["--data-dir", folder, "--product", "nobody"], &[]).await;
    assert_eq!((status, text.contains("there is no product")), (64, true), "{text}");

    let url = format!("sqlite://{folder}/identity.db");
    let environment = [("DATABASE_URL", url.as_str())];
    let (status, text) = told(&[], &environment).await;
    assert_eq!((status, text.contains("weft migrate")), (69, true), "{text}");
    let secret = [environment[0], ("WEFT_IDENTITY_SECRET", "a secret of at least thirty-two bytes")];
    assert_eq!(weft(&["migrate", "identity"], &secret).await.0, 0);
    let (status, text) = told(&[], &environment).await;
    assert_eq!((status, text.contains("there is no account ana@example.com")), (64, true), "{text}");
    let (status, text) = told(&["--role", "root"], &environment).await;
    assert_eq!((status, text.contains("there is no role")), (64, true), "{text}");
}
