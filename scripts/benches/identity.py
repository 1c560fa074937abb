"""What refusing costs, and what a flood of logins does to everybody else."""

import http.client
import json
import re
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from benches.bad_tokens import bad_tokens
from benches.common import UNLIMITED_ADDRESS, Mesh, Postgres, build, drive, goal, middle, post, raised, told

# It signs people in by password and by an issuer.
PRODUCT = {"x-weft-product": "zerobs"}
PASSWORD = "correct horse battery"
# Of each kind of bad token.
TIMES = 100
# So long tokens with unknown key ids come, in s: longer than the pause between two fetches.
FLOOD_S = 12
ACCOUNTS = 200


def account(number):
    return {"email": f"known{number}@example.com", "password": PASSWORD}


class Issuer:
    """Lists one key, and counts how often it is asked."""

    def __init__(self):
        self.key, self.asked = None, 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked += 1
                body = json.dumps({"keys": [issuer.key]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Caller:
    """One connection to the edge."""

    def __init__(self, edge):
        self.edge = urlsplit(edge).netloc
        self.connection = http.client.HTTPConnection(self.edge, timeout=30)
        self.connection.connect()

    def ask(self, method, path, body=None, headers=None):
        """Status, answer, and ms."""
        text = None if body is None else json.dumps(body)
        headers = {**PRODUCT, **({"content-type": "application/json"} if body else {}), **(headers or {})}
        begun = time.perf_counter()
        self.connection.request(method, path, text, headers)
        response = self.connection.getresponse()
        answer = response.read()
        took = (time.perf_counter() - begun) * 1000
        # Outside the time: only a refusal of the headers themselves closes the connection.
        if self.connection.sock is None:
            self.connection.connect()
        return response.status, answer, took


def identity(seconds, rounds):
    build("--bins", "--example", "load")
    issuer = Issuer()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        postgres = Postgres(folder)
        try:
            environment = {**UNLIMITED_ADDRESS, "SUPABASE_URL": issuer.url, "WEFT_MAIL_DIR": str(folder / "mail")}
            mesh = Mesh(folder, product="zerobs", manifest=raised, database=postgres.database("weft"), environment=environment)
            try:
                measure(mesh, issuer, seconds, rounds)
                mesh.tell_logs()
            finally:
                mesh.stop()
        finally:
            postgres.stop()


def measure(mesh, issuer, seconds, rounds):
    for number in range(ACCOUNTS):
        good = post(mesh.edge + "/api/v1/auth/register", account(number), PRODUCT)["access_token"]
    keys = json.loads(urllib.request.urlopen(mesh.edge + "/.well-known/jwks.json", timeout=10).read())["keys"]
    issuer.key = {**keys[0], "kid": "the issuer's"}
    kinds = bad_tokens(good, keys[0], issuer.url + "/auth/v1", issuer.key["kid"])
    refusals(mesh, good, kinds)
    unknown_keys(mesh, issuer, kinds)
    logins(mesh, seconds, rounds)
    enumeration(mesh)


def refusals(mesh, good, kinds):
    """One caller, each kind in turn, so that what drifts drifts for all."""
    caller, times, statuses = Caller(mesh.edge), {name: [] for name in kinds}, {name: set() for name in kinds}
    served = []
    for number in range(TIMES + 1):
        for name, token in kinds.items():
            status, _, took = caller.ask("GET", "/api/v1/auth/me", headers={"authorization": token(number)})
            # The first ones find nothing at hand: no keys, no connections.
            if number:
                times[name].append(took)
                statuses[name].add(status)
        status, _, took = caller.ask("GET", "/api/v1/auth/me", headers={"authorization": f"Bearer {good}"})
        served.append(took)
        if status != 200:
            print(f"  the good token: {status}")
    print(f"\n| bad token | answered | p50 ms | most ms |\n|---|--:|--:|--:|")
    for name, found in times.items():
        print(f"| {name} | {', '.join(map(str, sorted(statuses[name])))} | {middle(found):.3f} | {max(found):.3f} |")
    print(f"| (a good one) | 200 | {middle(served[1:]):.3f} | {max(served[1:]):.3f} |\n")
    everything = sorted(took for found in times.values() for took in found)
    print(f"all {len(kinds)} kinds: median {middle(everything):.3f} ms, 99th percentile {everything[len(everything) * 99 // 100]:.3f} ms")
    goal(f"slowest median of {len(kinds)} kinds of bad tokens", max(middle(found) for found in times.values()), 5, "ms")
    goal("slowest refusal", everything[-1], 5, "ms")
    wrong = {name: statuses[name] for name in kinds if not statuses[name] <= {400, 401, 431}}
    print(f"answers that are no refusal: {wrong or 'none'}")


def unknown_keys(mesh, issuer, kinds):
    """As fast as one caller can: every token has a key id of its own."""
    caller = Caller(mesh.edge)
    for name, fetches in (("unknown kid", lambda: fetched(mesh)), ("of the product's issuer, unknown kid", lambda: issuer.asked)):
        before, count, end = fetches(), 0, time.monotonic() + FLOOD_S
        while time.monotonic() < end:
            count += 1
            caller.ask("GET", "/api/v1/auth/me", headers={"authorization": kinds[name](1_000_000 + count)})
        most = FLOOD_S // 10 + 1
        goal(f"fetches of keys for {count:,} tokens in {FLOOD_S} s ({name})", fetches() - before, most, "fetches")


def fetched(mesh):
    """How often the edge has asked identity for its keys."""
    text = urllib.request.urlopen(mesh.edge + "/metrics", timeout=10).read().decode()
    return sum(float(count) for count in re.findall(r'(?m)^weft_rpc_client_requests_total\{[^}]*GetJwks[^}]*\} (\S+)$', text))


def logins(mesh, seconds, rounds):
    """GetMe by four callers, alone and beside logins of all accounts, which have the right password."""
    edge = mesh.edge
    limited = mesh.twin_of_the_edge("limited edge", {"WEFT_EDGE_LOGINS_PER_MINUTE": "30", "WEFT_EDGE_ANONYMOUS_PER_MINUTE": "600"})
    headers = [f"{name}: {value}" for name, value in PRODUCT.items()]
    body = ("--body", json.dumps(account("#")), "--numbers", ACCOUNTS)
    floods = {
        "nobody": None,
        "64 callers": lambda: drive(f"{edge}/api/v1/auth/login", *body, seconds=seconds + 1, callers=64, headers=headers),
        "1,000/s offered": lambda: drive(f"{edge}/api/v1/auth/login", *body, "--per-second", 1000, seconds=seconds + 1, callers=512, headers=headers),
        "1,000/s, an edge with default limits": lambda: drive(
            f"{limited}/api/v1/auth/login", *body, "--per-second", 1000, seconds=seconds + 1, callers=512, headers=headers),
    }
    rows = {}
    for _ in range(rounds):
        for name, flood in floods.items():
            # Anew each time: a token lives for a quarter of an hour.
            bearer = f"authorization: Bearer {post(edge + '/api/v1/auth/login', account(0), PRODUCT)['access_token']}"
            flooding = flood and flood()
            time.sleep(0.5)
            me = told(drive(edge + "/api/v1/auth/me", "--method", "GET", seconds=seconds, callers=4, headers=[*headers, bearer]))
            rows.setdefault(name, []).append((me, flooding and told(flooding)))
            # What still waits for a hash must not be the next one's.
            time.sleep(2)
    print("\n| logins by | GetMe p50 ms | p99 ms | most ms | GetMe/s | wrong GetMe | logins/s offered | 200 | refused | 200 p50 ms | refused p50 ms |")
    print("|---|" + "--:|" * 10)
    for name, found in rows.items():
        me = [figures(me) for me, _ in found]
        cells = [middle([row[key] for row in me]) for key in ("p50", "p99", "most", "per_second")]
        line = " | ".join(f"{cell:,.2f}" for cell in cells) + f" | {sum(row['wrong'] for row in me)} | "
        if name != "nobody":
            of = [figures(logins) for _, logins in found]
            offered = middle([(row["good"] + row["wrong"]) / (seconds + 1) for row in of])
            line += f"{offered:,.0f} | {sum(row['good'] for row in of)} | {sum(row['wrong'] for row in of)} | "
            line += " | ".join("" if (value := middle([row[key] for row in of])) is None else f"{value:.2f}" for key in ("p50", "refused_p50"))
        else:
            line += " |" * 4
        print(f"| {name} | {line} |")
    for name, found in rows.items():
        shed = {}
        for _, logins in found:
            for answer, times in (logins["answers"] if logins else {}).items():
                shed[answer] = shed.get(answer, 0) + times["count"]
        for answer, count in shed.items():
            print(f"{name}: {count:,} × {answer}")


def figures(seen):
    good = seen["answers"].get("ok", {"count": 0, "p50_us": None, "p99_us": None, "max_us": None})
    wrong = [times for answer, times in seen["answers"].items() if answer != "ok"]
    ms = lambda us: None if us is None else us / 1000
    return {"p50": ms(good["p50_us"]), "p99": ms(good["p99_us"]), "most": ms(good["max_us"]), "good": good["count"],
            "per_second": good["count"] / seen["seconds"], "wrong": sum(times["count"] for times in wrong),
            "refused_p50": ms(max(wrong, key=lambda times: times["count"])["p50_us"]) if wrong else None}


def enumeration(mesh):
    """Each address is tried once, as somebody would who looks for accounts; which of a pair comes first alternates."""
    caller = Caller(mesh.edge)
    print()
    for what, path, more in (("login", "/api/v1/auth/login", {"password": "a wrong password"}), ("password/forgot", "/api/v1/auth/password/forgot", {})):
        times, answers = {"known": [], "other": []}, {"known": set(), "other": set()}
        for number in range(ACCOUNTS):
            for kind in ("known", "other") if number % 2 else ("other", "known"):
                status, answer, took = caller.ask("POST", path, {"email": f"{kind}{number}@example.com", **more})
                times[kind].append(took)
                answers[kind].add((status, re.sub(r'"request_id":"[^"]*"', "", answer.decode())))
        known, unknown = middle(times["known"]), middle(times["other"])
        print(f"{what}: an address with an account {known:.3f} ms, without {unknown:.3f} ms (medians of {ACCOUNTS}), ratio {unknown / known:.4f}, "
              f"answers {'the same' if answers['known'] == answers['other'] and len(answers['known']) == 1 else answers}")
        goal(f"{what}: they differ", abs(unknown / known - 1) * 100, 5, "%")
