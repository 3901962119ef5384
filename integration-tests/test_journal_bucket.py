"""`journal.kind: bucket`: no database beside the bucket. The journal's contract suite on MinIO, and the real binary, one broker and
several over one bucket, with clients and kill -9, on the local directory and on MinIO."""

import random
import threading
import time
from itertools import chain
from types import SimpleNamespace

import pytest
from test_kill import PARTITIONS, Load, check_final, read_partitions, run_lives

from harness import wire
from harness.minio import PASSWORD, USER
from harness.processes import free_port, wait_until
from harness.records import Record
from harness.suites import run_suite
from harness.unconditional import Unconditional
from harness.wakes import wakes

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(300)]

JOURNAL = {"journal": {"kind": "bucket"}}
# Whoever is killed is missed sooner than by default, since it costs nothing here.
MISSED_SOON = {"cluster": {"heartbeat_interval_ms": 3000, "fencing_timeout_ms": 15000}}
# Trims too, which the defaults do too seldom for a test.
OFTEN = {"snapshot": {"entries_between": 20, "kept_min": 1, "kept_hours": 0}}
# Likewise, and no broker of several is so slow that what it has not read yet is trimmed.
OFTEN_AMONG_SEVERAL = {"snapshot": {"entries_between": 30, "kept_min": 3, "kept_hours": 0}}


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_contract_on_minio(minio):
    environment = {
        "STORE_TEST_S3_ENDPOINT": minio.endpoint,
        "STORE_TEST_S3_BUCKET": minio.bucket,
        "AWS_ACCESS_KEY_ID": USER,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }
    run_suite("journal::bucket::tests::contracts::s3::", environment=environment, passing=29)


def bucket_of(store, request, topic):
    return request.getfixturevalue("minio").config(f"journal-{topic}") if store == "minio" else None


@pytest.fixture
def cluster(launch, store, request, topic, tmp_path):
    """Starts the broker with this id over the bucket that all of a test have in common; its own directory is empty."""
    bucket = bucket_of(store, request, topic) or {"url": str(tmp_path / "bucket")}
    return lambda broker_id, own=None: launch(bucket=bucket, own={"broker_id": broker_id, **JOURNAL, **(own or {})})


@pytest.fixture
def names(store, request, topic, tmp_path):
    """The names below a prefix of that bucket."""

    def of(prefix):
        if store == "local":
            return sorted(path.name for path in (tmp_path / "bucket" / prefix).iterdir())
        found = request.getfixturevalue("minio").objects(f"journal-{topic}/{prefix}/")
        return sorted(name.rpartition("/")[2] for name in found)

    return of


def numbered(first, last):
    return [Record(partition=0, key=b"k%d" % n, value=b"value %d" % n) for n in range(first, last)]


def contents(records):
    return [(r.offset, r.key, r.value) for r in records]


def test_what_one_broker_takes_another_serves(cluster, client, topic):
    one, two = (cluster(id, MISSED_SOON) for id in (1, 2))
    with wire.Connection(one.port) as connection:
        connection.make_topic(topic)
    expected = [(n, r.key, r.value) for n, r in enumerate(numbered(0, 400))]
    client("confluent", one).produce(topic, numbered(0, 100), idempotent=True)
    assert contents(client("kcat", two).fetch(topic, 0, 0, 100)) == expected[:100]
    client("kcat", two).produce(topic, numbered(100, 200))
    assert contents(client("confluent", one).fetch(topic, 0, 0, 200)) == expected[:200]
    one.kill9()
    # What was acknowledged by the one that is gone is there, and the other goes on behind it.
    client("confluent", two).produce(topic, numbered(200, 300), idempotent=True)
    assert contents(client("confluent", two).fetch(topic, 0, 0, 300)) == expected[:300]
    one.restart()
    client("confluent", one).produce(topic, numbered(300, 400), idempotent=True)
    three = cluster(3, MISSED_SOON)
    for broker in (one, two, three):
        assert contents(client("kcat", broker).fetch(topic, 0, 0, 400)) == expected
    assert [broker.stop() for broker in (one, two, three)] == [0, 0, 0]


def test_a_consumer_that_waits_hears_of_a_record_that_another_broker_took(cluster, topic):
    """After a quiet time, as a broker then asks the bucket once a second."""
    one, two = cluster(1), cluster(2)
    with wire.Connection(one.port) as writer, wire.Connection(two.port) as reader:
        writer.make_topic(topic)
        reader.metadata([topic])
        quiet = reader.fetch_one(topic, 0, max_wait_ms=4000)
        assert quiet["error"] == 0 and not quiet["data"]
        written = []

        def write():
            time.sleep(0.3)
            written.append(time.monotonic())
            assert writer.produce(topic, wire.encode_batch([(b"k", b"v")]))["error"] == 0

        thread = threading.Thread(target=write)
        thread.start()
        answer = reader.fetch_one(topic, 0, max_wait_ms=15000)
        took = time.monotonic() - written[0]
        thread.join()
    assert [r[3] for batch in wire.decode_batches(answer["data"]) for r in batch.records()] == [b"v"]
    print(f"{took:.2f} s from the produce to the other broker's answer")
    assert took < 5, f"{took} s"


# What an entry takes until it is seen elsewhere, once it is told of: its read and one of the boundary, and the object's.
WOKEN_MS = 50


def test_what_one_broker_commits_wakes_fetches_at_another(cluster, topic):
    """By what brokers tell each other, not by the next look at the bucket."""
    one, two = cluster(1), cluster(2)
    wait_until(lambda: one.seen() == two.seen() == 2, 10, "both know each other")
    p50, _ = wakes(one, two, topic, rounds=100, between_s=0.2)  # the slowest wait for processors, where others want them too
    assert p50 <= WOKEN_MS, f"{p50} ms"
    looks = 'strandline_bucket_requests_total{operation="read",purpose="journal",outcome="not_found"}'
    before = [broker.metrics()[looks] for broker in (one, two)]
    time.sleep(10)
    looked = [broker.metrics()[looks] - had for broker, had in zip((one, two), before)]
    print(f"looked for entries {looked} times in 10 s")
    assert max(looked) <= 15, "who is told of entries looks for few"


def test_several_brokers_under_load_are_killed_in_turn(cluster, names, topic, tmp_path):
    """Each takes records of its own producers for the same partitions. A broker that comes late, with nothing of its own on
    disk, begins where the journal was trimmed, and has all."""
    brokers = [cluster(n, OFTEN_AMONG_SEVERAL) for n in (1, 2, 3)]
    with wire.Connection(brokers[0].port) as connection:
        connection.make_topic(topic, PARTITIONS)
    loads = [Load(broker, topic, tmp_path, (0,), prefix=f"b{n}-") for n, broker in enumerate(brokers)]
    chance = random.Random()
    for round_ in range(6):
        goals = [load.acknowledged() + 100 for load in loads]
        everybody = lambda: all(  # noqa: E731
            load.check_alive() or load.acknowledged() >= goal for load, goal in zip(loads, goals)
        )
        wait_until(everybody, 90, f"100 acknowledgements by each broker in round {round_}")
        time.sleep(chance.random() * 0.1)
        victim = brokers[round_ % len(brokers)]
        victim.kill9()
        victim.restart()
    trimmed = lambda: [load.check_alive() for load in loads] and int(names("journal")[0]) > 1  # noqa: E731
    wait_until(trimmed, 60, "a trim")
    for load in loads:
        load.stop()
    assert all(broker.alive() for broker in brokers), [broker.log_tail() for broker in brokers if not broker.alive()]
    late = cluster(4, OFTEN_AMONG_SEVERAL)
    everything = read_partitions(late, topic)
    for broker in brokers:
        assert read_partitions(broker, topic) == everything
    check_final(SimpleNamespace(promises=lambda: chain.from_iterable(load.promises() for load in loads)), everything)
    boundaries = names("boundary")
    assert boundaries == [f"{n:020}" for n in range(1, len(boundaries) + 1)]


def test_a_store_without_conditional_creates_is_refused(launch):
    store = Unconditional(free_port())
    try:
        broker = launch(start=False, bucket=store.config(), own=JOURNAL).start(wait=False)
        assert broker.child.wait(30) == 1
    finally:
        store.stop()
    log = broker.log.read_text()
    assert "the bucket can't be used, it lacks create-if-absent (If-None-Match: * on S3)" in log, log
    assert not any("/journal/" in name for name in store.objects)


@pytest.mark.parametrize("name", ["kcat", "confluent"])
def test_clients_before_and_after_a_kill(launch, client, store, request, topic, name):
    broker = launch(bucket=bucket_of(store, request, topic), own=JOURNAL)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    records = [Record(partition=0, key=b"k%d" % n, value=b"v%d" % n) for n in range(200)]
    client(name, broker).produce(topic, records[:100], idempotent=True)
    for _ in range(2):
        broker.kill9()
        broker.restart()
    client(name, broker).produce(topic, records[100:], idempotent=True)
    found = client(name, broker).fetch(topic, 0, 0, 200)
    assert [(r.key, r.value) for r in found] == [(r.key, r.value) for r in records]
    journal = {
        key: value for key, value in broker.metrics().items() if key.startswith("strandline_bucket_requests_total") and '"journal"' in key
    }
    created = journal['strandline_bucket_requests_total{operation="create",purpose="journal",outcome="done"}']
    assert created > 0, journal
    assert not (broker.data / "journal.db").exists()


def test_lives_with_a_snapshot_every_few_entries(launch, store, request, topic, tmp_path):
    """kill -9 under load, also in the middle of trims and sweeps."""
    lives = 8 if store == "local" else 4
    bucket = bucket_of(store, request, topic)
    own = {**JOURNAL, **OFTEN}
    broker = run_lives(launch, topic, tmp_path, lives=lives, per_life=200, seed=random.randrange(1 << 30), own=own, bucket=bucket)
    if store == "local":
        names = sorted(path.name for path in (broker.data / "bucket/journal").iterdir())
        boundaries = sorted(path.name for path in (broker.data / "bucket/boundary").iterdir())
        assert boundaries == [f"{n:020}" for n in range(1, len(boundaries) + 1)]
        assert int(names[0]) > 1 and len(names) < 200, "what is trimmed is deleted"


def test_an_older_journal_than_the_bucket_is_refused(launch, topic, client):
    broker = launch(own=JOURNAL)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    client("confluent", broker).produce(topic, [Record(partition=0, key=b"k", value=b"v")])
    broker.stop()
    for path in (broker.data / "bucket/journal").iterdir():
        path.unlink()
    broker.start(wait=False)
    assert broker.child.process.wait(20) != 0
    assert "journal" in broker.log_tail(), broker.log_tail()
