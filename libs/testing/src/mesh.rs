//! A whole mesh as separate processes on free ports: the real binary, the real protocols.
#![expect(clippy::panic, reason = "a test bench that cannot be set up ends the test")]
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::eventually;
use crate::persona::http;

/// How long a process may take until it listens.
const START_WITHIN: Duration = Duration::from_secs(30);
/// The service secret of a test mesh; nothing else uses it.
pub const SERVICE_SECRET: &str = "a secret that only this test mesh knows";
/// Its identity secret.
const IDENTITY_SECRET: &str = "another secret that only this test mesh knows";
/// Its orchestrator secret.
const ORCHESTRATOR_SECRET: &str = "a third secret that only this test mesh knows";

/// What a mesh stands on.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `weft` binary.
    pub binary: PathBuf,
    /// A PostgreSQL URL; each service has its own schema in it. None: an SQLite file each.
    pub postgres: Option<String>,
    /// A Redis URL. None: in process.
    pub redis: Option<String>,
    /// How many identity processes.
    pub identities: usize,
    /// Further environment of every process.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// One process a service, on SQLite and without Redis.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Options { binary: binary.into(), postgres: None, redis: None, identities: 1, environment: Vec::new() }
    }
}

/// One running service.
pub struct Process {
    child: Child,
    /// `identity`, `billing`, …
    pub service: &'static str,
    /// Where it listens, `http://127.0.0.1:…`.
    pub url: String,
    command: Launch,
}

/// Enough to start a process again on the same port.
struct Launch {
    binary: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
}

/// A running mesh; ends with its owner.
pub struct Mesh {
    /// Identity, one or several.
    pub identities: Vec<Process>,
    /// Billing.
    pub billing: Process,
    /// The orchestrator.
    pub orchestrator: Process,
    /// The edge.
    pub gateway: Process,
    folder: TempDir,
}

impl Mesh {
    /// Migrates the databases and starts every process; returns when the edge says that all is well.
    pub async fn start(options: Options) -> Mesh {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        let mut shared = vec![
            ("WEFT_SERVICE_SECRET".to_owned(), SERVICE_SECRET.to_owned()),
            ("WEFT_IDENTITY_SECRET".to_owned(), IDENTITY_SECRET.to_owned()),
            ("WEFT_ORCHESTRATOR_SECRET".to_owned(), ORCHESTRATOR_SECRET.to_owned()),
            ("WEFT_LOG_FORMAT".to_owned(), "json".to_owned()),
            ("WEFT_MAIL_DIR".to_owned(), folder.path().join("mail").display().to_string()),
            // Everybody in a test calls from one address.
            ("WEFT_EDGE_LOGINS_PER_MINUTE".to_owned(), "1000000".to_owned()),
        ];
        shared.extend(options.redis.iter().map(|url| ("REDIS_URL".to_owned(), url.clone())));
        shared.extend(options.environment.iter().cloned());

        let mut ports = Vec::new();
        for _ in 0..options.identities + 3 {
            ports.push(free_address().await);
        }
        let [billing, orchestrator, gateway, identities @ ..] = ports.as_slice() else { panic!("four ports at least") };
        for (key, address) in [("IDENTITY", &identities[0]), ("BILLING", billing), ("ORCHESTRATOR", orchestrator)] {
            shared.push((format!("WEFT_{key}_URL"), format!("http://{address}")));
        }

        let start = async |service: &'static str, address: &str, number: usize| {
            let mut environment = shared.clone();
            environment.push(("DATABASE_URL".to_owned(), database(&options, folder.path(), service)));
            environment.push(("WEFT_LISTEN".to_owned(), address.to_owned()));
            let log = folder.path().join(format!("{service}-{number}.log"));
            let command = Launch { binary: options.binary.clone(), environment, log };
            if number == 0 {
                command.migrate(service).await;
            }
            Process::start(service, address, command).await
        };
        let mut running = Vec::new();
        let billing = start("billing", billing, 0).await;
        for (number, address) in identities.iter().enumerate() {
            running.push(start("identity", address, number).await);
        }
        let orchestrator = start("orchestrator", orchestrator, 0).await;
        let gateway = start("gateway", gateway, 0).await;
        let mesh = Mesh { identities: running, billing, orchestrator, gateway, folder };
        mesh.until_healthy().await;
        mesh
    }

    /// Where its SQLite files are, `identity.db` and so on.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The edge's URL.
    pub fn edge(&self) -> &str {
        &self.gateway.url
    }

    /// Waits until the edge says that every part is well.
    pub async fn until_healthy(&self) {
        let client = http();
        let url = format!("{}/health/detailed", self.edge());
        eventually("a healthy mesh", START_WITHIN, || async {
            client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Everything that every process has logged so far.
    pub fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
        logs.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
    }
}

impl Process {
    async fn start(service: &'static str, address: &str, command: Launch) -> Process {
        let child = command.spawn(service);
        let process = Process { child, service, url: format!("http://{address}"), command };
        process.until_listening().await;
        process
    }

    /// Ends it at once, as a crash would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap_or_else(|error| panic!("{}: {error}", self.service));
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) {
        self.child = self.command.spawn(self.service);
        self.until_listening().await;
    }

    /// Starts another one like it on a port of its own, with this environment besides.
    pub async fn twin(&self, environment: &[(&str, &str)]) -> Process {
        let address = free_address().await;
        let own = [("WEFT_LISTEN", address.as_str())];
        let further = own.iter().chain(environment).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let environment = self.command.environment.iter().cloned().chain(further).collect();
        let log = self.command.log.with_extension(format!("{}.log", address.replace(':', "-")));
        let command = Launch { binary: self.command.binary.clone(), environment, log };
        Process::start(self.service, &address, command).await
    }

    /// Runs the binary once with the environment of this process and gives what it prints.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = self.command.command().args(arguments).stdout(Stdio::piped()).output().await;
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", self.service));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    async fn until_listening(&self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        let what = format!("{} listening (log: {})", self.service, self.command.log.display());
        eventually(&what, START_WITHIN, || async { TcpStream::connect(&address).await.is_ok() }).await;
    }
}

impl Launch {
    fn command(&self) -> Command {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.unwrap_or_else(|error| panic!("{}: {error}", self.log.display()));
        let mut command = Command::new(&self.binary);
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    fn spawn(&self, service: &str) -> Child {
        self.command()
            .args(["serve", service])
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()))
    }

    async fn migrate(&self, service: &str) {
        let status = self.command().args(["migrate", service]).status().await;
        let status = status.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        assert!(
            status.success(),
            "weft migrate {service}: {status}: {}",
            std::fs::read_to_string(&self.log).unwrap_or_default()
        );
    }
}

fn database(options: &Options, folder: &Path, service: &str) -> String {
    options.postgres.clone().unwrap_or_else(|| format!("sqlite://{}", folder.join(format!("{service}.db")).display()))
}

/// Ports that are not given to whoever asks for any, by Linux's defaults.
const PORTS: Range<u16> = 20_000..32_000;

/// An address on loopback that nothing listens on, and that no other test of this process is given: a process of a mesh
/// that came too late to its port would leave its callers to that of another mesh.
pub async fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in PORTS {
        // Processes that test at the same time begin at different places.
        let number =
            (std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed)) % u32::from(PORTS.end - PORTS.start);
        let address = format!("127.0.0.1:{}", u32::from(PORTS.start) + number);
        if TcpListener::bind(&address).await.is_ok() {
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free")
}
