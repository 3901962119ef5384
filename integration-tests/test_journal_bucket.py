"""`journal.kind: bucket`: no database beside the bucket. The journal's contract suite on MinIO, and the real binary with clients
and kill -9, on the local directory and on MinIO."""

import os
import random
import subprocess

import pytest

from harness import wire
from harness.minio import PASSWORD, USER
from harness.processes import ROOT
from harness.records import Record
from test_kill import run_lives

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(300)]

JOURNAL = {"journal": {"kind": "bucket"}}
# Trims too, which the defaults do too seldom for a test.
OFTEN = {"snapshot": {"entries_between": 20, "kept_min": 1, "kept_hours": 0}}


@pytest.mark.timeout(600)
def test_the_contract_on_minio(minio):
    """The suite lies beside the code; it is built already where the unit tests ran before."""
    env = {
        "STORE_TEST_S3_ENDPOINT": minio.endpoint,
        "STORE_TEST_S3_BUCKET": minio.bucket,
        "AWS_ACCESS_KEY_ID": USER,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }
    name = "journal::bucket::tests::contracts::s3::"
    done = subprocess.run(
        ["cargo", "test", "--locked", "--release", "--lib", "--", "--ignored", name],
        cwd=ROOT,
        env={**os.environ, "RUST_BACKTRACE": "0", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0 and "28 passed" in done.stdout, done.stdout[-4000:]


def bucket_of(store, request, topic):
    return request.getfixturevalue("minio").config(f"journal-{topic}") if store == "minio" else None


@pytest.mark.parametrize("name", ["kcat", "librdkafka"])
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
    client("librdkafka", broker).produce(topic, [Record(partition=0, key=b"k", value=b"v")])
    broker.stop()
    for path in (broker.data / "bucket/journal").iterdir():
        path.unlink()
    broker.start(wait=False)
    assert broker.child.process.wait(20) != 0
    assert "journal" in broker.log_tail(), broker.log_tail()
