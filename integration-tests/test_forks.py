"""A journal that lost its tail: every broker stops and says why, and the operator's command lets the cluster go on."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from harness import wire
from harness.broker import BINARY
from harness.clients import connect
from harness.processes import wait_until

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(180)]

GENERATION = 1 << 24


@pytest.fixture
def cluster(launch, postgres, tmp_path):
    journal = postgres.journal(postgres_schema=f"test_{os.urandom(4).hex()}", append_deadline_ms=1000)
    times = {"heartbeat_interval_ms": 300, "witness_interval_ms": 300}
    brokers = []
    for id in (1, 2, 3):
        own = {"broker_id": id, "journal": journal, "cluster": times}
        made = launch(start=False, own=own, bucket={"url": str(tmp_path / "bucket")})
        made.environment = postgres.environment()
        brokers.append(made.start())
    return brokers


def fork(broker, *args, code=0) -> str:
    """`strandline fork ...` as the operator runs it, with a broker's configuration."""
    argv = [BINARY, "fork", *args, "--config", broker.directory / "broker.yaml", "--data", broker.data]
    env = {**os.environ, **broker.environment}
    done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(broker, topic, first, count):
    with wire.Connection(broker.port) as connection:
        batch = wire.encode_batch([(None, b"%d" % n) for n in range(first, first + count)])
        answer = connection.produce(topic, batch)
        assert answer["error"] == 0, answer
        return answer["base"]


def reads_all(broker, topic, count):
    """Numbers from 0 on, at their offsets; another broker's last ones come in a moment."""
    with wire.Connection(broker.port) as connection:
        wait_until(lambda: connection.list_offsets(topic, -1)[2] == count, 10, f"{count} records")
        assert [(r[0], r[3]) for r in connection.read_all(topic)] == [(n, b"%d" % n) for n in range(count)]


def forked(cluster, postgres, topic, lagging_s=1.0):
    """100 records are in the journal that is left, and 50 more were acknowledged; the third broker has not seen those."""
    with wire.Connection(cluster[0].port) as connection:
        connection.make_topic(topic, 1)
    assert write(cluster[0], topic, 0, 100) == 0
    postgres.back_up()
    wait_until(lambda: [b.seen() for b in cluster] == [3, 3, 3], 20, "three brokers")
    os.kill(cluster[2].child.pid, signal.SIGSTOP)
    assert write(cluster[0], topic, 100, 50) == 100
    time.sleep(lagging_s)  # in which the others leave their witnesses
    postgres.lose()
    os.kill(cluster[2].child.pid, signal.SIGCONT)


def says_forked(broker):
    status, text = broker.admin("/readyz")
    return status == 503 and "fork" in text and broker.metrics()["strandline_journal_forked"] == 1


def refused(broker, topic):
    """What is sent now is not acknowledged, whoever takes it."""
    try:
        with wire.Connection(broker.port, timeout_s=3) as connection:
            answer = connection.produce(topic, wire.encode_batch([(None, b"after the fork")]))
    except OSError:
        return True
    return answer["error"] != 0


def stop(cluster):
    for broker in cluster:
        assert broker.stop() == 1, broker.log_tail()


def test_all_stop_and_go_on_with_everything(cluster, postgres, topic, tmp_path):
    forked(cluster, postgres, topic)
    for broker in cluster:
        wait_until(lambda b=broker: says_forked(b), 30, f"broker {broker.own['broker_id']} says that the journal forked")
        assert broker.admin("/livez")[0] == 200
        assert "acknowledges nothing" in broker.log.read_text()
        assert refused(broker, topic)
    # A restart changes nothing.
    cluster[2].kill9()
    cluster[2].start(wait=False)
    wait_until(lambda: says_forked(cluster[2]), 10, "the restarted broker says so too")
    shown = fork(cluster[0], "show")
    assert "NOT in the journal's history" in shown and "--from bucket" in shown, shown
    stop(cluster)
    assert "say what to go on from" in fork(cluster[0], "resolve", code=1)
    told = fork(cluster[0], "resolve", "--from", "bucket")
    assert "Nothing that was seen is missing" in told and "Generation 1" in told, told
    for broker in cluster:
        broker.start()
    wait_until(lambda: [b.seen() for b in cluster] == [3, 3, 3], 20, "three brokers")
    assert write(cluster[1], topic, 150, 10) == 150
    reads_all(cluster[2], topic, 160)
    with wire.Connection(cluster[2].port) as connection:
        assert connection.epoch_end(topic, 0, current=GENERATION) == (0, 0, 150)
    reader = connect("java", cluster[0].bootstrap, tmp_path / "java")
    assert [(r.offset, r.value) for r in reader.fetch(topic, 0, 0, 160)] == [(n, b"%d" % n) for n in range(160)]
    reader.close()
    assert "nothing to do" in fork(cluster[0], "resolve")


def test_what_the_journal_lacks_is_had_from_objects(cluster, postgres, topic):
    forked(cluster, postgres, topic)
    for broker in cluster:
        wait_until(lambda b=broker: says_forked(b), 30, f"broker {broker.own['broker_id']} says that the journal forked")
    stop(cluster)
    told = fork(cluster[0], "resolve", "--from", "journal")
    assert "50 records of 1 objects" in told and "committed offsets, groups, topics and settings" in told, told
    for broker in cluster:
        broker.start()
    assert write(cluster[0], topic, 150, 10) == 150
    reads_all(cluster[2], topic, 160)
    with wire.Connection(cluster[2].port) as connection:
        # What has its offset from the operator's command is told from what had it first by its epoch.
        assert connection.epoch_end(topic, 0, current=GENERATION) == (0, 0, 100)
        assert connection.epoch_end(topic, GENERATION)[2] == 160
        assert connection.list_offsets(topic, -2)[3] == 0 and connection.list_offsets(topic, -1)[3] == GENERATION
        batches = list(wire.decode_batches(connection.fetch_one(topic, 0)["data"]))
        assert {b.leader_epoch for b in batches if b.base_offset < 100} == {0}
        assert {b.leader_epoch for b in batches if b.base_offset >= 100} == {GENERATION}


def test_a_lost_disk_costs_no_record(launch, topic, tmp_path):
    """The journal of one broker in SQLite, gone with its disk: the bucket has the records, and topics of the last snapshot."""
    own = {"snapshot": {"entries_between": 10}, "cluster": {"witness_interval_ms": 300}}
    broker = launch(bucket={"url": str(tmp_path / "bucket")}, own=own)
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 1)
    for n in range(10):
        write(broker, topic, 10 * n, 10)
    wait_until(lambda: broker.metrics()["strandline_snapshot_written_total"] > 0, 20, "a snapshot")
    write(broker, topic, 100, 50)
    broker.kill9()
    shutil.rmtree(broker.data)
    broker.start(wait=False)
    assert broker.child.wait(20) == 1 and "going on would give offsets twice" in broker.log.read_text()
    told = fork(broker, "resolve", "--from", "bucket")
    assert "records of" in told, told
    broker.start()
    assert write(broker, topic, 150, 10) == 150
    reads_all(broker, topic, 160)
