"""kill -9 during idempotent load: no acknowledged record lost, none twice, order per producer and partition, offsets kept."""

import random
import sys
import time
from pathlib import Path

import pytest

from harness import wire
from harness.processes import ROOT, Child, wait_until

LOADER = ROOT / "integration-tests/harness/loader.py"
PARTITIONS = 6


class Load:
    """Producers in processes of their own, and what the broker has promised them."""

    def __init__(self, broker, topic, directory: Path, renewals, prefix="p"):
        self.topic, self.files, self.children = topic, {}, []
        for index, renew in enumerate(renewals):
            name = f"{prefix}{index}"
            self.files[name] = directory / f"{name}.acks"
            self.files[name].touch()
            argv = [sys.executable, LOADER, broker.bootstrap, topic, PARTITIONS, name, self.files[name], renew]
            self.children.append(Child(argv, log=directory / f"{name}.log"))

    def acknowledged(self) -> int:
        return sum(f.read_bytes().count(b"\n") for f in self.files.values())

    def check_alive(self):
        for child, path in zip(self.children, self.files.values()):
            assert child.alive(), f"a producer gave up: {path.read_text()[-500:]} {child.log_tail()}"

    def stop(self):
        for child in self.children:
            child.process.terminate()
        codes = [child.wait(60) for child in self.children]
        tails = [f.read_text()[-300:] for f in self.files.values()]
        assert codes == [0] * len(codes), tails

    def promises(self):
        """(partition, offset, value) of each acknowledged record."""
        for name, path in self.files.items():
            for line in path.read_text().splitlines():
                partition, n, offset = map(int, line.split())
                yield partition, offset, f"{name}:{partition}:{n}".encode()


def read_partitions(broker, topic) -> list[list[tuple[int, bytes]]]:
    with wire.Connection(broker.port) as connection:
        return [[(r[0], r[3]) for r in connection.read_all(topic, partition=p)] for p in range(PARTITIONS)]


def follow(broker, topic, seen, overlap=500):
    """Reads on behind what was seen, and its end once more: what a consumer has seen stays where it was."""
    with wire.Connection(broker.port) as connection:
        for partition, records in enumerate(seen):
            start = max(0, len(records) - overlap)
            found = [(r[0], r[3]) for r in connection.read_all(topic, partition=partition, offset=start)]
            known = len(records) - start
            assert found[:known] == records[start:], f"partition {partition} changed between {start} and {len(records)}"
            records.extend(found[known:])


def check_final(load, partitions):
    for partition, records in enumerate(partitions):
        assert [offset for offset, _ in records] == list(range(len(records))), f"offsets of partition {partition}"
        seen = {}
        for offset, value in records:
            name, at, n = value.decode().split(":")
            assert int(at) == partition
            # Without a gap: everything that was sent has been acknowledged in the end.
            assert int(n) == seen.get(name, -1) + 1, f"{value} at offset {offset} follows {seen.get(name)}"
            seen[name] = int(n)
    count = 0
    for partition, offset, value in load.promises():
        found = partitions[partition][offset] if offset < len(partitions[partition]) else None
        assert found == (offset, value), f"acknowledged {value} at {partition}/{offset}, found {found}"
        count += 1
    assert count == sum(map(len, partitions))
    return count


def run_lives(launch, topic, tmp_path, lives, per_life, seed, **options):
    chance = random.Random(seed)
    print(f"seed {seed}")
    broker = launch(**options)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, PARTITIONS)
    load = Load(broker, topic, tmp_path, renewals=(0, 0, 700))
    seen = [[] for _ in range(PARTITIONS)]
    slowest = 0.0
    for life in range(lives):
        print(f"life {life}: {load.acknowledged()} acknowledged", flush=True)
        goal = load.acknowledged() + per_life
        wait_until(
            lambda: load.check_alive() or load.acknowledged() >= goal, 60, f"{per_life} acknowledgements in life {life}"
        )
        time.sleep(chance.random() * 0.1)
        broker.kill9()
        slowest = max(slowest, broker.restart())
        follow(broker, topic, seen)
    load.stop()
    final = read_partitions(broker, topic)
    for partition, (old, new) in enumerate(zip(seen, final)):
        assert new[: len(old)] == old, f"partition {partition} changed below offset {len(old)}"
    count = check_final(load, final)
    print(f"{lives} lives, {count} records, slowest start {slowest:.2f} s")
    return broker


@pytest.mark.timeout(300)
def test_ten_lives(launch, topic, tmp_path):
    run_lives(launch, topic, tmp_path, lives=10, per_life=300, seed=random.randrange(1 << 30))


@pytest.mark.strandline
@pytest.mark.timeout(300)
def test_ten_lives_on_minio(launch, minio, topic, tmp_path):
    run_lives(
        launch,
        topic,
        tmp_path,
        lives=5,
        per_life=300,
        seed=random.randrange(1 << 30),
        bucket=minio.config(f"kill-{topic}"),
    )


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_fifty_lives(launch, topic, tmp_path):
    run_lives(launch, topic, tmp_path, lives=50, per_life=1000, seed=random.randrange(1 << 30))


@pytest.mark.strandline
@pytest.mark.timeout(300)
def test_lives_with_a_snapshot_every_few_entries(launch, topic, tmp_path):
    """Kills fall into snapshots and trims, which the defaults take too seldom for a test."""
    own = {"snapshot": {"entries_between": 20, "kept_min": 1, "kept_hours": 0}}
    run_lives(launch, topic, tmp_path, lives=10, per_life=300, seed=random.randrange(1 << 30), own=own)


@pytest.mark.timeout(120)
def test_sigterm_answers_what_it_took(launch, topic, tmp_path):
    broker = launch()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, PARTITIONS)
    load = Load(broker, topic, tmp_path, renewals=(0,))
    for _ in range(2):
        goal = load.acknowledged() + 200
        wait_until(lambda: load.check_alive() or load.acknowledged() >= goal, 30, "acknowledgements")
        code = broker.stop()
        assert code == (143 if broker.kind == "kafka" else 0), broker.log_tail()
        broker.restart()
    load.stop()
    check_final(load, read_partitions(broker, topic))
