"""What the edge adds to one RPC."""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.common import ROOT, Mesh, build, cpu_s, free_port, post

RPC = "/weft.identity.v1.AuthService/GetMe"

ENVOY = """
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {listen}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: bench
                route_config:
                  virtual_hosts:
                    - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: identity}}}}]}}
                http_filters:
                  - name: envoy.filters.http.grpc_json_transcoder
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
                      proto_descriptor: {descriptors}
                      services: [weft.identity.v1.AuthService]
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
    - name: identity
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http2_protocol_options: {{}}}}
      load_assignment:
        cluster_name: identity
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]
"""


def measure(arguments, concurrency, seconds, pid, log):
    log.unlink(missing_ok=True)
    before = cpu_s(pid)
    command = ["h2load", "-t1", f"-c{concurrency}", "-m1", f"-D{seconds}", f"--log-file={log}", *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = cpu_s(pid) - before
    times = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    good = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    if not times or good < len(times) * 0.99:
        sys.exit(f"wrong answers:\n{out}")
    return {"rps": len(times) / seconds, "p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100],
            "cpu_us": cpu / len(times) * 1e6}


def edge(seconds, rounds):
    if not shutil.which("h2load"):
        sys.exit("h2load is missing: install nghttp2-client")
    build()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        mesh = Mesh(folder)
        try:
            rows = edge_rows(mesh, folder, seconds, rounds)
        finally:
            mesh.stop()
    print("\n| callers | way | req/s | p50 us | p99 us | CPU us a request | CPU of |\n|--:|---|--:|--:|--:|--:|---|")
    for (concurrency, way, of), found in rows.items():
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        print(f"| {concurrency} | {way} | {middle['rps']:,.0f} | {middle['p50_us']:,.0f} | {middle['p99_us']:,.0f} | {middle['cpu_us']:.0f} | {of} |")


def edge_rows(mesh, folder, seconds, rounds):
    who = {"email": "bench@example.com", "password": "correct horse battery"}
    token = post(mesh.edge + "/api/v1/auth/register", who)["access_token"]
    bearer = ["-H", f"authorization: Bearer {token}"]
    frame = folder / "frame"
    frame.write_bytes(bytes(5))
    message = [f"--data={frame}", *bearer]
    ways = [
        ("gRPC, direct", "identity", [f"http://127.0.0.1:{mesh.ports['identity']}{RPC}", *message,
                                      "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-weft-product: adiuva"]),
        ("JSON, the edge", "gateway", ["--h1", mesh.edge + "/api/v1/auth/me", *bearer]),
        ("grpc-web, the edge", "gateway", ["--h1", mesh.edge + RPC, *message, "-H", "content-type: application/grpc-web+proto"]),
    ]
    if shutil.which("envoy"):
        envoy = start_envoy(mesh, folder)
        ways.append(("JSON, Envoy, no checks", "envoy", ["--h1", envoy + "/api/v1/auth/me", *bearer, "-H", "x-weft-product: adiuva"]))
    rows = {}
    for round_no in range(rounds):
        for concurrency in (1, 16, 64):
            for way, of, arguments in ways:
                row = measure(arguments, concurrency, seconds, mesh.processes[of].pid, folder / "times")
                rows.setdefault((concurrency, way, of), []).append(row)
                print(f"round {round_no + 1}: {concurrency:>3} callers, {way}: {row['rps']:,.0f}/s", flush=True)
    return rows


def start_envoy(mesh, folder):
    """Without any check, in front of identity; gives its URL."""
    descriptors, port = folder / "descriptors.bin", free_port()
    buf = ROOT / "scripts/clients/node_modules/.bin/buf"
    subprocess.run([buf, "build", "-o", f"{descriptors}#format=binpb"], cwd=ROOT / "proto", check=True)
    config = folder / "envoy.yaml"
    config.write_text(ENVOY.format(listen=port, upstream=mesh.ports["identity"], descriptors=descriptors))
    mesh.processes["envoy"] = subprocess.Popen(
        [shutil.which("envoy"), "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])
    time.sleep(1.5)
    return f"http://127.0.0.1:{port}"
