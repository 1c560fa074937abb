"""What Weft adds to a call of a model."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benches.common import (TARGET, UNLIMITED_ADDRESS, Mesh, OneProcess, Postgres, Redis, build, cpu_s, drive, free_port, goal, middle, post, raised, stop,
                            told, tree_cpu_s, until_listening)

CALLERS = (1, 16, 100)
FORMS = {"one": OneProcess, "four": Mesh}
# Of adiuva's models, the one that everybody may ask for by name.
MODEL = "gpt-4o-mini"
WORDS, PROMPT_TOKENS = 32, 20
# Of everybody, a day, and of a token: more than any bench spends.
DAILY, RATE = 1_000_000_000_000_000, 100
HEADS = ("callers", "answer", "added p50 ms", "added p99 ms", "added p50 to first text ms", "Weft CPU ms a request", "direct p50 ms", "Weft p50 ms",
         "direct p99 ms", "Weft p99 ms", "direct req/s", "Weft req/s")


def metered(manifest):
    """Everybody pays, and may ask as often as billing can count."""
    credits = f"credits = {{ initial = 0, daily = {DAILY}, micro_credits_per_token = {RATE} }}"
    text = raised(manifest)
    text = re.sub(r"(?m)^(requests_per_minute .*)$", rf"\g<1>\n{credits}", text, count=1)
    # Longer than the bench.
    return re.sub(r"(?m)^access_ttl_s = .*$", "access_ttl_s = 86400", text)


class Bench:
    """A stub of a model, and a mesh in front of it."""

    def __init__(self, folder, wait_ms, accounts=1, form="four"):
        self.folder, self.running, self.port, self.answered, self.stub = folder, [], free_port(), 0, None
        try:
            self.postgres = postgres = Postgres(folder)
            self.running.append(postgres)
            environment = {**UNLIMITED_ADDRESS, "OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1", "OPENAI_API_KEY": "a key of nobody"}
            self.pids = {"PostgreSQL": postgres.process.pid}
            if form == "one":
                print("rates are counted in process, as where nobody shares them")
            elif shutil.which("redis-server"):
                redis = Redis()
                self.running.append(redis)
                self.pids["Redis"] = redis.process.pid
                environment["REDIS_URL"] = redis.url
            else:
                print("redis-server is missing: rates are counted in process")
            self.mesh = FORMS[form](folder, manifest=metered, database=postgres.database("weft"), environment=environment)
            self.running.append(self.mesh)
            self.pids.update({name: process.pid for name, process in self.mesh.processes.items()})
            self.tokens = [self.register(f"bench{number}@example.com") for number in range(accounts)]
            (folder / "tokens").write_text("\n".join(self.tokens))
            self.serve(wait_ms)
        except BaseException:
            self.stop()
            raise

    def register(self, email):
        return post(self.mesh.edge + "/api/v1/auth/register", {"email": email, "password": "correct horse battery"})["access_token"]

    def serve(self, wait_ms):
        """The same port each time: Weft is told it once."""
        if self.stub:
            stop(self.stub)
        self.wait_ms = wait_ms
        self.stub = subprocess.Popen([TARGET / "examples/load", "stub", "--port", str(self.port), "--wait-ms", str(wait_ms)])
        self.pids["stub"] = self.stub.pid
        until_listening(self.port, self.stub, "the stub")

    def ask(self, through_weft, streamed, callers, seconds):
        base, tokens = (self.mesh.edge, ["--tokens", self.folder / "tokens"]) if through_weft else (f"http://127.0.0.1:{self.port}", [])
        # A model that answers at once is asked again at once. Of one that takes its time as many calls run on average, begun
        # at random: callers who wait for an answer and ask again at once are put in step by every commit that ends several
        # of them, and wait for each other ever after.
        paced = self.wait_ms > 0
        pace = ["--per-second", callers * 1000 / self.wait_ms] if paced else []
        messages = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Say what a word is, in as many words as you may."}]
        body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": WORDS, **({"stream": True} if streamed else {})})
        before = self.cpu()
        seen = told(drive(base + "/v1/chat/completions", "--body", body, "--expect", "stream" if streamed else "completion", *tokens,
                          *pace, seconds=seconds, callers=2 * callers + 2 if paced else callers))
        after = self.cpu()
        good = seen["answers"].pop("ok", None)
        wrong = {answer: times["count"] for answer, times in seen["answers"].items()}
        if not good or sum(wrong.values()) > good["count"] / 1000:
            sys.exit(f"wrong answers {'of Weft' if through_weft else 'of the stub'}: {wrong}")
        if wrong:
            print(f"  wrong answers: {wrong}")
        self.answered += good["count"] if through_weft else 0
        return {"p50": good["p50_us"] / 1000, "p99": good["p99_us"] / 1000, "max": good["max_us"] / 1000,
                "first": seen["first"]["p50_us"] / 1000 if streamed else None, "per_second": good["count"] / seen["seconds"],
                "cpu": {name: (after[name] - before[name]) / good["count"] * 1000 for name in after}}

    def cpu(self):
        return {name: tree_cpu_s(pid) if name == "PostgreSQL" else cpu_s(pid) for name, pid in self.pids.items()}

    def weft_cpu(self, row):
        return sum(row["cpu"][name] for name in self.mesh.processes)

    def accounts(self):
        """Whether everything that was answered has been paid, which says that all of it was held before."""
        begun = time.monotonic()
        paid = held = 0
        for token in self.tokens:
            while (balance := self.balance(token))["held"] and time.monotonic() < begun + 10:
                time.sleep(0.1)
            paid, held = paid + DAILY - round(balance["total"] * 1e6), held + balance["held"]
        due = self.answered * (WORDS + PROMPT_TOKENS) * RATE
        print(f"\npaid {paid:,} micro-credits for {self.answered:,} answers, due {due:,}, still held {held:,}")
        self.mesh.tell_logs()

    def balance(self, token):
        request = urllib.request.Request(self.mesh.edge + "/api/v1/wallet/balance", headers={"authorization": f"Bearer {token}"})
        return json.loads(urllib.request.urlopen(request, timeout=10).read())

    def sanitizer_share(self, seconds):
        """Percent of Weft's CPU, by samples of what runs; what it allocates is not among them. None without perf."""
        if not shutil.which("perf"):
            return None
        data, pids = self.folder / "perf.data", ",".join(str(process.pid) for process in self.mesh.processes.values())
        with subprocess.Popen(["perf", "record", "-q", "-F", "997", "-p", pids, "-o", data, "--", "sleep", str(seconds)]) as recording:
            self.ask(True, True, 16, seconds + 1)
        if recording.returncode:
            return None
        command = ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--percent-limit", "0", "-F", "overhead,symbol"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return sum(float(share) for share in re.findall(r"(?m)^\s*([\d.]+)%.*weft_orchestrator::sanitizer::", out))

    def stop(self):
        if self.stub:
            stop(self.stub)
        for running in reversed(self.running):
            running.stop()


def chat(seconds, rounds, waits, accounts, forms):
    build("--bins", "--example", "load")
    for form in forms:
        print(f"\nWeft as {form} process{'' if form == 'one' else 'es'}, {FORMS[form].THREADS} worker thread(s) each")
        of_form(form, seconds, rounds, waits, accounts)


def of_form(form, seconds, rounds, waits, accounts):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), waits[0], accounts, form)
        try:
            commits = [f"{bench.postgres.commit_ms(clients):.2f} ms for {clients}" for clients in CALLERS]
            print(f"{accounts} accounts; a commit of PostgreSQL on this disk takes {', '.join(commits)} at once: a call waits for one, "
                  "and its end for another")
            for wait_ms in waits:
                bench.serve(wait_ms)
                report(bench, wait_ms, measure(bench, seconds, rounds))
            goal("the sanitizer's share of Weft's CPU", bench.sanitizer_share(seconds), 5, "%")
            bench.accounts()
        finally:
            bench.stop()


def measure(bench, seconds, rounds):
    """By callers and whether it streams: of each round what the stub did alone, and through Weft."""
    rows = {}
    for round_no in range(rounds):
        for streamed in (False, True):
            for callers in CALLERS:
                for through_weft in (False, True):
                    bench.ask(through_weft, streamed, callers, 1 if round_no == 0 else 0.3)
                direct, weft = (bench.ask(through_weft, streamed, callers, seconds) for through_weft in (False, True))
                rows.setdefault((callers, streamed), []).append((direct, weft))
                print(f"round {round_no + 1}: {callers:>3} callers, {'streamed' if streamed else 'whole'}: direct {direct['p50']:.2f} ms, "
                      f"Weft {weft['p50']:.2f} ms (p99 {weft['p99']:.2f}, most {weft['max']:.2f}), CPU {bench.weft_cpu(weft):.2f} ms", flush=True)
    return rows


def added(found, name):
    """The median of the rounds' own differences: what drifts, drifts for both."""
    return middle([weft[name] - direct[name] for direct, weft in found if direct[name] is not None])


def report(bench, wait_ms, rows):
    print(f"\nThe model begins to answer after {wait_ms} ms" + (": callers ask as fast as they can" if not wait_ms else ": so many calls run on average, begun at random") + ".\n")
    print("| " + " | ".join(HEADS) + " |\n|" + "--:|---|" + "--:|" * (len(HEADS) - 2))
    for (callers, streamed), found in rows.items():
        of = [middle([way[name] for way in ways]) for name in ("p50", "p99", "per_second") for ways in zip(*found)]
        first = added(found, "first")
        cpu = middle([bench.weft_cpu(weft) for _, weft in found])
        print(f"| {callers} | {'streamed' if streamed else 'whole'} | {added(found, 'p50'):.2f} | {added(found, 'p99'):.2f} | "
              f"{'' if first is None else f'{first:.2f}'} | {cpu:.3f} | " + " | ".join(f"{value:.2f}" for value in of[:4])
              + f" | {of[4]:,.0f} | {of[5]:,.0f} |")
    names = [*bench.mesh.processes, *(name for name in bench.pids if name not in bench.mesh.processes)]
    print("\n| callers | answer | " + " | ".join(f"{name} CPU ms" for name in names) + " | stub CPU ms, direct |\n|--:|---|" + "--:|" * (len(names) + 1))
    for (callers, streamed), found in rows.items():
        cells = [middle([weft["cpu"][name] for _, weft in found]) for name in names] + [middle([direct["cpu"]["stub"] for direct, _ in found])]
        print(f"| {callers} | {'streamed' if streamed else 'whole'} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    print()
    if not wait_ms:
        # Their median is their number through the rate, whatever a call takes.
        return
    for streamed in (False, True):
        how = "streamed" if streamed else "whole"
        goal(f"100 callers, {how}, added median", added(rows[(100, streamed)], "p50"), 4, "ms")
        goal(f"100 callers, {how}, added p99", added(rows[(100, streamed)], "p99"), 15, "ms")
    goal("16 callers, streamed, added median to the first text", added(rows[(16, True)], "first"), 3, "ms")
