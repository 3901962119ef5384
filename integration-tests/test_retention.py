"""Retention by time and size, DeleteRecords and deleted topics, and that the bucket then holds nothing of what went."""

import subprocess
import time

import confluent_kafka
import pytest

from harness.broker import BINARY
from harness.clients.console import tool
from harness.processes import wait_until
from harness.records import Record, sample
from harness.wire import encode_batch

pytestmark = [pytest.mark.strandline]

SETTINGS = {"log.retention.check.interval.ms": 200}
UPKEEP = {"garbage_grace_ms": 1000, "orphan_age_ms": 2000, "sweep_interval_ms": 1000}
OUT_OF_RANGE = 1
EARLIEST, LATEST = -2, -1
# Retention, a grace, and a look each in between.
PATIENCE_S = 20


class Bucket:
    """The objects with records of one broker."""

    def __init__(self, store, request, topic, tmp_path):
        self.minio = request.getfixturevalue("minio") if store == "minio" else None
        self.prefix = topic
        self.place = tmp_path / "bucket"
        self.config = self.minio.config(self.prefix) if self.minio else {"url": str(self.place)}

    def keys(self, below="data/") -> set[str]:
        if self.minio:
            return {key.removeprefix(f"{self.prefix}/") for key in self.minio.objects(f"{self.prefix}/{below}")}
        files = (path for path in (self.place / below).rglob("*") if path.is_file())
        return {str(path.relative_to(self.place)) for path in files}

    def put(self, key, content):
        if self.minio:
            assert self.minio.request("PUT", f"/{self.minio.bucket}/{self.prefix}/{key}", body=content)[0] == 200
            return
        path = self.place / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def bucket(store, request, topic, tmp_path) -> Bucket:
    return Bucket(store, request, topic, tmp_path)


def now_ms():
    return int(time.time() * 1000)


def earliest(connection, topic, partition=0) -> int:
    error, _, offset, _ = connection.list_offsets(topic, EARLIEST, partition=partition)
    assert error == 0
    return offset


def fill(connection, topic, batches, *, size=1000, at_ms=None, partition=0):
    """One object a batch."""
    for n in range(batches):
        batch = encode_batch([(b"k", bytes([n % 256]) * size)], first_ms=at_ms or now_ms())
        assert connection.produce(topic, batch, partition=partition)["error"] == 0


def test_records_go_by_their_time_and_their_objects_with_them(launch, bucket, client, topic):
    broker = launch(settings=SETTINGS, bucket=bucket.config, own={"upkeep": UPKEEP})
    librdkafka = client("confluent", broker)
    kept, short = f"{topic}-kept", f"{topic}-short"
    with broker.connect() as connection:
        connection.make_topic(kept, configs={"retention.ms": "-1"})
        connection.make_topic(short, 2, configs={"retention.ms": "3000"})
        fill(connection, kept, 3, at_ms=1)
        keeps = bucket.keys()
        assert len(keeps) == 3
        librdkafka.produce(short, sample(50, timestamps=False, partition=0) + sample(50, timestamps=False, partition=1))
        assert earliest(connection, short) == 0 and len(bucket.keys()) > 3
        wait_until(lambda: [earliest(connection, short, p) for p in (0, 1)] == [50, 50], PATIENCE_S, "retention")
        assert connection.fetch_one(short, 0)["error"] == OUT_OF_RANGE
        wait_until(lambda: bucket.keys() == keeps, PATIENCE_S, "the objects to go")
        # Offsets go on, and a consumer that was left behind begins anew.
        librdkafka.produce(short, [Record(key=b"k", value=b"after")])
        found = librdkafka.fetch(short, 0, 0, 1, config={"auto.offset.reset": "earliest"})
        assert [(r.offset, r.value) for r in found] == [(50, b"after")]
        with pytest.raises(Exception, match="(?i)out of range"):
            librdkafka.fetch(short, 0, 0, 1, timeout_s=5)
        assert len(connection.read_all(kept)) == 3
    metrics = broker.metrics()
    assert metrics['strandline_upkeep_deleted_objects_total{reason="dead"}'] >= 1
    assert metrics["strandline_upkeep_expired_bytes_total"] > 0
    assert broker.stop() == 0


def test_a_future_timestamp_holds_back_what_is_behind_it(launch, topic):
    broker = launch(settings=SETTINGS, own={"upkeep": UPKEEP})
    with broker.connect() as connection:
        connection.make_topic(topic, configs={"retention.ms": "2000"})
        fill(connection, topic, 1, at_ms=now_ms() - 100_000)
        fill(connection, topic, 1, at_ms=now_ms() + 600_000)
        fill(connection, topic, 1, at_ms=now_ms() - 100_000)
        wait_until(lambda: earliest(connection, topic) == 1, PATIENCE_S, "retention")
        time.sleep(1)
        assert earliest(connection, topic) == 1


def test_the_broker_s_default_counts_and_a_change_of_it_by_topic(launch, topic, client):
    broker = launch(settings={**SETTINGS, "log.retention.ms": 2000}, own={"upkeep": UPKEEP})
    java = client("java", broker)
    with broker.connect() as connection:
        connection.make_topic(topic)
        connection.make_topic(f"{topic}-compact", configs={"cleanup.policy": "compact"})
        fill(connection, topic, 2)
        fill(connection, f"{topic}-compact", 2)
        wait_until(lambda: earliest(connection, topic) == 2, PATIENCE_S, "retention")
        java.alter(topic, ("SET", "retention.ms", "-1"))
        fill(connection, topic, 2, at_ms=1)
        time.sleep(3)
        assert earliest(connection, topic) == 2
        java.alter(topic, ("SET", "retention.ms", "1000"))
        wait_until(lambda: earliest(connection, topic) == 4, PATIENCE_S, "retention")
        assert earliest(connection, f"{topic}-compact") == 0


def test_records_go_by_size(launch, bucket, topic):
    broker = launch(settings=SETTINGS, bucket=bucket.config, own={"upkeep": UPKEEP})
    with broker.connect() as connection:
        connection.make_topic(topic, configs={"retention.bytes": "5000", "retention.ms": "-1"})
        fill(connection, topic, 20)
        # A batch has some bytes more than its value: four are too little, five are kept.
        wait_until(lambda: earliest(connection, topic) == 15, PATIENCE_S, "retention")
        wait_until(lambda: len(bucket.keys()) == 5, PATIENCE_S, "the objects to go")
        time.sleep(1)
        assert earliest(connection, topic) == 15
        assert len(connection.read_all(topic, offset=15)) == 5
        broker.kill9()
    broker.restart()
    with broker.connect() as connection:
        assert earliest(connection, topic) == 15
        fill(connection, topic, 1)
        wait_until(lambda: earliest(connection, topic) == 16, PATIENCE_S, "retention after a restart")


def test_deleted_records_and_topics_leave_nothing(launch, bucket, topic):
    broker = launch(settings=SETTINGS, bucket=bucket.config, own={"upkeep": UPKEEP})
    bare, gone = f"{topic}-bare", f"{topic}-gone"
    with broker.connect() as connection:
        for name in (bare, gone):
            connection.make_topic(name, configs={"retention.ms": "-1"})
            fill(connection, name, 4)
        assert len(bucket.keys()) == 8
        assert connection.delete_records(bare, 2) == (0, 2)
        wait_until(lambda: len(bucket.keys()) == 6, PATIENCE_S, "the objects of deleted records to go")
        assert connection.delete_records(bare, -1) == (0, 4)
        tool("kafka-topics", "--bootstrap-server", broker.bootstrap, "--delete", "--topic", gone)
        wait_until(lambda: bucket.keys() == set(), PATIENCE_S, "the bucket to be empty")
        fill(connection, bare, 1)
        assert len(connection.read_all(bare, offset=4)) == 1
    metrics = broker.metrics()
    assert metrics['strandline_upkeep_deleted_objects_total{reason="dead"}'] == 8
    wait_until(lambda: broker.metrics()["strandline_upkeep_dead_objects"] == 0, PATIENCE_S, "the gauge")


def test_orphans_are_shown_and_swept_and_others_are_spared(launch, bucket, topic):
    broker = launch(settings=SETTINGS, bucket=bucket.config, own={"upkeep": {**UPKEEP, "sweep_interval_ms": 3_600_000}})
    with broker.connect() as connection:
        connection.make_topic(topic)
        fill(connection, topic, 2)
    named = bucket.keys()
    assert broker.stop() == 0
    # Of a writer that died an hour ago, and had applied what that of another object had: a name with another token would be of
    # another history.
    position, token, _ = min(key.split("/")[2] for key in named).split("-")
    orphans = {f"data/{n}/{position}-{token}-{(now_ms() - 3_600_000) << 80 | n:032x}" for n in range(3)}
    others = {"data/0/-of-somebody-else", "elsewhere/1", "snapshots/of-somebody-else"}
    for key in orphans | others:
        bucket.put(key, b"content")
    shown = dry_run(broker)
    assert "orphans  3 objects, 21 bytes" in shown, shown
    assert all(key in shown for key in orphans) and not any(key in shown for key in named | others), shown
    assert orphans <= bucket.keys()

    broker.own["upkeep"] = UPKEEP
    broker.start()
    wait_until(lambda: not orphans & bucket.keys(), 60, "the orphans to be swept", every_s=0.2)
    assert bucket.keys() == named | {"data/0/-of-somebody-else"}
    assert {"elsewhere/1"} == bucket.keys("elsewhere/") and "snapshots/of-somebody-else" in bucket.keys("snapshots/")
    with broker.connect() as connection:
        assert len(connection.read_all(topic)) == 2
        fill(connection, topic, 1)
    assert broker.metrics()['strandline_upkeep_deleted_objects_total{reason="orphan"}'] == 3
    risen = lambda: broker.metrics()["strandline_upkeep_horizon_position"] > int(position, 16)  # noqa: E731
    wait_until(risen, 10, "the gauge of the horizon, which is set once a second")
    assert broker.stop() == 0
    assert "orphans  0 objects" in dry_run(broker)


def dry_run(broker) -> str:
    argv = [BINARY, "bucket", "sweep", "--dry-run", "--config", broker.directory / "broker.yaml", "--data", broker.data]
    run = subprocess.run(argv, capture_output=True, timeout=30, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_consumer_that_is_left_behind_begins_anew(launch, topic):
    """As a member of a group, with librdkafka's own reset."""
    broker = launch(settings={**SETTINGS, "group.initial.rebalance.delay.ms": 0}, own={"upkeep": UPKEEP})
    with broker.connect() as connection:
        connection.make_topic(topic, configs={"retention.ms": "-1"})
        fill(connection, topic, 10)
        config = {"bootstrap.servers": broker.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer({**config, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
        consumer.subscribe([topic])
        first = consumer.poll(30)
        assert first is not None and first.error() is None and first.offset() == 0
        consumer.commit(first, asynchronous=False)
        consumer.close()
        assert connection.delete_records(topic, 7) == (0, 7)
        consumer = confluent_kafka.Consumer({**config, "enable.auto.commit": False, "fetch.wait.max.ms": 100})
        consumer.subscribe([topic])
        offsets = []
        deadline = time.monotonic() + 30
        while len(offsets) < 3 and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                offsets.append(message.offset())
        consumer.close()
        assert offsets == [7, 8, 9]
