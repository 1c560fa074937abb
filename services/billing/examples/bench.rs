//! What a debit costs: `scripts/bench billing`.
//!
//! Debits of 1,000 wallets at random, each with its own idempotency key, by 1, 8, 32 and 64 callers that wait for the
//! answer: in the store (the ledger called in this process) and through gRPC (the release binary), on PostgreSQL with
//! fsync and on SQLite, beside `pgbench -N` on the same server in the same round. `--rows N` first fills the ledger with
//! N rows. Prints one JSON object a line.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring tool may fail loudly"
)]
use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use weft_auth::{SERVICE_TOKEN_HEADER, ServiceKey};
use weft_billing::{Act, Key, Kind, Ledger, Op};
use weft_core::{Clock, new_id};
use weft_db::{Db, DbOptions, sql};
use weft_product::Products;
use weft_proto::billing::v1::wallet_service_client::WalletServiceClient;
use weft_proto::billing::v1::{Bucket, DebitRequest, GrantRequest};
use weft_runtime::{Mesh, MeshConfig, Shutdown};
use weft_testing::Database;
use weft_testing::mesh::{SERVICE_SECRET, free_address};
use weft_testing::postgres::Postgres;

const WALLETS: u64 = 1_000;
const CALLERS: [usize; 4] = [1, 8, 32, 64];
const PRODUCT: &str = "adiuva";
/// As the peers' bench configures it.
const SETTINGS: [&str; 4] = ["fsync=on", "synchronous_commit=on", "shared_buffers=512MB", "max_wal_size=4GB"];

struct Arguments {
    weft: PathBuf,
    seconds: u64,
    rounds: usize,
    rows: i64,
}

/// Calls for some seconds, each caller waiting for its answer before the next call.
struct Measured {
    per_second: f64,
    p50_us: u32,
    p99_us: u32,
}

async fn drive<F: Future<Output = ()> + Send>(
    callers: usize,
    seconds: u64,
    call: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Measured {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut running = JoinSet::new();
    for caller in 0..callers as u64 {
        let call = call.clone();
        running.spawn(async move {
            let mut times = Vec::new();
            // A walk over the wallets that no two callers share.
            let mut state = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            while Instant::now() < end {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let asked = Instant::now();
                call((state >> 33) % WALLETS).await;
                times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(some) = running.join_next().await {
        times.extend(some.unwrap());
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    Measured { per_second: times.len() as f64 / elapsed, p50_us: at(50), p99_us: at(99) }
}

fn tell(round: usize, database: &str, way: &str, callers: usize, measured: &Measured) {
    let Measured { per_second, p50_us, p99_us } = measured;
    println!(
        "{}",
        json!({"round": round, "database": database, "way": way, "callers": callers, "per_second": per_second,
               "p50_us": p50_us, "p99_us": p99_us})
    );
}

fn user(wallet: u64) -> String {
    format!("user-{wallet}")
}

/// Billing in a process of its own.
struct Server {
    process: std::process::Child,
    clients: Vec<WalletServiceClient<Channel>>,
    key: Arc<ServiceKey>,
}

impl Server {
    async fn start(weft: &PathBuf, url: &str) -> Server {
        let address = free_address().await;
        let command = |what: &str| {
            let mut command = Command::new(weft);
            command.args([what, "billing"]).env("DATABASE_URL", url).env("WEFT_LISTEN", &address);
            command.env("WEFT_SERVICE_SECRET", SERVICE_SECRET).env("RUST_LOG", "warn");
            command
        };
        assert!(command("migrate").status().unwrap().success());
        let process = command("serve").spawn().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        while endpoint.connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(WalletServiceClient::new(endpoint.connect().await.unwrap()));
        }
        let key = Arc::new(ServiceKey::new(&SERVICE_SECRET.to_owned().into(), "orchestrator"));
        Server { process, clients, key }
    }

    fn request<T>(key: &ServiceKey, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SERVICE_TOKEN_HEADER, key.mint("billing").parse().unwrap());
        request
    }

    /// Fills every wallet.
    async fn fill(&self) {
        for wallet in 0..WALLETS {
            let grant = GrantRequest {
                product: PRODUCT.to_owned(),
                user_id: user(wallet),
                amount: 1_000_000_000_000,
                bucket: Bucket::Purchased.into(),
                idempotency_key: "bench".to_owned(),
                reference: "bench".to_owned(),
            };
            self.clients[0].clone().grant(Server::request(&self.key, grant)).await.unwrap();
        }
    }

    async fn debits(&self, callers: usize, seconds: u64) -> Measured {
        let (clients, key) = (self.clients.clone(), Arc::clone(&self.key));
        drive(callers, seconds, move |wallet| {
            let mut client = clients[usize::try_from(wallet).unwrap() % clients.len()].clone();
            let debit = DebitRequest {
                product: PRODUCT.to_owned(),
                user_id: user(wallet),
                amount: 1,
                idempotency_key: new_id(),
                reference: "bench".to_owned(),
            };
            let request = Server::request(&key, debit);
            async move {
                let answer: Result<_, Status> = client.debit(request).await;
                answer.expect("a debit");
            }
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _waited = self.process.wait();
    }
}

/// `pgbench -N`: an update, a read and an insert a transaction, on tables of its own.
fn pgbench(url: &str, callers: usize, seconds: u64) -> Measured {
    let (callers, seconds) = (callers.to_string(), seconds.to_string());
    let out = Command::new(pgbench_binary())
        .args(["-n", "-N", "-M", "prepared", "-c", &callers, "-j", "1", "-T", &seconds, url])
        .output()
        .expect("pgbench, from Debian's postgresql");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let number = |label: &str| -> f64 {
        let rest = text.split(label).nth(1).unwrap_or_else(|| panic!("{text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let mean_us = (number("latency average = ") * 1_000.0) as u32;
    Measured { per_second: number("tps = "), p50_us: mean_us, p99_us: 0 }
}

fn pgbench_binary() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = folders.map(|version| version.path().join("bin/pgbench")).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from("pgbench"))
}

/// The ledger in this process.
#[derive(Clone)]
struct Store(Ledger);

impl Store {
    async fn open(url: &str) -> Store {
        let db = connect(url, 16).await;
        let mesh = Mesh::new("billing", MeshConfig::default(), Clock::System, Shutdown::new());
        Store(Ledger::start(&db, &mesh, &Arc::new(Products::builtin())))
    }

    async fn debit(&self, user_id: String) {
        let (product, key) = (PRODUCT.to_owned(), new_id());
        let key = Key { product: product.clone(), user_id: user_id.clone(), method: "Debit", key, request: [0; 32] };
        let act = Act::Debit { amount: 1, kind: Kind::Usage };
        let op = Op { product, user_id, key: Some(key), reference: "bench".to_owned(), act };
        self.0.submit(op).await.expect("a debit");
    }
}

async fn connect(url: &str, max_connections: u32) -> Db {
    Db::connect(&DbOptions { url: url.to_owned(), schema: "billing", max_connections }).await.unwrap()
}

/// Puts rows under every wallet's chain, as years of use would.
async fn fill_ledger(url: &str, rows: i64) {
    let db = connect(url, 1).await;
    sql("SET statement_timeout = 0").run(&db).await.unwrap();
    // The first movement of each wallet is its grant.
    sql("INSERT INTO ledger_entries (product, user_id, seq, id, bucket, kind, account, amount, balance_after, reference, \
         created_at, hash) \
         SELECT product, user_id, n, gen_random_uuid()::TEXT, 'purchased', 'usage', 'spent', -1, purchased - n, 'bench', \
         updated_at, sha256(n::TEXT::BYTEA) FROM wallets, generate_series(2, $1) AS n WHERE product = $2")
        .bind(rows / WALLETS.cast_signed())
        .bind(PRODUCT)
        .run(&db)
        .await
        .unwrap();
    sql("UPDATE wallets SET seq = $1 WHERE product = $2")
        .bind(rows / WALLETS.cast_signed())
        .bind(PRODUCT)
        .run(&db)
        .await
        .unwrap();
    sql("VACUUM ANALYZE").run(&db).await.unwrap();
    db.close().await;
}

async fn run(arguments: Arguments) {
    let postgres = Postgres::start_with(&SETTINGS).await;
    let (peer, store_url, served_url) =
        (postgres.database().await, postgres.database().await, postgres.database().await);
    let made = Command::new(pgbench_binary()).args(["-i", "-q", "-s", "20", &peer]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (sqlite_store, sqlite_served) = (Database::sqlite(), Database::sqlite());

    let mut databases = Vec::new();
    for (name, store, served) in
        [("postgresql", &store_url, &served_url), ("sqlite", &sqlite_store.url, &sqlite_served.url)]
    {
        // Both sides of the first grant are made by the binary, so that the store finds its wallets.
        drop({
            let server = Server::start(&arguments.weft, store).await;
            server.fill().await;
            server
        });
        let server = Server::start(&arguments.weft, served).await;
        server.fill().await;
        if name == "postgresql" && arguments.rows > 0 {
            fill_ledger(store, arguments.rows).await;
        }
        databases.push((name, Store::open(store).await, server));
    }
    for round in 1..=arguments.rounds {
        for callers in CALLERS {
            tell(round, "postgresql", "pgbench -N", callers, &pgbench(&peer, callers, arguments.seconds));
            for (name, store, server) in &databases {
                let ledger = store.clone();
                let measured = drive(callers, arguments.seconds, move |wallet| {
                    let ledger = ledger.clone();
                    async move { ledger.debit(user(wallet)).await }
                })
                .await;
                tell(round, name, "store", callers, &measured);
                tell(round, name, "gRPC", callers, &server.debits(callers, arguments.seconds).await);
            }
        }
    }
}

fn main() {
    let mut arguments = Arguments { weft: PathBuf::from("target/release/weft"), seconds: 5, rounds: 3, rows: 0 };
    let given: Vec<String> = std::env::args().skip(1).collect();
    for pair in given.chunks(2) {
        let [name, value] = pair else { panic!("every option has a value") };
        match name.as_str() {
            "--weft" => arguments.weft = value.into(),
            "--seconds" => arguments.seconds = value.parse().unwrap(),
            "--rounds" => arguments.rounds = value.parse().unwrap(),
            "--rows" => arguments.rows = value.parse().unwrap(),
            other => panic!("{other}: --weft, --seconds, --rounds, --rows"),
        }
    }
    tokio::runtime::Runtime::new().unwrap().block_on(run(arguments));
}
