use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Names that lead where the script says, one answer after the other.
struct Script(Mutex<VecDeque<Vec<IpAddr>>>);

impl Resolve for Script {
    fn resolve(&self, _name: Name) -> Resolving {
        let answer = self.0.lock().unwrap().pop_front().unwrap_or_default();
        Box::pin(async move { Ok(Box::new(answer.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs) })
    }
}

fn networks(text: &str) -> Networks {
    text.parse().unwrap()
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).pool_max_idle_per_host(0)
}

fn public(allowed: &str) -> Client {
    client(Reach::Public, &networks(allowed), builder()).unwrap()
}

fn scripted(allowed: &str, answers: &[&[&str]]) -> Client {
    let answers = answers.iter().map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
    client_over(Reach::Public, &networks(allowed), builder(), Arc::new(Script(Mutex::new(answers)))).unwrap()
}

/// A server that answers every request with `status` and counts nothing; gives its port.
async fn server(ip: &str, port: u16, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((ip, port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _read = socket.read(&mut request).await;
            let _sent = socket.write_all(answer.as_bytes()).await;
        }
    });
    port
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfirst";
const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nother";

async fn text(client: &Client, url: &str) -> Result<String, reqwest::Error> {
    client.get(url).unwrap().send().await?.text().await
}

#[test]
fn addresses_that_are_not_public_are_known_in_every_form() {
    let none = Networks::default();
    for inside in [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "5f00::1",
    ] {
        assert!(!none.may_ask(inside.parse().unwrap()), "{inside}");
    }
    for outside in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.1.1",
        "198.17.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(none.may_ask(outside.parse().unwrap()), "{outside}");
    }
}

#[test]
fn an_address_in_a_url_is_read_as_a_browser_reads_it() {
    let client = public("");
    for url in [
        "http://127.0.0.1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://017700000001/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:127.0.0.1]/",
        "https://169.254.169.254/latest",
        "http://user@10.0.0.1:80/",
        "http://１２７.0.0.1/",
    ] {
        assert!(matches!(client.get(url), Err(OutboundError::Inside)), "{url}");
    }
    assert!(client.get("https://api.openai.com/v1").is_ok());
    assert!(client.get("https://8.8.8.8/").is_ok());
    assert!(matches!(client.get("nowhere"), Err(OutboundError::Url(_))));
}

#[test]
fn allowed_networks_are_read_and_hold_what_they_say() {
    let allowed = networks("10.1.0.0/16, ::1,192.168.7.7");
    for (address, may) in [
        ("10.1.255.1", true),
        ("10.2.0.1", false),
        ("::1", true),
        ("::2", false),
        ("192.168.7.7", true),
        ("192.168.7.8", false),
        ("::ffff:10.1.0.1", true),
        ("127.0.0.1", false),
    ] {
        assert_eq!(allowed.may_ask(address.parse().unwrap()), may, "{address}");
    }
    assert!(networks("0.0.0.0/0").may_ask("127.0.0.1".parse().unwrap()));
    for wrong in ["10.0.0.0/33", "localhost", "::1/129", "10.0.0.0/", "10.0.0.0/-1"] {
        assert!(wrong.parse::<Networks>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_when_it_is_connected_to() {
    let port = server("127.0.0.1", 0, OK).await;
    let error = text(&public(""), &format!("http://localhost:{port}/")).await.unwrap_err();
    assert!(error.is_connect() && led_inside(&error), "{error:?}");
    let allowed = public("127.0.0.0/8,::1");
    assert_eq!(text(&allowed, &format!("http://localhost:{port}/")).await.unwrap(), "first");
    let operator = client(Reach::Operator, &Networks::default(), builder()).unwrap();
    assert_eq!(text(&operator, &format!("http://localhost:{port}/")).await.unwrap(), "first");
    assert_eq!(text(&operator, &format!("http://127.0.0.1:{port}/")).await.unwrap(), "first");
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    let port = server("127.0.0.2", 0, OK).await;
    server("127.0.0.1", port, OTHER).await;
    // Every name is asked once a connection: the second answer is for the second request.
    let client = scripted("127.0.0.2", &[&["127.0.0.2"], &["127.0.0.1"], &["127.0.0.1", "127.0.0.2"]]);
    let url = format!("http://rebinding.test:{port}/");
    assert_eq!(text(&client, &url).await.unwrap(), "first");
    assert!(led_inside(&text(&client, &url).await.unwrap_err()));
    assert_eq!(text(&client, &url).await.unwrap(), "first", "of several addresses only the public ones are taken");
    assert!(led_inside(&text(&client, &url).await.unwrap_err()), "no address at all");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    const MOVED: &str = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let port = server("127.0.0.1", 0, MOVED).await;
    let response = public("127.0.0.1").get(format!("http://127.0.0.1:{port}/")).unwrap().send().await.unwrap();
    assert_eq!(response.status(), 302);
}
