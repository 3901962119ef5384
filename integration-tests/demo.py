#!/usr/bin/env python3
"""A real data set through a broker that is killed twice: Debian's package index, keyed by package name.

One client that others wrote produces it (librdkafka), the broker is killed with -9 in the middle and started again. A group of
three members reads it (Java, librdkafka): one member is killed with -9, then the broker. Each record is processed, with the
contents that were sent, and committed offsets never go back. Then the objects that hold it are shown.

    demo.py [--broker strandline|kafka] [--records N] [--partitions 8]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

sys.path.insert(0, str(Path(__file__).resolve().parent))

from confluent_kafka import Producer  # noqa: E402

from harness import broker as brokers  # noqa: E402
from harness import wire  # noqa: E402
from harness.group import SETTINGS, Group, committed  # noqa: E402
from harness.processes import wait_until  # noqa: E402

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


def produce(broker, topic, records, partitions):
    """Sends all, kills the broker at half; the sum of what was acknowledged at each partition and offset."""
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
    ends = Counter()
    for partition, offset in sorted(placed):
        assert offset == ends[partition], f"offset {offset} of partition {partition} follows {ends[partition] - 1}"
        ends[partition] += 1
    return {place: crc32(records[index][1], crc32(records[index][0])) for place, index in placed.items()}


class Watch:
    """Asks for the committed offsets again and again: none may ever go back or lie beyond what was processed."""

    def __init__(self, group, partitions):
        self.group, self.partitions = group, partitions
        self.seen, self.looks, self.wrong = {}, 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.over.wait(0.05):
            try:
                with wire.Connection(self.group.broker.port, timeout_s=2) as connection:
                    now = committed(connection, self.group.name, self.group.topic, self.partitions)
            except (OSError, AssertionError, wire.Closed):
                continue  # the broker is being killed or started
            self.looks += 1
            back = {p: (self.seen.get(p, -1), at) for p, at in now.items() if at < self.seen.get(p, -1)}
            if back:
                self.wrong.append(back)
            self.seen = now

    def stop(self):
        self.over.set()
        self.thread.join(10)
        assert not self.wrong, f"committed offsets went back: {self.wrong}"


def read(broker, topic, sent, partitions, directory):
    """Three members read all of it; one is killed at a third, the broker at two thirds."""
    group = Group(broker, topic, directory, session_ms=3000, name="readers")
    try:
        # A Java process takes its time to start: on a busy machine the others would have read everything by then.
        slow = group.join("java")
        wait_until(lambda: slow.owned, 60, "the first member's partitions")
        group.join("librdkafka")
        group.join("librdkafka")
        watch = Watch(group, partitions)
        processed = lambda: len(set(group.read))  # noqa: E731
        wait_until(lambda: processed() > len(sent) // 3, 60, "a third")
        victim = group.members[1]
        victim.kill9()
        say(f"kill -9 of {victim.config['name']} after {processed()} records, {len(victim.records)} of them its own")
        wait_until(lambda: processed() > len(sent) * 2 // 3, 60, "two thirds")
        at = processed()
        broker.kill9()
        took = broker.restart()
        say(f"kill -9 of the broker after {at} records; answering again after {took:.2f} s")
        group.wait_read(len(sent), 90)
        ends = Counter(partition for partition, _ in sent)
        group.wait_committed({p: ends[p] for p in range(partitions)}, 20)
        watch.stop()
        for member in group.present:
            member.close()
    finally:
        group.close()
    for member in group.members:
        say(f"  {member.config['name']}: {len(member.records)} records")
        for partition, offset, seen in member.sums:
            assert seen == sent[partition, offset], f"{member} read something else at {partition}, {offset}"
    again = len(group.read) - len(sent)
    # What a member has shown and not yet committed when it dies, the next one shows again: no more than it takes at once.
    assert again <= 100 * len(group.members), f"{again} read twice"
    say(f"{len(sent)} records processed, none skipped, contents as sent; {again} twice: shown, not yet committed at a kill")
    say(f"committed offsets never went back in {watch.looks} looks")


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
    broker = (brokers.Kafka if kind == "kafka" else brokers.Strandline)(home / "broker", settings=SETTINGS).start()
    try:
        with wire.Connection(broker.port) as connection:
            connection.make_topic("packages", partitions)
        started = time.monotonic()
        sent = produce(broker, "packages", records, partitions)
        say(f"produced by librdkafka in {time.monotonic() - started:.1f} s, restart included")
        started = time.monotonic()
        read(broker, "packages", sent, partitions, home / "readers")
        say(f"read by the group in {time.monotonic() - started:.1f} s, both kills included")
        if kind == "strandline":
            show_objects(broker.data / "bucket")
    finally:
        broker.kill9()
        if directory is None:
            shutil.rmtree(home, ignore_errors=True)
    return len(sent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="strandline", choices=["strandline", "kafka"])
    parser.add_argument("--records", type=int)
    parser.add_argument("--partitions", type=int, default=8)
    chosen = parser.parse_args()
    run(chosen.broker, chosen.records, chosen.partitions)
