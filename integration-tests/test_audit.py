"""What an operator asks of the stores themselves: `audit` and `topic describe`."""

import subprocess

import pytest

from harness.broker import BINARY
from harness.processes import wait_until
from harness.wire import encode_batch

pytestmark = [pytest.mark.strandline]

# Compaction at once, so that objects of all levels are looked at; nothing is deleted meanwhile.
COMPACTION = {"objects_per_job": 4, "rest_ms": 0, "objects_per_merge": 4}


def strandline(broker, *words):
    stores = ["--config", broker.directory / "broker.yaml", "--data", broker.data]
    return subprocess.run([BINARY, *words, *stores], capture_output=True, timeout=60, text=True)


@pytest.fixture
def stopped(launch, topic, tmp_path):
    """A broker that wrote forty flushes over two partitions, compacted some, and was stopped; and its objects."""
    bucket = tmp_path / "bucket"
    broker = launch(bucket={"url": str(bucket)}, own={"compaction": COMPACTION})
    with broker.connect() as connection:
        connection.make_topic(topic, 2)
        for n in range(40):
            batch = encode_batch([(b"k", bytes([n]) * 1000)], first_ms=1_700_000_000_000 + n)
            assert connection.produce(topic, batch, partition=n % 2)["error"] == 0
    wait_until(lambda: any((bucket / "compacted").rglob("*-*-*")), 30, "something is compacted")
    broker.stop()
    return broker, bucket


def test_a_whole_cluster_is_sound(stopped, topic):
    broker, _ = stopped
    for words in (["audit"], ["audit", "--fast"], ["audit", "--topic", topic]):
        run = strandline(broker, *words)
        assert run.returncode == 0, (run.stdout, run.stderr)
        assert run.stdout.splitlines()[-1].split() == ["problems", "0"]
        assert "2 partitions" in run.stdout
    unknown = strandline(broker, "audit", "--topic", "none")
    assert (unknown.returncode, 'there is no topic "none"' in unknown.stderr) == (1, True)


def test_what_is_lost_or_damaged_is_told(stopped, topic):
    broker, bucket = stopped
    described = strandline(broker, "topic", "describe", topic)
    assert described.returncode == 0, described.stderr
    rows = described.stdout.splitlines()
    assert [row.split()[:3] for row in rows if row[:1] in "01"] == [["0", "0", "20"], ["1", "0", "20"]]
    victims = sorted(path for path in bucket.rglob("*-*-*") if path.parent.parent.name in ("data", "compacted"))
    found = []
    # Some may be of jobs that were given up; nobody misses those.
    for victim in victims:
        content = victim.read_bytes()
        victim.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        run = strandline(broker, "audit")
        key = str(victim.relative_to(bucket))
        if run.returncode == 3:
            problems = [line for line in run.stdout.splitlines() if line.startswith("PROBLEM")]
            assert problems and all(key in line for line in problems), run.stdout
            found.append(victim)
            victim.unlink()
            lost = strandline(broker, "audit", "--fast")
            assert lost.returncode == 3 and key in lost.stdout, lost.stdout
        victim.write_bytes(content)
        if len(found) == 2:
            break
    assert len(found) == 2
    assert strandline(broker, "audit").returncode == 0


def test_a_broker_audits_by_itself(launch, topic, tmp_path):
    bucket = tmp_path / "bucket"
    upkeep = {"audit_interval_ms": 500, "garbage_grace_ms": 1000}
    broker = launch(bucket={"url": str(bucket)}, own={"upkeep": upkeep, "compaction": {"enabled": False}})
    with broker.connect() as connection:
        connection.make_topic(topic, 1)
        assert connection.produce(topic, encode_batch([(b"k", b"v" * 1000)]), partition=0)["error"] == 0
    wait_until(lambda: broker.metrics()["strandline_upkeep_audits_total"] > 0, 20, "an audit has ended")
    assert broker.metrics()["strandline_upkeep_audit_problems"] == 0
    (victim,) = (path for path in (bucket / "data").rglob("*-*-*") if path.is_file())
    victim.unlink()
    wait_until(lambda: broker.metrics()["strandline_upkeep_audit_problems"] == 1, 20, "the loss is found")
    assert victim.name in broker.log_tail()
