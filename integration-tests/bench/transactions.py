#!/usr/bin/env python3
"""`make bench-transactions`: what transactions cost. Franz-go's producers write with and without them, to Strandline and to Apache
Kafka in turn; a lone producer and a hundred show the appends of the journal; the latency model of S3 shows how long a commit takes.

    transactions.py [--seconds 8] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import Kafka, Strandline  # noqa: E402
from harness.processes import CACHE  # noqa: E402

APPEND = "strandline_journal_append_seconds"
PARTITIONS = 16
FULL_MS = 100
RECORD_BYTES = 1024


def load(broker, topic, ids, **options) -> dict:
    config = {
        "bootstrap": broker.bootstrap, "topic": topic, "partitions": PARTITIONS, "ids": ids, "producers": 4, "seconds": 8,
        "transaction_ms": FULL_MS, "records": 1 << 30, "record_bytes": RECORD_BYTES, **options,
    }  # fmt: skip
    argv = [CACHE / "bin/franz-driver", "transaction-load", json.dumps(config)]
    said = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    said["MB/s"] = said["records"] * config["record_bytes"] / said["seconds"] / 1e6
    return said


def plain(broker, topic, seconds) -> float:
    """The same producers without transactions: they write without a pause."""
    return load(broker, topic, "", seconds=seconds, transaction_ms=int(1000 * seconds))["MB/s"]


def throughput(directory, seconds, rounds):
    """Transactions of 100 ms: against the same load without, and against Kafka's."""
    arms = {"Strandline": Strandline(directory / "strandline"), "Kafka": Kafka(directory / "kafka")}
    for broker in arms.values():
        broker.start()
        with broker.connect() as connection:
            connection.make_topic("load", PARTITIONS)
        plain(broker, "load", seconds)
    found = {(name, kind): [] for name in arms for kind in ("plain", "transactions")}
    for number in range(rounds):
        for name, broker in arms.items():
            found[name, "plain"].append(plain(broker, "load", seconds))
            found[name, "transactions"].append(load(broker, "load", f"round-{number}", seconds=seconds)["MB/s"])
    for (name, kind), rates in found.items():
        print(f"{name + ', ' + kind:28} " + " ".join(f"{rate:6.1f}" for rate in rates) + " MB/s")
    ratio = lambda above, below: statistics.median(a / b for a, b in zip(found[above], found[below]))  # noqa: E731
    ours = ("Strandline", "transactions")
    print(f"transactions over plain      {ratio(ours, ('Strandline', 'plain')):.2f}  (bar 0.9)")
    print(f"   … of Kafka                {ratio(('Kafka', 'transactions'), ('Kafka', 'plain')):.2f}")
    print(f"transactions over Kafka's    {ratio(ours, ('Kafka', 'transactions')):.2f}  (bar 1.0)")
    for broker in arms.values():
        broker.kill9()


def appends(directory, seconds):
    """Appends of the journal per transaction of ten records."""
    broker = Strandline(directory / "appends").start()
    with broker.connect() as connection:
        connection.make_topic("appends", PARTITIONS)
    for producers, bar in ((1, 3), (100, 0.3)):
        options = {"producers": producers, "records": 10, "transaction_ms": 0}
        load(broker, "appends", f"warm-{producers}", seconds=1, **options)
        before = broker.metrics()[f"{APPEND}_count"]
        said = load(broker, "appends", f"of-{producers}", seconds=seconds, **options)
        grown = broker.metrics()[f"{APPEND}_count"] - before
        per_s = said["transactions"] / said["seconds"]
        print(
            f"{producers:3} producers: {grown / said['transactions']:.2f} appends a transaction (bar {bar}), {per_s:.0f} a second, "
            f"flush and commit p50 {said['commit_p50_ms']:.1f} p99 {said['commit_p99_ms']:.1f} ms"
        )
    broker.kill9()


def of_a_remote_bucket(directory, seconds):
    """How long a commit takes where a PUT takes as long as S3's: at most a flush, a late PUT and two appends."""
    broker = Strandline(directory / "remote", bucket={"url": f"{directory}/remote-bucket?model=s3"}).start()
    with broker.connect() as connection:
        connection.make_topic("remote", PARTITIONS)
    said = load(broker, "remote", "remote", seconds=3 * seconds, producers=8, records=10, transaction_ms=0)
    print(
        f"latency model of S3, flush each 250 ms, {said['transactions']} transactions of 10 records: flush and commit p50 "
        f"{said['commit_p50_ms']:.0f} p99 {said['commit_p99_ms']:.0f} ms"
    )
    for name in ("put", "append"):
        print(f"   {name}: {quantile(broker.metrics(), name)}")
    broker.kill9()


def quantile(metrics, kind, share=0.99) -> str:
    """From the histogram: the smallest bound below which this share lies."""
    prefix = {"append": f"{APPEND}_bucket", "put": "strandline_bucket_request_seconds_bucket"}[kind]
    buckets = {}
    for name, value in metrics.items():
        if name.startswith(prefix) and (kind == "append" or 'operation="create"' in name):
            bound = float(name.split('le="')[1].split('"')[0])
            buckets[bound] = buckets.get(bound, 0) + value
    total = max(buckets.values(), default=0)
    below = [bound for bound, count in sorted(buckets.items()) if total and count >= share * total]
    return f"p99 at most {1000 * below[0]:.0f} ms of {total:.0f}" if below else "no figures"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strandline-transactions-") as directory:
        directory = Path(directory)
        appends(directory, arguments.seconds)
        of_a_remote_bucket(directory, arguments.seconds)
        throughput(directory, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
