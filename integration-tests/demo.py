#!/usr/bin/env python3
"""A real data set through a broker that is killed half-way: Debian's package index, keyed by package name.

One client that others wrote produces it (librdkafka), the broker is killed with -9 in the middle and started again, another
client reads it back (Java), and contents and order are compared by hash per partition. Then the objects that hold it are shown.

    demo.py [--broker strandline|kafka] [--records N] [--partitions 8]
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confluent_kafka import Producer  # noqa: E402

from harness import broker as brokers  # noqa: E402
from harness import wire  # noqa: E402
from harness.clients import connect  # noqa: E402

ENOUGH = 10_000


def say(text):
    print(text, flush=True)


def packages() -> list[tuple[bytes, bytes]]:
    """(name, the whole entry) of every package that this machine's package index knows."""
    for attempt in range(2):
        text = (
            subprocess.run(["apt-cache", "dumpavail"], capture_output=True).stdout if shutil.which("apt-cache") else b""
        )
        found = []
        for entry in text.split(b"\n\n"):
            head, _, _ = entry.partition(b"\n")
            if head.startswith(b"Package: "):
                found.append((head.removeprefix(b"Package: "), entry))
        if len(found) >= ENOUGH:
            return found
        if attempt == 0:
            say("The package index is not on this machine yet: apt-get update")
            subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
    raise SystemExit(f"only {len(found)} packages in the index, wanted {ENOUGH}")


class Sums:
    """A running hash over keys and values, per partition."""

    def __init__(self, partitions):
        self.sums = [hashlib.sha256() for _ in range(partitions)]
        self.counts = [0] * partitions

    def add(self, partition, key, value):
        for part in (key, value):
            self.sums[partition].update(len(part).to_bytes(4, "big") + part)
        self.counts[partition] += 1

    def shown(self):
        return [(count, s.hexdigest()[:16]) for count, s in zip(self.counts, self.sums)]


def produce(broker, topic, records, partitions):
    """Sends all, kills the broker at half; the sums of what was acknowledged, in the order of its offsets."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "compression.type": "zstd", "linger.ms": 20,
            "message.timeout.ms": 0, "reconnect.backoff.max.ms": 200, "log_level": 0,
        }
    )  # fmt: skip
    placed = {}

    def delivered(index):
        def done(error, message):
            if error:
                raise SystemExit(f"not delivered: {error}")
            where = (message.partition(), message.offset())
            assert where not in placed, f"two records at {where}"
            placed[where] = index

        return done

    killed = None
    for index, (key, value) in enumerate(records):
        while len(producer) > 2000:
            producer.poll(0.05)
        producer.produce(topic, value, key, on_delivery=delivered(index))
        producer.poll(0)
        if not killed and len(placed) >= len(records) // 2:
            broker.kill9()
            killed = f"kill -9 after {len(placed)} acknowledgements, {len(producer)} records on their way"
            took = broker.restart()
            say(f"{killed}; answering again after {took:.2f} s")
    deadline = time.monotonic() + 60
    while len(producer) and time.monotonic() < deadline:
        producer.poll(0.1)
    assert killed, "the broker was never killed"
    assert len(placed) == len(records), f"{len(placed)} of {len(records)} acknowledged"
    sums = Sums(partitions)
    for (partition, offset), index in sorted(placed.items()):
        assert offset == sums.counts[partition], (
            f"offset {offset} of partition {partition} follows {sums.counts[partition] - 1}"
        )
        sums.add(partition, *records[index])
    return sums


def read_back(broker, topic, counts, directory):
    reader = connect("java", broker.bootstrap, directory)
    sums = Sums(len(counts))
    try:
        for partition, count in enumerate(counts):
            at = 0
            while at < count:
                seen = reader.fetch(topic, partition, at, min(2000, count - at))
                assert seen, f"nothing at offset {at} of partition {partition}"
                for record in seen:
                    assert record.offset == at
                    sums.add(partition, record.key, record.value)
                    at += 1
    finally:
        reader.close()
    return sums


def show_objects(directory: Path):
    files = [f for f in directory.rglob("*") if f.is_file()]
    kinds = Counter()
    for file in files:
        kinds[str(file.relative_to(directory)).split("/")[0]] += file.stat().st_size
    say(f"{len(files)} objects, {sum(kinds.values()):,} bytes under {directory}:")
    for kind, size in kinds.most_common():
        say(f"  {kind}: {size:,} bytes")
    for file in sorted(files, key=lambda f: -f.stat().st_size)[:5]:
        say(f"  {file.relative_to(directory)}  {file.stat().st_size:,} bytes")


def run(kind="strandline", limit=None, partitions=8, directory=None):
    home = Path(directory or tempfile.mkdtemp(prefix="strandline-demo-"))
    records = packages()[:limit]
    say(f"{len(records)} packages, {sum(len(v) for _, v in records):,} bytes, from Debian's index")
    why = brokers.available(kind)
    if why:
        raise SystemExit(why)
    broker = (brokers.Kafka if kind == "kafka" else brokers.Strandline)(home / "broker").start()
    try:
        with wire.Connection(broker.port) as connection:
            connection.make_topic("packages", partitions)
        started = time.monotonic()
        written = produce(broker, "packages", records, partitions)
        say(f"produced by librdkafka in {time.monotonic() - started:.1f} s, restart included")
        started = time.monotonic()
        read = read_back(broker, "packages", written.counts, home / "reader")
        say(f"read back by the Java client in {time.monotonic() - started:.1f} s")
        for partition, (sent, seen) in enumerate(zip(written.shown(), read.shown())):
            say(f"  partition {partition}: {sent[0]} records, sha256 {sent[1]} sent, {seen[1]} read")
        assert written.shown() == read.shown(), "what was read is not what was sent"
        say("equal: contents, and order of keys in each partition")
        if kind == "strandline":
            show_objects(broker.data / "bucket")
    finally:
        broker.kill9()
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="strandline", choices=["strandline", "kafka"])
    parser.add_argument("--records", type=int)
    parser.add_argument("--partitions", type=int, default=8)
    chosen = parser.parse_args()
    run(chosen.broker, chosen.records, chosen.partitions)
