//! A real PostgreSQL for the tests: an own cluster from the system's binaries, in a temporary folder, on a
//! free port of 127.0.0.1, with every login trusted.
#![expect(clippy::panic, reason = "a test without its database cannot go on, and should say why")]
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Who PostgreSQL runs as when the tests run as root, which it refuses.
const SYSTEM_USER: &str = "postgres";
/// Who the tests log in as: no superuser, so that row-level security holds for it as it does in production.
const LOGIN: &str = "weft";
/// How long a start may take on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// What is fast and enough: the data outlives the server's process, but not the machine.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "fsync=off",
    "full_page_writes=off",
];

/// Starts PostgreSQL, and ends it and removes its folder when told to, or when the process of the tests is gone.
/// `$1` is the folder, the rest the command. Should the supervisor itself be killed, the kernel ends the server.
const SUPERVISOR: &str = r#"
dir=$1; shift
trap 'kill -QUIT $server 2>/dev/null; wait $server; rm -rf "$dir"; exit' TERM
setpriv --pdeathsig QUIT "$@" >>"$dir/log" 2>&1 &
server=$!
wait $server
"#;

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// The cluster that all tests of this process share; started by whoever asks first, ended with the process.
pub async fn shared() -> &'static Postgres {
    SHARED.get_or_init(Postgres::start).await
}

/// A running cluster. Dropping it stops the server and removes its data, also when a test panics.
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    root: bool,
    settings: Vec<String>,
    server: Mutex<Option<Keeper>>,
    databases: AtomicU32,
}

/// The thread that started the server. The kernel ends the server when the *thread* that started it ends, and
/// the thread of a test is gone before the other tests are, so each server has one of its own.
struct Keeper {
    /// Dropped to end the server.
    told: mpsc::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Postgres {
    /// A new cluster, ready. Panics with what is missing, and which Debian package has it.
    pub async fn start() -> Postgres {
        Postgres::start_with(&[]).await
    }

    /// The same with settings of `postgresql.conf`, such as `fsync=on`, which win over ours.
    pub async fn start_with(settings: &[&str]) -> Postgres {
        let dir = tempfile::Builder::new().prefix("weft-postgres-").tempdir().map(tempfile::TempDir::keep);
        let dir = dir.unwrap_or_else(|error| panic!("no temporary folder for PostgreSQL: {error}"));
        let root = fs::metadata(&dir).is_ok_and(|of| of.uid() == 0);
        let mut postgres = Postgres {
            bin: binaries(),
            dir,
            port: 0,
            root,
            settings: SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        if root {
            let mut chown = Command::new("chown");
            chown.arg(SYSTEM_USER).arg(&postgres.dir);
            succeed("chown to the user postgres (package postgresql)", chown).await;
        }
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=trust", "--username", SYSTEM_USER, "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        initdb.arg(postgres.data());
        succeed("initdb", initdb).await;
        postgres.start_on_a_free_port().await;
        let mut createuser = postgres.client("createuser");
        createuser.arg(LOGIN);
        succeed("createuser", createuser).await;
        postgres
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut createdb = self.client("createdb");
        createdb.args(["-O", LOGIN, &name]);
        succeed("createdb", createdb).await;
        format!("postgres://{LOGIN}@127.0.0.1:{}/{name}", self.port)
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes the server away as a crash would: clients see their connections break and new ones refused.
    pub async fn pause(&self) {
        let Some(keeper) = self.server().take() else { return };
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "-m", "immediate", "-w", "-D"]).arg(self.data());
        succeed("pg_ctl stop", stop).await;
        // The supervisor ends by itself now; it must not be told to, for then it would remove the data.
        while !keeper.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Brings it back on the same port with the same data, ready.
    pub async fn resume(&self) {
        if self.server().is_some() {
            return;
        }
        let keeper = self.run().await.unwrap_or_else(|log| panic!("PostgreSQL did not start again: {log}"));
        *self.server() = Some(keeper);
    }

    /// Somebody else may take a port between our look and PostgreSQL's, so it gets more than one try.
    async fn start_on_a_free_port(&mut self) {
        let mut log = String::new();
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            self.port = free.unwrap_or_else(|error| panic!("no free port for PostgreSQL: {error}")).port();
            match self.run().await {
                Ok(keeper) => {
                    *self.server() = Some(keeper);
                    return;
                }
                Err(text) => log = text,
            }
        }
        panic!("PostgreSQL did not start: {log}");
    }

    /// Starts the server and waits until it is ready; else gives its log.
    async fn run(&self) -> Result<Keeper, String> {
        let mut supervisor = self.as_system_user("setpriv");
        supervisor.args(["--pdeathsig", "TERM", "sh", "-c", SUPERVISOR, "sh"]).arg(&self.dir);
        supervisor.arg(self.bin.join("postgres")).arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        supervisor.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        // A Ctrl-C is for the tests; the server then goes with them.
        supervisor.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (told, orders) = mpsc::channel();
        let thread = thread::spawn(move || keep(supervisor.spawn()?, &orders));
        let keeper = Keeper { told, thread };
        let begun = Instant::now();
        while !self.is_ready().await {
            if keeper.thread.is_finished() || begun.elapsed() > START_TIMEOUT {
                return Err(fs::read_to_string(self.dir.join("log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(keeper)
    }

    async fn is_ready(&self) -> bool {
        let mut ready = self.client("pg_isready");
        ready.arg("-q");
        tokio::process::Command::from(ready).status().await.is_ok_and(|status| status.success())
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Keeper>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A program of PostgreSQL that connects to the server.
    fn client(&self, name: &str) -> Command {
        let mut command = self.command(name);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", SYSTEM_USER]);
        command
    }

    fn command(&self, name: &str) -> Command {
        self.as_system_user(self.bin.join(name))
    }

    fn as_system_user(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let mut command = Command::new(if self.root { Path::new("setpriv") } else { program });
        if self.root {
            command.args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--init-groups"]).arg(program);
        }
        command.current_dir(&self.dir);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(Keeper { told, thread }) = self.server().take() {
            drop(told);
            let _ = thread.join();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Waits for the end of the server, and brings it about once nobody can speak of it any more.
fn keep(mut supervisor: Child, orders: &mpsc::Receiver<()>) -> io::Result<()> {
    while orders.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
        if supervisor.try_wait()?.is_some() {
            return Ok(());
        }
    }
    Command::new("kill").args(["-TERM", &supervisor.id().to_string()]).status()?;
    supervisor.wait().map(drop)
}

/// The folder with `postgres` and `initdb`: the newest of Debian's, of the PATH, or the one `pg_config` names.
fn binaries() -> PathBuf {
    let version = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let named = Command::new("pg_config").arg("--bindir").output();
    folders.extend(named.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())));
    let complete = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let found = folders.into_iter().find(complete);
    found.unwrap_or_else(|| panic!("PostgreSQL is not installed: install the package postgresql"))
}

async fn succeed(what: &str, command: Command) {
    match tokio::process::Command::from(command).output().await {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{what}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{what} (package postgresql, and util-linux for setpriv): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn a_cluster_is_gone_when_its_test_panics() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut failing = tokio::task::JoinSet::new();
        failing.spawn(async move {
            let postgres = Postgres::start().await;
            let _ = tell.send((postgres.port, postgres.dir.clone()));
            panic!("a test that fails");
        });
        let (port, dir) = told.await.unwrap();
        assert!(failing.join_next().await.unwrap().unwrap_err().is_panic());
        assert!(!dir.exists());
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[tokio::test]
    async fn a_paused_cluster_comes_back_on_its_port_with_its_databases() {
        let postgres = Postgres::start().await;
        postgres.database().await;
        postgres.pause().await;
        assert!(!postgres.is_ready().await);
        postgres.resume().await;
        assert!(postgres.is_ready().await);
        let mut query = postgres.client("psql");
        query.args(["-d", "test_0", "-c", "SELECT 1"]);
        succeed("psql", query).await;
    }

    #[tokio::test]
    async fn the_shared_cluster_ends_with_a_killed_process() {
        let mut tests = tokio::process::Command::new(std::env::current_exe().unwrap());
        tests.args([
            "--exact",
            "postgres::tests::a_process_that_holds_on_to_the_shared_cluster",
            "--ignored",
            "--nocapture",
        ]);
        let mut tests = tests.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(tests.stdout.take().unwrap()).lines();
        let dir = loop {
            let line = lines.next_line().await.unwrap().expect("the other process names its folder");
            if let Some((_, dir)) = line.split_once("folder: ") {
                break PathBuf::from(dir);
            }
        };
        assert!(dir.exists());
        tests.kill().await.unwrap();
        let postmaster = dir.join("data/postmaster.pid");
        eventually("the end of the server", Duration::from_secs(10), async || !postmaster.exists() && !dir.exists())
            .await;
    }

    #[tokio::test]
    #[ignore = "the other process of the test above"]
    async fn a_process_that_holds_on_to_the_shared_cluster() {
        println!("folder: {}", shared().await.dir.display());
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}
