#!/usr/bin/env python3
"""`make bench-scaling`: 1, 2 and 3 brokers of one cluster under as much load as they take, over MinIO, with the journal in
PostgreSQL and in the bucket. Prints a table: MB/s, appends of the journal per second and per GiB, requests per GiB, CPU.

    scaling.py [--seconds 10] [--brokers 1,2,3] [--journals postgres,bucket]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from process import cpu_seconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import Strandline  # noqa: E402
from harness.minio import Minio  # noqa: E402
from harness.postgres import Postgres  # noqa: E402
from harness.processes import ROOT, wait_until  # noqa: E402

LOAD = ROOT / "target/release/strandline-load"
APPENDS = "strandline_journal_append_seconds_count"
GIB = 1 << 30


def measure(count, kind, seconds, directory):
    """One arm: the figures of its row."""
    database, bucket = Postgres(directory), Minio(directory / "minio")
    brokers = []
    try:
        bucket.start()
        journal = {"kind": "bucket"}
        if kind == "postgres":
            journal = database.start().journal()
        for number in range(1, count + 1):
            own = {"broker_id": number, "journal": journal}
            made = Strandline(directory / f"broker-{number}", own=own, bucket=bucket.config())
            made.environment = database.environment() if kind == "postgres" else {}
            brokers.append(made.start())
        for broker in brokers:
            wait_until(lambda: broker.seen() == count, 30, "all brokers to know each other")
        servers = ",".join(broker.bootstrap for broker in brokers)
        load(servers, "--create", "--seconds", "3", "--producers", str(4 * count))
        before, cpu, begun = [broker.metrics() for broker in brokers], cpu_s(brokers), time.monotonic()
        told = load(servers, "--seconds", str(seconds), "--producers", str(4 * count))
        took, cpu = time.monotonic() - begun, cpu_s(brokers) - cpu
        after = [broker.metrics() for broker in brokers]
        grown = lambda part: sum(  # noqa: E731
            value - old.get(name, 0) for new, old in zip(after, before) for name, value in new.items() if part(name)
        )
        gib = told["bytes"] / GIB
        return {
            "journal": kind,
            "brokers": count,
            "MB/s": told["bytes"] / told["seconds"] / 1e6,
            "appends/s": grown(lambda name: name.startswith(APPENDS)) / took,
            "appends/GiB": grown(lambda name: name.startswith(APPENDS)) / gib,
            "bucket requests/GiB": grown(lambda name: name.startswith("strandline_bucket_requests_total")) / gib,
            "CPU-s/GiB": cpu / gib,
        }
    finally:
        for broker in brokers:
            broker.kill9()
        bucket.stop(), database.stop()


def cpu_s(brokers) -> float:
    return sum(cpu_seconds(broker.child.pid) for broker in brokers)


def load(servers, *options) -> dict:
    argv = [LOAD, "produce", "--bootstrap", servers, "--topic", "scaling", *options]
    return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--brokers", default="1,2,3")
    parser.add_argument("--journals", default="postgres,bucket")
    arguments = parser.parse_args()
    head = None
    for kind in arguments.journals.split(","):
        for count in map(int, arguments.brokers.split(",")):
            with tempfile.TemporaryDirectory(prefix="strandline-scaling-") as directory:
                row = measure(count, kind, arguments.seconds, Path(directory))
            if head is None:
                head = list(row)
                print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
            shown = (v if isinstance(v, (str, int)) else f"{v:.3g}" if v < 100 else f"{v:.0f}" for v in row.values())
            print("| " + " | ".join(map(str, shown)) + " |", flush=True)


if __name__ == "__main__":
    main()
