"""Compaction: thousands of small flushes become few objects, and no reader notices, whatever dies meanwhile."""

import random
import re
import subprocess
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from harness import wire
from harness.broker import BINARY
from harness.processes import wait_until
from harness.transactions import Java
from harness.wire import decode_batches, encode_batch
from test_kill import PARTITIONS, Load, check_final, read_partitions, run_lives

pytestmark = pytest.mark.strandline

# Small jobs all the time: what takes an hour by default happens within seconds.
COMPACTION = {
    "objects_per_job": 16,
    "age_ms_max": 1500,
    "rest_ms": 200,
    "objects_per_merge": 4,
    "bytes_per_job": 256 << 10,
    "takeover_ms": 0,
}
OWN = {"compaction": COMPACTION, "produce": {"flush_interval_ms": 0}}
FLUSHES = {"local": 2500, "minio": 1200}
TRANSACTIONS = 40


def start(launch, store, request, topic):
    bucket = request.getfixturevalue("minio").config(f"compaction-{topic}") if store == "minio" else None
    return launch(own=OWN, bucket=bucket)


def backlog(broker) -> float:
    return broker.metrics()["strandline_compaction_backlog_objects"]


def wait_until_compacted(broker, patience_s=60):
    quiet = 0

    def done():
        nonlocal quiet
        quiet = quiet + 1 if backlog(broker) == 0 else 0
        return quiet >= 3  # the gauge follows State within a second

    wait_until(done, patience_s, "an empty backlog", every_s=0.5)


def produce(broker, topic, flushes):
    """Flushes of a record or three each; what must be read of each partition: offset → (key, value, headers)."""
    chance, expected = random.Random(7), {p: {} for p in range(4)}
    with wire.Connection(broker.port) as connection:
        for n in range(flushes):
            partition = chance.randrange(4)
            size = 30_000 if n % 100 == 50 else chance.randrange(0, 300)
            records = [
                (f"k{n}".encode(), f"{n}.{i}:".encode() + b"x" * size, (("n", str(n).encode()), ("none", None)))
                for i in range(chance.choice([1, 1, 3]))
            ]
            answer = connection.produce(topic, encode_batch(records), partition=partition)
            assert answer["error"] == 0
            expected[partition].update({answer["base"] + i: r for i, r in enumerate(records)})
    return expected


def transact(broker, topic, expected, count):
    """Transactions of two partitions, every third aborted; adds what was committed, and gives the offsets of what was not."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"t-{topic}", "linger.ms": 0})
    producer.init_transactions()
    aborted = {p: set() for p in range(4)}
    for n in range(count):
        sent = []
        producer.begin_transaction()
        for i in range(4):
            partition, value = i % 2, f"t{n}.{i}".encode()
            producer.produce(
                topic, value, b"t", partition=partition, headers=[("t", b"1")],
                on_delivery=lambda e, m, v=value: sent.append((m.partition(), m.offset(), v, e)),
            )  # fmt: skip
            producer.flush()
        if n % 3 == 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
        for partition, offset, value, error in sent:
            assert error is None, error
            if n % 3 == 2:
                aborted[partition].add(offset)
            expected[partition][offset] = (b"t", value, (("t", b"1"),))
    return aborted


def consume(broker, topic, partition, isolation):
    """offset → (key, value, headers) by librdkafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap, "group.id": "g", "isolation.level": isolation,
            "enable.auto.commit": False, "enable.partition.eof": True,
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0)])
    found, until = {}, time.monotonic() + 60
    while time.monotonic() < until:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            consumer.close()
            return found
        headers = tuple((name, value) for name, value in message.headers() or [])
        assert message.offset() not in found, "twice"
        found[message.offset()] = (message.key(), message.value(), headers)
    raise AssertionError("no end of the partition")


@pytest.mark.timeout(300)
def test_readers_find_the_same_before_and_after(launch, request, store, topic, tmp_path):
    broker = start(launch, store, request, topic)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 4)
    java = Java(broker.bootstrap, tmp_path)
    expected = produce(broker, topic, FLUSHES[store] // 2)
    aborted = transact(broker, topic, expected, TRANSACTIONS)
    more = produce(broker, topic, FLUSHES[store] // 2)
    for partition, records in more.items():
        expected[partition].update(records)
    wait_until_compacted(broker)
    metrics = broker.metrics()
    assert metrics['strandline_compaction_jobs_total{level="1",result="done"}'] > 10
    assert metrics['strandline_compaction_jobs_total{level="2",result="done"}'] > 0
    assert not any('result="failed"' in name and value for name, value in metrics.items()), metrics
    assert metrics["strandline_state_runs"] < FLUSHES[store] / 10
    for partition in range(4):
        committed = {o: r for o, r in expected[partition].items() if o not in aborted.get(partition, ())}
        assert consume(broker, topic, partition, "read_committed") == committed
        assert consume(broker, topic, partition, "read_uncommitted") == expected[partition]
        texts = [(offset, value.decode()) for offset, (_, value, _) in sorted(committed.items())]
        assert java.read(topic, partition) == texts
        check_by_offset(broker, topic, partition, expected[partition])
    java.close()
    # The same from the bucket and the journal alone.
    broker.kill9()
    broker.restart()
    for partition in range(4):
        assert consume(broker, topic, partition, "read_uncommitted") == expected[partition]


def check_by_offset(broker, topic, partition, expected):
    """Fetches that begin anywhere, in bites of any size."""
    chance = random.Random(partition)
    with wire.Connection(broker.port) as connection:
        for _ in range(60):
            offset = chance.choice(sorted(expected))
            bite = chance.choice([1, 500, 20_000, 1 << 20])
            batches = decode_batches(connection.fetch_one(topic, offset, partition=partition, partition_bytes=bite)["data"])
            assert batches[0].base_offset <= offset <= batches[0].last_offset
            assert {b.leader_epoch for b in batches} == {0}
            ends = [b.last_offset + 1 for b in batches]
            assert [b.base_offset for b in batches[1:]] == ends[:-1], "batches that follow each other"
            for batch in batches:
                if batch.attributes & 0x20:
                    continue
                for at, _, key, value, headers in batch.records():
                    assert expected[at] == (key, value, headers)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["minio", pytest.param("local", marks=pytest.mark.nightly)])
def test_kills_fall_into_compactions(launch, request, where, topic, tmp_path):
    bucket = request.getfixturevalue("minio").config(f"kill-{topic}") if where == "minio" else None
    own = {**OWN, "snapshot": {"entries_between": 50, "kept_min": 1, "kept_hours": 0}}
    lives = 8 if where == "local" else 4
    broker = run_lives(launch, topic, tmp_path, lives=lives, per_life=400, seed=random.randrange(1 << 30), own=own, bucket=bucket)
    before = read_partitions(broker, topic)
    wait_until_compacted(broker)
    assert read_partitions(broker, topic) == before


@pytest.mark.timeout(180)
def test_two_brokers_do_one_job(launch, minio, topic, tmp_path):
    """With no time to take over every job is everybody's: what the second one commits finds nothing to replace."""
    bucket = minio.config(f"two-{topic}")
    own = {**OWN, "journal": {"kind": "bucket"}}
    first, second = (launch(own={**own, "broker_id": n}, bucket=bucket) for n in (1, 2))
    with wire.Connection(first.port) as connection:
        connection.make_topic(topic, PARTITIONS)
    load = Load(first, topic, tmp_path, renewals=(0, 0))

    def jobs():
        return [sum(v for name, v in b.metrics().items() if "jobs_total" in name) for b in (first, second)]

    wait_until(lambda: load.check_alive() or min(jobs()) >= 5, 100, "jobs of both brokers", every_s=0.5)
    load.stop()
    wait_until_compacted(first)
    found = read_partitions(first, topic)
    print(f"jobs {jobs()}, {check_final(load, found)} records")
    assert read_partitions(second, topic) == found


@pytest.mark.timeout(120)
def test_segment_dump(launch, topic):
    broker = launch(own=OWN)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 4)
    expected = produce(broker, topic, 100)
    aborted = transact(broker, topic, expected, 6)
    wait_until_compacted(broker)
    bucket = broker.data / "bucket"
    keys = sorted(str(path.relative_to(bucket)) for path in bucket.glob("compacted/*/*"))
    assert keys
    seen, ends = {}, []
    for key in keys:
        text = dump(broker, key, "--records")
        partition = None
        for line in text.splitlines():
            if line.startswith("run "):
                partition = int(re.search(r"partition: (\d+)", line)[1])
            elif line.startswith("  baseOffset:"):
                assert line.endswith("isvalid: true"), line
            elif "endTxnMarker" in line:
                ends.append(line.rpartition(" ")[2])
            elif line.startswith("    offset:"):
                offset, key_text, value = re.search(r"offset: (\d+) timestamp: \S+ key: (\S+) value: (\S*) headers", line).groups()
                record = (key_text.encode(), value.encode())
                assert seen.setdefault((partition, int(offset)), record) == record
    wanted = {(p, o): (r[0], r[1]) for p, records in expected.items() for o, r in records.items()}
    assert seen == wanted
    assert aborted and {"ABORT", "COMMIT"} <= set(ends)
    plain = dump(broker, sorted(str(p.relative_to(bucket)) for p in bucket.glob("data/*/*"))[0])
    assert "kind: Data" in plain and "baseOffset: 0 " in plain and "    offset:" not in plain
    bad = subprocess.run([BINARY, "segment", "dump", "data/none", "--data", broker.data], capture_output=True, text=True)
    assert bad.returncode == 1 and "no key" in bad.stderr, bad


def dump(broker, key, *options):
    run = subprocess.run(
        [BINARY, "segment", "dump", key, *options, "--data", broker.data], capture_output=True, text=True, timeout=20
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
