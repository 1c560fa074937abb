"""What a debit costs; the measuring is `services/billing/examples/bench.rs`."""

import json
import statistics
import subprocess
import sys

from benches.common import ROOT, TARGET, build


def billing(seconds, rounds, ledger_rows):
    build()
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "weft-billing", "--example", "bench"], cwd=ROOT, check=True)
    command = [TARGET / "examples/bench", "--weft", TARGET / "weft", "--seconds", str(seconds), "--rounds", str(rounds), "--rows", str(ledger_rows)]
    found = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as measuring:
        for line in measuring.stdout:
            row = json.loads(line)
            found.setdefault((row["callers"], row["database"], row["way"]), []).append(row)
            print(f"round {row['round']}: {row['callers']:>3} callers, {row['database']}, {row['way']}: {row['per_second']:,.0f}/s", flush=True)
    if measuring.returncode:
        sys.exit("the measuring broke off")
    middle = {key: {name: statistics.median(row[name] for row in rows) for name in ("per_second", "p50_us", "p99_us")} for key, rows in found.items()}
    print("\n| callers | database | way | debits/s | of pgbench -N | p50 us | p99 us |\n|--:|---|---|--:|--:|--:|--:|")
    for (callers, database, way), row in middle.items():
        share = row["per_second"] / middle[(callers, "postgresql", "pgbench -N")]["per_second"]
        print(f"| {callers} | {database} | {way} | {row['per_second']:,.0f} | {share:.2f} | {row['p50_us']:,.0f} | {row['p99_us']:,.0f} |")
