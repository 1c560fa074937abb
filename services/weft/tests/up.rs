//! `weft up` for a newcomer: one command, lines to paste, Ctrl-C.
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use weft_testing::mesh::free_address;

use crate::WEFT;

/// A running `weft up` and what it printed.
struct Up {
    child: Child,
    lines: Vec<String>,
}

impl Up {
    async fn start(listen: &str, data: &Path) -> Up {
        let mut child = Command::new(WEFT)
            .args(["up", "--listen", listen, "--data-dir"])
            .arg(data)
            .env_remove("OPENAI_API_KEY")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = Vec::new();
        let until_said = async {
            while let Some(line) = output.next_line().await.unwrap() {
                let last = line.starts_with("Stop with");
                lines.push(line);
                if last {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), until_said).await.expect("`up` says that it is ready");
        Up { child, lines }
    }

    /// The three lines to paste, as one script.
    fn script(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).filter(|line| line.contains("curl ")).collect();
        assert_eq!(lines.len(), 3, "{:#?}", self.lines);
        lines.join("\necho\n")
    }

    fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    async fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(15), self.child.wait()).await.expect("ends on Ctrl-C").unwrap()
    }
}

/// Pastes the printed lines into a shell; the answers of `me` and `chat`.
async fn paste(script: &str) -> (Value, Value) {
    let output = Command::new("bash").args(["-c", script]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let [me, chat] = answers.as_slice() else { panic!("two answers: {text}") };
    (me.clone(), chat.clone())
}

/// Posts to another path with the token of the printed lines; what comes back.
async fn post(up: &Up, path: &str, body: &str) -> String {
    let script = up.script();
    let token = script.lines().next().unwrap();
    let url = script.split_whitespace().find_map(|word| word.strip_suffix("/api/v1/auth/me")).unwrap();
    let line = format!(
        "curl -sN {url}{path} -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' -d '{body}'"
    );
    let output = Command::new("bash").args(["-c", &format!("{token}\n{line}")]).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_refusals_pass_between_services_of_one_process() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(&free_address().await, data.path()).await;
    let answer = post(&up, "/api/v1/chat/stream", r#"{"message":"create a task to call Ana tomorrow"}"#).await;
    let events: Vec<Value> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let told: String = events.iter().filter_map(|event| event["token"].as_str()).collect();
    assert_eq!(events.last().unwrap()["done"]["response"], told, "{answer}");
    assert!(told.contains("Call Ana"), "{answer}");

    let body = r#"{"model":"offline","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    let answer = post(&up, "/v1/chat/completions", body).await;
    assert!(answer.trim_end().ends_with("data: [DONE]"), "{answer}");
    for path in ["/api/v1/chat", "/api/v1/chat/stream"] {
        let refused: Value = serde_json::from_str(&post(&up, path, r#"{"message":""}"#).await).unwrap();
        assert_eq!(refused["error"]["status"], "INVALID_ARGUMENT", "{refused}");
    }
    assert!(up.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_types_one_command_and_pastes_three_lines() {
    let data = tempfile::tempdir().unwrap();
    let listen = free_address().await;
    let up = Up::start(&listen, data.path()).await;
    let (me, chat) = paste(&up.script()).await;
    assert_eq!(me["email"], "demo@weft.test");
    assert_eq!(me["tier"], "free");
    assert_eq!(chat["model"], "offline");
    assert_eq!(chat["agent"], "task_agent");
    assert_eq!(chat["actions"][0]["type"], "create_record");
    assert_eq!(chat["actions"][0]["data"]["title"], "Call Ana");
    assert!(up.resident_mb() < 200, "resident memory {} MB", up.resident_mb());
    assert!(up.stop().await.success());

    let again = Up::start(&listen, data.path()).await;
    let (same, _) = paste(&again.script()).await;
    assert_eq!(same, me, "a second start keeps the account");
    assert!(again.stop().await.success());
}
