//! What `weft up` shows a newcomer: an account that works and lines to paste.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use weft_product::{CredentialKind, Products};
use weft_runtime::{Environment as Stage, MeshConfig};

use crate::config::{Environment, require};
use crate::exit::Failure;

/// Address of the demo account.
const EMAIL: &str = "demo@weft.test";
/// How long every part may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// An account that can sign in.
pub struct Account {
    email: &'static str,
    password: String,
}

/// The URL under which this machine reaches a listening edge; a wildcard address is reached on loopback.
pub fn reachable(listening: SocketAddr) -> String {
    let ip = if listening.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listening.ip() };
    format!("http://{}", SocketAddr::new(ip, listening.port()))
}

/// A client for calls to our own edge.
pub fn client() -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder().timeout(Duration::from_secs(10)).build().map_err(Failure::stopped)
}

/// Waits until the edge and everything behind it answer.
pub async fn wait_until_ready(url: &str) -> Result<(), Failure> {
    let client = client()?;
    let ready = async {
        loop {
            let answer = client.get(format!("{url}/health/detailed")).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, ready).await.map_err(|_| {
        Failure::unavailable(format!(
            "not every service became ready within {} s; see {url}/health/detailed and the log",
            READY_WITHIN.as_secs()
        ))
    })
}

/// The demo account of the default product, made at the first start. None in production, or where the
/// default product has no passwords.
pub async fn account(
    environment: &Environment,
    products: &Products,
    url: &str,
    password: &str,
) -> Result<Option<Account>, Failure> {
    let config: MeshConfig = require(environment)?;
    let gateway: weft_gateway::Config = require(environment)?;
    let takes_passwords = products
        .get(&gateway.weft_default_product)
        .is_some_and(|product| product.identity.credentials.contains(&CredentialKind::Password));
    if config.env == Stage::Prod || !takes_passwords {
        return Ok(None);
    }
    let body = json!({"email": EMAIL, "password": password});
    let answer =
        client()?.post(format!("{url}/api/v1/auth/register")).json(&body).send().await.map_err(Failure::stopped)?;
    match answer.status() {
        StatusCode::OK | StatusCode::CONFLICT => Ok(Some(Account { email: EMAIL, password: password.to_owned() })),
        status => Err(Failure::stopped(format!(
            "the demo account could not be made: {status}: {}",
            answer.text().await.unwrap_or_default()
        ))),
    }
}

/// The text that says how to go on.
pub fn welcome(
    environment: &Environment,
    url: &str,
    data: &Path,
    ready_ms: u128,
    account: Option<&Account>,
    links: &[(String, String)],
) -> String {
    let has_model = |name: &str| {
        let name = name.strip_suffix("_FILE").unwrap_or(name);
        let vendor = name.strip_suffix("_API_KEY").or_else(|| name.strip_suffix("_BASE_URL"));
        matches!(vendor, Some("OPENAI" | "ANTHROPIC" | "CLAUDE" | "GEMINI" | "XAI"))
    };
    let model = if environment.keys().any(|name| has_model(name)) {
        "your provider"
    } else {
        "offline (built in; set OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or XAI_API_KEY for a real one)"
    };
    let mut text = format!(
        "\nWeft is ready after {ready_ms} ms.\n\n  edge     {url}   JSON, SSE, grpc-web and gRPC\n  health   {url}/health/detailed\n  metrics  {url}/metrics\n  data     {}\n  model    {model}\n",
        data.display()
    );
    for (product, link) in links {
        text.push_str(&format!(
            "  set up   {link}   becomes the first administrator of {product}, within 24 h, once\n"
        ));
    }
    if let Some(Account { email, password }) = account {
        text.push_str(&format!(
            "  account  {email}   password {password}\n\nTry it:\n\n\
             TOKEN=$(curl -s {url}/api/v1/auth/login -H 'content-type: application/json' -d '{{\"email\":\"{email}\",\"password\":\"{password}\"}}' | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n\
             curl -s {url}/api/v1/auth/me -H \"authorization: Bearer $TOKEN\"\n\
             curl -s {url}/api/v1/chat -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' -d '{{\"message\":\"create a task to call Ana tomorrow\"}}'\n"
        ));
    }
    text.push_str("\nStop with Ctrl-C.\n\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_reached_on_loopback() {
        assert_eq!(reachable(SocketAddr::from(([0, 0, 0, 0], 80))), "http://127.0.0.1:80");
        assert_eq!(reachable(SocketAddr::from(([127, 0, 0, 2], 80))), "http://127.0.0.2:80");
    }
}
