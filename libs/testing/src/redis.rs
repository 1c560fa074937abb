//! A real Redis on a free port, without persistence, that can fail on order.
#![expect(clippy::panic, reason = "a test bench that cannot be set up ends the test")]
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use crate::mesh::free_address;

/// How long a server may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(20);

/// A running Redis; it ends with this value, and with the process at the latest.
pub struct Redis {
    address: String,
    /// What it says; a file without a name, so that nothing is left of it.
    log: File,
    /// None while it is killed.
    child: Mutex<Option<Child>>,
}

/// The Redis that all tests of a process share, for tests that neither empty it nor let it fail.
pub async fn shared() -> &'static Redis {
    static SHARED: OnceCell<Redis> = OnceCell::const_new();
    SHARED.get_or_init(Redis::start).await
}

impl Redis {
    /// Starts the system's `redis-server`; returns when it answers.
    pub async fn start() -> Redis {
        let begun = Instant::now();
        loop {
            match Redis::start_on("redis-server", free_address().await).await {
                Ok(redis) => return redis,
                // Somebody else can take the port before the server does.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < START_WITHIN => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// `redis://127.0.0.1:…`; stays the same over [`Redis::restart`].
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends it at once, as a crash would. All it held is lost.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            // Fails only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, empty.
    pub async fn restart(&self) {
        self.kill();
        let begun = Instant::now();
        while let Err(error) = self.run("redis-server").await {
            let again = error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < START_WITHIN;
            assert!(again, "{error}");
        }
    }

    /// Lets it answer nothing for a while; connections stay open.
    pub async fn stall(&self, time: Duration) {
        let answer = self.command(&format!("CLIENT PAUSE {} ALL", time.as_millis())).await;
        assert_eq!(answer, "+OK\r\n", "CLIENT PAUSE");
    }

    /// Sends one command as `redis-cli` takes it; the first 16 KiB of the answer as it comes over the wire.
    pub async fn command(&self, command: &str) -> String {
        ask(&self.address, command).await.unwrap_or_else(|error| panic!("redis on {}: {error}", self.address))
    }

    async fn start_on(binary: &str, address: String) -> io::Result<Redis> {
        let redis = Redis { address, log: tempfile::tempfile()?, child: Mutex::new(None) };
        redis.run(binary).await?;
        Ok(redis)
    }

    /// Starts the process and waits for its answer; [`io::ErrorKind::AddrInUse`] if it ends before that.
    async fn run(&self, binary: &str) -> io::Result<()> {
        let child = start_process(self.launch(binary)?).map_err(|error| {
            let hint = "tests need a real Redis: install the Debian package redis-server";
            io::Error::new(error.kind(), format!("{binary} cannot be started ({error}), {hint}"))
        })?;
        let own = format!("process_id:{}\r\n", child.id());
        *self.child() = Some(child);
        let begun = Instant::now();
        // The number tells ours from somebody else's that has taken the port.
        while !ask(&self.address, "INFO server").await.is_ok_and(|answer| answer.contains(&own)) {
            let ended = self.child().as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || begun.elapsed() > START_WITHIN {
                self.kill();
                let kind = if ended { io::ErrorKind::AddrInUse } else { io::ErrorKind::TimedOut };
                return Err(io::Error::new(
                    kind,
                    format!("redis does not start on {}: {}", self.address, self.said()?),
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn launch(&self, binary: &str) -> io::Result<Command> {
        let port = self.address.rsplit_once(':').map_or("", |(_, port)| port);
        let mut command = match on_path("setpriv") {
            // Dies with us even if we are killed and drop nothing.
            Some(setpriv) if on_path(binary).is_some() => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", binary]);
                command
            }
            _ => Command::new(binary),
        };
        command.args(["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.stdin(Stdio::null()).stdout(self.log.try_clone()?).stderr(self.log.try_clone()?);
        Ok(command)
    }

    fn said(&self) -> io::Result<String> {
        let (mut log, mut said) = (self.log.try_clone()?, String::new());
        log.rewind()?;
        log.read_to_string(&mut said)?;
        Ok(said)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn on_path(binary: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(binary)).find(|file| file.is_file())
}

/// Starts a process from a thread that lives as long as we do: `--pdeathsig` fires when the *thread* that started
/// the child ends, and a test's thread ends with its test.
fn start_process(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static STARTER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, started) = mpsc::channel();
    let gone = |_| io::Error::other("the starter thread is gone");
    STARTER.send((command, answer)).map_err(|_| gone(()))?;
    started.recv().map_err(|_| gone(()))?
}

/// Sends one command and returns the first part of what comes back.
async fn ask(address: &str, command: &str) -> io::Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut answer = vec![0; 16 * 1024];
        let length = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    timeout(Duration::from_secs(1), talk).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_binary_names_the_package_to_install() {
        let started = Redis::start_on("no-such-redis-server", free_address().await).await;
        let error = started.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("no-such-redis-server") && error.contains("Debian package redis-server"), "{error}");
    }

    #[tokio::test]
    async fn it_comes_back_empty_at_the_same_address() {
        let redis = Redis::start().await;
        let url = redis.url();
        assert_eq!(redis.command("SET key value").await, "+OK\r\n");
        redis.kill();
        assert!(ask(&redis.address, "PING").await.is_err());
        redis.restart().await;
        assert_eq!(redis.url(), url);
        assert_eq!(redis.command("EXISTS key").await, ":0\r\n");
    }

    #[tokio::test]
    async fn it_outlives_the_thread_that_asked_for_it_and_ends_when_it_is_dropped() {
        let begin = || tokio::runtime::Runtime::new().unwrap().block_on(Redis::start());
        let redis = std::thread::spawn(begin).join().unwrap();
        assert_eq!(redis.command("PING").await, "+PONG\r\n");
        let address = redis.address.clone();
        drop(redis);
        assert!(ask(&address, "PING").await.is_err());
    }
}
