"""What the benches share: processes, what they cost, and a mesh to measure."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
TICK = os.sysconf("SC_CLK_TCK")
# As the peers' bench configures it, with room for four services.
POSTGRES_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300", "fsync=on",
                     "synchronous_commit=on", "shared_buffers=512MB", "max_wal_size=4GB", "min_wal_size=1GB")


def build(*arguments):
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "weft", *arguments], cwd=ROOT, check=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def tree_cpu_s(root):
    """Of a process and all that descend from it, those that have ended too."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
                found[int(entry)] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    family = {root}
    while more := {pid for pid, (parent, _) in found.items() if parent in family} - family:
        family |= more
    return sum(found[pid][1] for pid in family if pid in found)


def post(url, body, headers=None):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})})
    return json.loads(urllib.request.urlopen(request, timeout=10).read())


def until_healthy(url):
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            time.sleep(0.05)
    sys.exit(f"{url} did not become healthy")


def until_listening(port, process, what):
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit(f"{what} ended with status {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"{what} did not listen")


def stop(process, how=signal.SIGTERM):
    process.send_signal(how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Postgres:
    """A cluster of its own that loses nothing, from the system's binaries. It refuses root, so root becomes `postgres`."""

    def __init__(self, folder):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
        if not found and not shutil.which("initdb"):
            sys.exit("PostgreSQL is missing: install the package postgresql")
        self.bin, self.root = found[-1].parent if found else Path(shutil.which("initdb")).parent, os.geteuid() == 0
        self.folder, self.port = folder / "postgres", free_port()
        self.folder.mkdir()
        if self.root:
            folder.chmod(0o755)
            shutil.chown(self.folder, "postgres")
        data = str(self.folder / "data")
        self.run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D", data)
        settings = [part for setting in POSTGRES_SETTINGS for part in ("-c", setting)]
        log = open(folder / "postgres.log", "w")
        self.process = subprocess.Popen(self.command("postgres", "-D", data, "-p", str(self.port), *settings), cwd="/", stderr=log)
        until_listening(self.port, self.process, "PostgreSQL")
        # No superuser, as in production: row-level security holds for it.
        self.client("createuser", "weft")
        self.client("psql", "-q", "-c", "CREATE TABLE floor (n INT)", self.database("floor"))
        # A server that has run for a while writes over its old log. A new one makes a file of 16 MB whenever one is full, and
        # whoever commits then waits 50 ms.
        filled = "DO $$ BEGIN FOR n IN 1..60 LOOP INSERT INTO floor VALUES (n); PERFORM pg_switch_wal(); END LOOP; END $$"
        self.client("psql", "-q", "-d", "floor", "-c", filled, "-c", "CHECKPOINT")

    def command(self, name, *arguments):
        become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if self.root else []
        return [*become, str(self.bin / name), *arguments]

    def run(self, name, *arguments):
        subprocess.run(self.command(name, *arguments), cwd="/", check=True, stdout=subprocess.DEVNULL)

    def client(self, name, *arguments):
        self.run(name, "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", *arguments)

    def database(self, name):
        self.client("createdb", "-O", "weft", name)
        return f"postgres://weft@127.0.0.1:{self.port}/{name}"

    def commit_ms(self, clients):
        """What a transaction of one row takes on this disk: a floor of whatever has to be kept."""
        script = self.folder.parent / "commit.sql"
        script.write_text("INSERT INTO floor VALUES (1);\n")
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "weft", "floor"]
        command = [shutil.which("pgbench") or self.bin / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-T", "2", "-f", script, *where]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(re.search(r"latency average = ([\d.]+)", out)[1])

    def stop(self):
        stop(self.process, signal.SIGINT)


class Redis:
    """One that keeps nothing."""

    def __init__(self):
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until_listening(self.port, self.process, "Redis")

    def stop(self):
        stop(self.process)


# So that all callers may come from one address.
UNLIMITED_ADDRESS = {"WEFT_EDGE_LOGINS_PER_MINUTE": "1000000", "WEFT_EDGE_ANONYMOUS_PER_MINUTE": "1000000"}


def raised(manifest):
    """A product's manifest with rates that nobody reaches; they are looked at all the same."""
    return re.sub(r"(?m)^(requests_per_minute\s*=\s*).*$", r"\g<1>1000000", manifest)


class Mesh:
    """identity, billing, orchestrator and the edge as processes; nothing is throttled, everything is checked. On SQLite
    without a database's URL. `manifest` changes the product's manifest, `environment` is of every process."""

    # The four share the cores, as the limits of four containers would have them do.
    THREADS = max(1, (os.cpu_count() or 1) // 4)

    def __init__(self, folder, product="adiuva", manifest=raised, database=None, environment=None):
        self.folder, self.database, self.processes = folder, database, {}
        self.ports = {name: free_port() for name in ("billing", "identity", "orchestrator", "gateway")}
        products = folder / "products"
        products.mkdir()
        (products / f"{product}.toml").write_text(manifest((ROOT / f"products/{product}.toml").read_text()))
        self.environment = {
            **os.environ, "WEFT_WORKER_THREADS": str(self.THREADS), "RUST_LOG": "warn", "WEFT_PRODUCTS_DIR": str(products), "WEFT_SERVICE_SECRET": "a secret that only this bench run knows",
            "WEFT_IDENTITY_SECRET": "another secret that only this bench run knows",
            "WEFT_ORCHESTRATOR_SECRET": "a third secret that only this bench run knows",
            **{f"WEFT_{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in self.ports.items()},
            **(environment or {}),
        }
        try:
            self.begin()
            self.edge = f"http://127.0.0.1:{self.ports['gateway']}"
            until_healthy(self.edge + "/health/detailed")
        except BaseException:
            self.stop()
            raise

    def begin(self):
        for name in ("billing", "identity", "orchestrator", "gateway"):
            self.start(name)

    def start(self, name):
        database = self.database or f"sqlite://{self.folder / name}.db"
        environment = {**self.environment, "DATABASE_URL": database, "WEFT_LISTEN": f"127.0.0.1:{self.ports[name]}"}
        subprocess.run([TARGET / "weft", "migrate", name], env=environment, check=True)
        self.serve(name, name, environment)

    def serve(self, name, service, environment):
        log = open(self.folder / f"{name}.log", "w")
        self.processes[name] = subprocess.Popen([TARGET / "weft", "serve", service], env=environment, stderr=log)

    def twin_of_the_edge(self, name, environment):
        """Another edge of the same mesh, with this besides; gives its URL."""
        port = free_port()
        self.serve(name, "gateway", {**self.environment, "WEFT_LISTEN": f"127.0.0.1:{port}", **environment})
        until_healthy(f"http://127.0.0.1:{port}/health")
        return f"http://127.0.0.1:{port}"

    def tell_logs(self):
        """What the processes had to say: at `warn` there should be nothing."""
        lines = {name: (self.folder / f"{name}.log").read_text(errors="replace").splitlines() for name in self.processes}
        print(f"\nlines in the logs at `warn`: {sum(map(len, lines.values())):,}")
        for name, said in lines.items():
            if said:
                print(f"  {name}: {len(said):,}, such as {said[len(said) // 2][:240]}")

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            stop(process)


class OneProcess(Mesh):
    """The same mesh as `weft up` runs it."""

    # The other half is for what it talks to.
    THREADS = max(1, (os.cpu_count() or 1) // 2)

    def begin(self):
        environment = {**self.environment, **({"DATABASE_URL": self.database} if self.database else {})}
        command = [TARGET / "weft", "up", "--data-dir", self.folder / "data", "--listen", f"127.0.0.1:{self.ports['gateway']}"]
        log = open(self.folder / "weft.log", "w")
        self.processes["weft"] = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def drive(url, *arguments, seconds, callers=1, headers=()):
    """Starts the load client on a URL; `told` waits for what it saw. See `services/weft/examples/load.rs`."""
    given = [part for header in headers for part in ("--header", header)]
    command = [TARGET / "examples/load", "drive", "--url", url, "--callers", str(callers), "--seconds", str(seconds), *given, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(driving):
    out, _ = driving.communicate()
    if driving.returncode:
        sys.exit("the load client broke off")
    return json.loads(out)


def middle(values):
    """The median, or a dash's place if there is nothing."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def goal(what, value, most, unit):
    verdict = "not measured" if value is None else f"{value:,.2f} {unit}, {'good' if value <= most else 'MISSED'}"
    print(f"goal: {what} at most {most} {unit}: {verdict}")
