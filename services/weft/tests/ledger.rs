//! A wallet that many debit at once while billing is killed again and again.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey};
use weft_core::Reason;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::{Bucket, DebitRequest, GrantRequest};
use weft_testing::mesh::{Mesh, Options, SERVICE_SECRET};
use weft_testing::persona::Persona;
use weft_testing::postgres::Postgres;

use crate::{WEFT, adiuva_with};

const CLIENTS: u64 = 64;
const DEBITS: u64 = 10_000;
/// What the wallet holds, in debits.
const COVERED: u64 = 9_000;
/// Micro-credits of one debit.
const ONE: i64 = 1_000_000;
/// Billing is killed this often.
const KILL_EVERY: Duration = Duration::from_secs(2);
/// Nobody waits longer than this for a debit to be settled either way.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// Spreads the debits over enough time for eight kills.
const PACE: Duration = Duration::from_millis(110);
/// The whole of it.
const BOUND: Duration = Duration::from_secs(180);

/// Billing as the orchestrator calls it.
#[derive(Clone)]
struct Billing {
    client: WalletServiceClient<Channel>,
    key: Arc<ServiceKey>,
    user_id: String,
}

impl Billing {
    fn new(url: &str, user_id: String) -> Billing {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().connect_timeout(Duration::from_secs(1));
        let key = ServiceKey::new(&SERVICE_SECRET.to_owned().into(), "orchestrator");
        Billing { client: WalletServiceClient::new(endpoint.connect_lazy()), key: Arc::new(key), user_id }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, self.key.mint("billing").parse().unwrap());
        request.set_timeout(Duration::from_secs(2));
        request
    }

    async fn grant(&self, credits: u64) {
        let request = GrantRequest {
            product: "adiuva".to_owned(),
            user_id: self.user_id.clone(),
            amount: i64::try_from(credits).unwrap() * ONE,
            bucket: Bucket::Purchased.into(),
            idempotency_key: "the grant".to_owned(),
            reference: "test".to_owned(),
        };
        self.client.clone().grant(self.request(request)).await.unwrap();
    }

    /// One debit, repeated with its key until it is known what became of it: true if it was taken.
    async fn debit(&self, number: u64) -> bool {
        let begun = Instant::now();
        loop {
            let request = DebitRequest {
                product: "adiuva".to_owned(),
                user_id: self.user_id.clone(),
                amount: ONE,
                idempotency_key: format!("debit {number}"),
                reference: format!("run {number}"),
            };
            match self.client.clone().debit(self.request(request)).await {
                Ok(_taken) => return true,
                Err(status) if Reason::of(&status) == Some(Reason::InsufficientCredits) => return false,
                Err(status) => self.may_be_repeated(&status, number),
            }
            assert!(begun.elapsed() < SETTLED_WITHIN, "debit {number} was not settled in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn may_be_repeated(&self, status: &Status, number: u64) {
        let unknown = [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::Unknown];
        assert!(unknown.contains(&status.code()), "debit {number} of {}: {status:?}", self.user_id);
    }
}

/// Reads the balance all the time; no read may be negative.
async fn watch(person: Persona, done: Arc<AtomicBool>) -> u64 {
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) {
        let (status, balance) = person.get("/api/v1/wallet/balance").await;
        if status == 200 {
            for part in ["total", "daily", "bonus", "purchased", "held"] {
                assert!(balance[part].as_f64().unwrap() >= 0.0, "{balance}");
            }
            reads += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    reads
}

#[expect(clippy::print_stdout, reason = "the figures of the proof")]
async fn ten_thousand_debits_while_billing_dies(mut options: Options) {
    // The one who watches asks more often than the free plan lets them.
    let products = tempfile::tempdir().unwrap();
    adiuva_with(products.path(), &[("requests_per_minute = 20\n", "requests_per_minute = 100000\n")]);
    options.environment.push(("WEFT_PRODUCTS_DIR".to_owned(), products.path().display().to_string()));
    let mut mesh = Mesh::start(options).await;
    let begun = Instant::now();
    let person = Persona::register(mesh.edge(), "adiuva", "payer@example.com").await;
    let (_, me) = person.get("/api/v1/auth/me").await;
    let billing = Billing::new(&mesh.billing.url, me["id"].as_str().unwrap().to_owned());
    billing.grant(COVERED).await;

    let done = Arc::new(AtomicBool::new(false));
    let mut watching = JoinSet::new();
    watching.spawn(watch(person.clone(), Arc::clone(&done)));
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (billing, next) = (billing.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut taken = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= DEBITS {
                    return taken;
                }
                taken += u64::from(billing.debit(number).await);
                tokio::time::sleep(PACE).await;
            }
        });
    }
    let (mut kills, mut taken) = (0, 0);
    let mut last_kill = Instant::now();
    while !clients.is_empty() {
        match tokio::time::timeout(KILL_EVERY.saturating_sub(last_kill.elapsed()), clients.join_next()).await {
            Ok(ended) => taken += ended.unwrap().unwrap(),
            Err(_elapsed) => {
                mesh.billing.kill().await;
                mesh.billing.restart().await;
                (kills, last_kill) = (kills + 1, Instant::now());
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let reads = watching.join_next().await.unwrap().unwrap();
    println!("{kills} kills, {taken} debits taken, {reads} reads, {:?}", begun.elapsed());

    assert_eq!(taken, COVERED);
    let (status, balance) = person.get("/api/v1/wallet/balance").await;
    assert_eq!((status, &balance["total"], &balance["held"]), (200, &json!(0), &json!(0)), "{balance}");
    let verified = mesh.billing.run(&["ledger", "verify", "--product", "adiuva"]).await;
    let report: Value = serde_json::from_str(&verified).unwrap_or_else(|error| panic!("{error}: {verified}"));
    assert_eq!((&report["ok"], &report["sum"]), (&json!(true), &json!(0)), "{report}");
    assert_eq!(report["transactions"], json!(1 + COVERED), "each debit that was taken is there once: {report}");
    assert!(kills >= 8, "only {kills} kills");
    assert!(reads > 0 && begun.elapsed() < BOUND, "{reads} reads in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_debits_on_sqlite_while_billing_dies() {
    ten_thousand_debits_while_billing_dies(Options::new(WEFT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_debits_on_postgresql_while_billing_dies() {
    let postgres = Postgres::start_with(&["fsync=on"]).await;
    let options = Options { postgres: Some(postgres.database().await), ..Options::new(WEFT) };
    ten_thousand_debits_while_billing_dies(options).await;
}
