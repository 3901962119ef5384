"""What breaks around the broker: the bucket, the disk, the port, the directory. Clients wait, then hear a retriable error."""

import contextlib
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from harness import wire
from harness.metadata import Metadata
from harness.processes import free_port, wait_until
from harness.proxy import Proxy
from harness.wire import encode_batch

pytestmark = pytest.mark.strandline

# Errors on which every client tries again: CORRUPT_MESSAGE, LEADER_NOT_AVAILABLE, NOT_LEADER, REQUEST_TIMED_OUT, NETWORK_EXCEPTION,
# COORDINATOR_LOAD_IN_PROGRESS, NOT_ENOUGH_REPLICAS(_AFTER_APPEND), KAFKA_STORAGE_ERROR, THROTTLING_QUOTA_EXCEEDED.
RETRIABLE = {2, 5, 6, 7, 13, 14, 19, 20, 56, 89}
# Short enough for CI; the nightly test has the real ones.
QUICK = {"produce": {"deadline_ms": 4000}}


@pytest.fixture
def proxy(minio):
    made = Proxy(free_port(), minio.port)
    yield made
    made.stop()


@pytest.fixture
def behind(launch, minio, proxy, topic):
    """A broker whose bucket is MinIO behind the proxy, and a topic with ten records in it."""

    def make(quick=True):
        broker = launch(bucket=minio.config(topic, endpoint=proxy.endpoint), own=QUICK if quick else {})
        with wire.Connection(broker.port) as connection:
            connection.make_topic(topic)
            assert connection.produce(topic, encode_batch([(b"k", b"v")] * 10))["error"] == 0
        return broker

    return make


def quick(broker, work, limit_s=1.0):
    started = time.monotonic()
    with wire.Connection(broker.port, timeout_s=10) as connection:
        answer = work(connection)
    took = time.monotonic() - started
    assert took < limit_s, f"took {took:.2f} s"
    return answer


def recovered(broker, topic, limit_s=2.0):
    """A produce succeeds within `limit_s`, without a restart."""
    started = time.monotonic()
    while True:
        with wire.Connection(broker.port, timeout_s=30) as connection:
            answer = connection.produce(topic, encode_batch([(b"k", b"after")]))
        took = time.monotonic() - started
        if answer["error"] == 0:
            assert took <= limit_s, f"recovered only after {took:.2f} s"
            return answer["base"]
        assert took < 60, f"did not recover: error {answer['error']}"


def log_lines(broker) -> int:
    return len(broker.log.read_text(errors="replace").splitlines())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["hang", 503, 403])
def test_bucket_away(behind, proxy, topic, mode):
    broker = behind()
    before_log, before_rss = log_lines(broker), broker.rss_bytes()
    proxy.set(mode)
    started = time.monotonic()
    with wire.Connection(broker.port, timeout_s=30) as waiting:
        sent = waiting.send_produce(topic, {0: encode_batch([(b"k", b"during")])})
        # Meanwhile metadata and what is cached are answered.
        assert quick(broker, lambda c: c.metadata([topic]))["topics"][topic]["error"] == 0
        assert quick(broker, lambda c: len(c.read_all(topic))) == 10
        assert quick(broker, lambda c: c.list_offsets(topic, -1))[2] == 10
        status, _ = broker.admin("/livez")
        assert status == 200
        error = waiting.receive_produce(sent)[0]["error"]
    took = time.monotonic() - started
    assert error in RETRIABLE, f"error {error} after {took:.1f} s"
    assert took < 10
    # Back-pressure rather than memory, and not a line per request.
    with pytest.raises(TimeoutError):
        with wire.Connection(broker.port, timeout_s=2) as flood:
            for _ in range(1000):
                flood.send_produce(topic, {0: encode_batch([(b"k", bytes(500_000))])})
    assert broker.rss_bytes() - before_rss < 300 << 20
    proxy.set("pass")
    recovered(broker, topic)
    assert log_lines(broker) - before_log <= 20, broker.log_tail()
    with wire.Connection(broker.port) as connection:
        offsets = [r[0] for r in connection.read_all(topic)]
    assert offsets == list(range(len(offsets)))


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_bucket_hangs_for_minutes(behind, proxy, topic):
    """With the limits as shipped: a retriable error before the 30 s after which clients give up."""
    broker = behind(quick=False)
    proxy.set("hang")
    for _ in range(5):
        started = time.monotonic()
        with wire.Connection(broker.port, timeout_s=40) as connection:
            assert connection.produce(topic, encode_batch([(b"k", b"v")]))["error"] in RETRIABLE
        assert time.monotonic() - started < 30
    proxy.set("pass")
    recovered(broker, topic)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["hang", 503])
def test_an_idempotent_producer_sits_it_out(behind, proxy, client, topic, mode):
    broker = behind()
    failed, offsets = [], {}
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": 0,
            "log_level": 0,
        }
    )

    def delivered(n):
        return lambda error, message: failed.append(error) if error else offsets.update({n: message.offset()})

    restore = threading.Timer(8, lambda: proxy.set("pass"))
    for n in range(600):
        if n == 200:
            proxy.set(mode)
            restore.start()
        producer.produce(topic, f"{n}".encode(), partition=0, on_delivery=delivered(n))
        producer.poll(0.01)
    assert producer.flush(60) == 0
    restore.join()
    assert not failed
    assert offsets == {n: 10 + n for n in range(600)}
    with wire.Connection(broker.port) as connection:
        assert [r[3] for r in connection.read_all(topic, offset=10)] == [f"{n}".encode() for n in range(600)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["lost", "done-503"])
def test_a_put_that_was_done_and_not_answered(behind, proxy, client, topic, mode):
    """The object is found by its nonce: stored once, acknowledged once."""
    broker = behind()
    proxy.set(mode, methods={"PUT"}, every=3)
    with wire.Connection(broker.port, timeout_s=60) as connection:
        bases = [connection.produce(topic, encode_batch([(b"k", f"{n}".encode())])) for n in range(30)]
        proxy.set("pass")
        assert [b["error"] for b in bases] == [0] * 30
        assert [b["base"] for b in bases] == list(range(10, 40))
        assert [r[3] for r in connection.read_all(topic, offset=10)] == [f"{n}".encode() for n in range(30)]
    assert proxy.spoiled >= 5


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["hang", 503])
def test_reads_go_on_after_the_bucket_was_away(behind, proxy, topic, mode):
    """After a restart nothing is cached: a read is answered in its time without records, and goes on when the bucket is back."""
    broker = behind()
    broker.kill9()
    broker.restart()
    proxy.set(mode, methods={"GET"})
    answer = quick(broker, lambda c: c.fetch({topic: {0: 0}}, max_wait_ms=500), 1.5)["topics"][topic][0]
    assert answer["error"] == 0 and not answer["data"], answer
    assert quick(broker, lambda c: c.metadata([topic]))["topics"][topic]["error"] == 0
    proxy.set("pass")
    started = time.monotonic()
    with wire.Connection(broker.port) as connection:
        wait_until(lambda: connection.fetch_one(topic, 0)["data"], 5, "the records")
    assert time.monotonic() - started < 2


# Credentials.


@pytest.fixture
def metadata(minio):
    made = Metadata(free_port(), minio, life_s=5)
    yield made
    made.stop()


@pytest.mark.timeout(120)
def test_credentials_that_end(launch, minio, topic):
    """Those of the configuration are all there is: a retriable error, and a start with new ones goes on."""

    def bucket(life_s):
        made = minio.credentials(life_s)
        return {**minio.config(topic), **dict(zip(("access_key_id", "secret_access_key", "session_token"), made.values()))}

    broker = launch(bucket=bucket(5), own=QUICK)
    with wire.Connection(broker.port, timeout_s=30) as connection:
        connection.make_topic(topic)
        assert connection.produce(topic, encode_batch([(b"k", b"v")]))["error"] == 0
        time.sleep(5)
        before = log_lines(broker)
        assert connection.produce(topic, encode_batch([(b"k", b"late")]))["error"] in RETRIABLE
        assert quick(broker, lambda c: len(c.read_all(topic))) == 1
    assert log_lines(broker) - before <= 10, broker.log_tail()
    broker.kill9()
    broker.bucket = bucket(60)
    broker.restart()
    with wire.Connection(broker.port) as connection:
        assert connection.produce(topic, encode_batch([(b"k", b"w")]))["base"] == 1
        assert [r[3] for r in connection.read_all(topic)] == [b"v", b"w"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("service", ["instance", pytest.param("container", marks=pytest.mark.nightly)])
def test_credentials_that_are_renewed(launch, minio, metadata, topic, tmp_path, service):
    """Nobody notices while new ones come in time; when they do not, the broker goes on as soon as they are there."""
    bucket = {k: v for k, v in minio.config(topic).items() if k not in ("access_key_id", "secret_access_key")}
    broker = launch(start=False, bucket=bucket, own=QUICK)
    (tmp_path / "token").write_text("token")
    broker.environment = {
        "instance": {"AWS_METADATA_ENDPOINT": metadata.url},
        "container": {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{metadata.url}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
        },
    }[service]
    broker.start()
    assert f"{service} metadata service" in broker.log.read_text()
    with wire.Connection(broker.port, timeout_s=30) as connection:
        connection.make_topic(topic)
        end = time.monotonic() + 8
        while time.monotonic() < end:
            assert connection.produce(topic, encode_batch([(b"k", b"v")]))["error"] == 0
            time.sleep(0.1)
        assert metadata.given >= 4, "both clients have renewed theirs"
        metadata.away = True
        time.sleep(metadata.life_s + 1)
        assert connection.produce(topic, encode_batch([(b"k", b"late")]))["error"] in RETRIABLE
        metadata.away = False
    recovered(broker, topic)


# The end.


@pytest.mark.timeout(60)
def test_sigterm_with_idle_and_waiting_clients(launch, topic):
    """Nobody's patience holds up the end: a fetch that waits is answered with what there is, or its connection closed."""
    broker = launch()
    idle = [wire.Connection(broker.port) for _ in range(20)]
    waiting = wire.Connection(broker.port)
    waiting.make_topic(topic)
    sent = waiting.send_fetch(
        {topic: {0: 0}}, max_wait_ms=25000, min_bytes=1, max_bytes=1 << 20, partition_bytes=1 << 20, session=(0, -1), forget=None, epoch=-1
    )  # fmt: skip
    idle[0].socket.sendall(b"\0\0")  # the beginning of a frame
    time.sleep(0.3)
    started = time.monotonic()
    broker.child.process.terminate()
    assert broker.child.process.wait(30) == 0
    assert time.monotonic() - started < 5
    with contextlib.suppress(wire.Closed):
        assert waiting.receive_fetch(sent)["error"] == 0
    for connection in [*idle, waiting]:
        connection.close()


@pytest.mark.timeout(90)
def test_sigterm_while_the_bucket_is_away(behind, proxy, topic):
    """The end has a limit, `net.drain_timeout_ms`, whatever the bucket does; nothing acknowledged is lost by it."""
    broker = behind()
    proxy.set("hang")
    with wire.Connection(broker.port) as connection:
        connection.send_produce(topic, {0: encode_batch([(b"k", b"late")])})
        time.sleep(0.2)
        started = time.monotonic()
        broker.child.process.terminate()
        code = broker.child.process.wait(60)
        print(f"exit code {code} after {time.monotonic() - started:.1f} s")
    proxy.set("pass")
    broker.restart()
    with wire.Connection(broker.port) as connection:
        values = [r[3] for r in connection.read_all(topic)]
    assert values in ([b"v"] * 10, [b"v"] * 10 + [b"late"])


# The start.


def refused(broker, *patterns, timeout_s=20):
    """Starting ends with an error that says why."""
    broker.start(wait=False)
    code = broker.child.process.wait(timeout_s)
    assert code != 0
    text = broker.log.read_text()
    for pattern in patterns:
        assert re.search(pattern, text), f"{pattern!r} is not in:\n{text[-3000:]}"
    assert "panicked" not in text, text[-3000:]


def test_port_taken(launch):
    broker = launch(start=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", broker.port))
        taken.listen()
        refused(broker, str(broker.port), r"(?i)in use")


def test_second_process_on_the_same_directory(launch, topic):
    first = launch()
    second = launch(start=False, data=first.data)
    refused(second, re.escape(str(first.data)), r"(?i)another process|in use|lock")
    with wire.Connection(first.port) as connection:
        connection.make_topic(topic)
        assert connection.produce(topic, encode_batch([(b"k", b"v")]))["error"] == 0


def test_no_such_bucket(launch, minio, topic):
    bucket = {**minio.config(), "url": "s3://no-such-bucket"}
    refused(launch(start=False, bucket=bucket), "no-such-bucket")


def test_wrong_credentials(launch, minio):
    bucket = {**minio.config("wrong"), "secret_access_key": "not-the-secret"}
    refused(launch(start=False, bucket=bucket), r"strandline/wrong", r"(?i)privilege|credential|signature|403")


def test_a_used_bucket_and_an_empty_journal(launch, topic):
    """Going on would give offsets twice."""
    broker = launch()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
        connection.produce(topic, encode_batch([(b"k", b"v")]))
    assert broker.stop() == 0
    for file in broker.data.glob("journal.db*"):
        file.unlink()
    refused(broker, r"(?i)journal", r"(?i)bucket")


def test_the_bucket_of_another_cluster(launch, minio, topic):
    first = launch(bucket=minio.config(topic))
    assert first.stop() == 0
    refused(launch(start=False, bucket=minio.config(topic)), r"(?i)cluster|journal")


@pytest.mark.parametrize(
    "text,patterns", [("kafkaa: {}\n", ["kafkaa", ":1"]), ("produce:\n  deadline_ms: soon\n", ["deadline_ms", ":2"])]
)
def test_bad_configuration(launch, text, patterns):
    broker = launch(start=False)
    broker.config_text = lambda: text
    refused(broker, "broker.yaml", *patterns)


# Disks.


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 48 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


@pytest.mark.timeout(120)
def test_disk_full_and_free_again(launch, small_disk, topic):
    broker = launch(data=small_disk / "data", own=QUICK)
    acknowledged = []
    with wire.Connection(broker.port, timeout_s=30) as connection:
        connection.make_topic(topic)
        for n in range(20):
            assert connection.produce(topic, encode_batch([(b"k", f"{n}".encode())]))["error"] == 0
            acknowledged.append(f"{n}".encode())
        before = log_lines(broker)
        filler = fill(small_disk)
        errors = []
        values = [f"{n}".encode() + bytes(20_000) for n in range(20, 26)]
        sent = [connection.send_produce(topic, {0: encode_batch([(b"k", value)])}) for value in values]
        for value, correlation in zip(values, sent):
            error = connection.receive_produce(correlation)[0]["error"]
            if error == 0:
                acknowledged.append(value)
            else:
                errors.append(error)
        assert errors, "the disk was not full"
        assert set(errors) <= RETRIABLE, errors
        assert connection.metadata([topic])["topics"][topic]["error"] == 0
        assert len(connection.read_all(topic)) >= 20
    assert log_lines(broker) - before <= 20, broker.log_tail()
    filler.unlink()
    recovered(broker, topic)
    broker.kill9()
    broker.restart()
    with wire.Connection(broker.port) as connection:
        stored = [r[3] for r in connection.read_all(topic)]
    assert [v for v in stored if v in acknowledged] == acknowledged
    assert len(stored) == len(set(stored))


@pytest.mark.timeout(60)
def test_start_on_a_full_disk(launch, small_disk):
    data = small_disk / "data"
    data.mkdir()
    fill(small_disk)
    refused(launch(start=False, data=data), r"(?i)no space|full")


@pytest.mark.timeout(60)
def test_start_on_a_read_only_directory(launch, small_disk):
    data = small_disk / "data"
    data.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused(launch(start=False, data=data), r"(?i)read-?only", re.escape(str(data)))


def test_data_directory_that_is_a_file(launch, tmp_path):
    place = tmp_path / "file"
    place.write_text("x")
    refused(launch(start=False, data=place), re.escape(str(place)))


@pytest.mark.timeout(60)
def test_objects_that_vanish(launch, topic):
    """Somebody deletes from the bucket: an error for what is gone, service for the rest."""
    broker = launch()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
        connection.produce(topic, encode_batch([(b"k", b"gone")]))
    broker.kill9()
    gone = [f for f in (broker.data / "bucket").rglob("*") if f.is_file() and b"gone" in f.read_bytes()]
    assert gone
    for file in gone:
        file.unlink()
    broker.restart()
    with wire.Connection(broker.port, timeout_s=30) as connection:
        answer = connection.fetch_one(topic, 0)
        assert answer["error"] != 0 or not answer["data"], answer
        assert connection.produce(topic, encode_batch([(b"k", b"new")]))["base"] == 1
        assert [r[3] for r in connection.read_all(topic, offset=1)] == [b"new"]
