"""Clients that want memory: the process stays within its configured budgets, answers the others, and gives back what it took."""

import os
import re
import resource
import select
import time
from pathlib import Path

import pytest

from harness import wire
from harness.processes import free_port
from harness.proxy import Proxy
from harness.wire import encode_batch, pack

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(200)]

MIB = 1 << 20
# The budgets as shipped: requests, cache, answers, cold reads.
ALLOWED = 1.2 * (128 + 128 + 64 + 32) * MIB + 30 * MIB
OWN = {"produce": {"deadline_ms": 8000}}


@pytest.fixture(autouse=True)
def enough_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def peak(broker) -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{broker.child.pid}/status").read_text())[1]) * 1024


def check(broker, topic, before, *, kept=128 * MIB):
    """After the clients have gone: others can write at once, the peak was within the budgets, and within a minute no more
    is held than before and what the cache may keep."""
    started = time.monotonic()
    with wire.Connection(broker.port, timeout_s=30) as good:
        good.make_topic(topic + "-after")
        assert good.produce(topic + "-after", encode_batch([(b"k", os.urandom(500_000))]))["error"] == 0
    assert time.monotonic() - started < 10
    top = peak(broker)
    print(f"before {before / MIB:.0f} MiB, peak {top / MIB:.0f} MiB of {ALLOWED / MIB:.0f}")
    assert top <= ALLOWED, f"peak {top / MIB:.0f} MiB, allowed {ALLOWED / MIB:.0f}"
    deadline = time.monotonic() + 60
    while (held := broker.rss_bytes()) > before + 1.4 * kept + 48 * MIB:
        assert time.monotonic() < deadline, f"still {held / MIB:.0f} MiB after a minute, {before / MIB:.0f} before"
        time.sleep(0.5)
    print(f"back to {held / MIB:.0f} MiB")


def answered(broker):
    started = time.monotonic()
    with wire.Connection(broker.port, timeout_s=10) as good:
        assert good.metadata([])["brokers"]
    assert time.monotonic() - started < 2


def push(connections, payloads, seconds):
    """Sends to each connection what it takes, without ever waiting for one; the bytes that went out."""
    left = {c.socket: memoryview(p) for c, p in zip(connections, payloads)}
    for sock in left:
        sock.setblocking(False)
    poller, by_number, total = select.epoll(), {s.fileno(): s for s in left}, 0
    for number in by_number:
        poller.register(number, select.EPOLLOUT)
    deadline = time.monotonic() + seconds
    while by_number and time.monotonic() < deadline:
        for number, _ in poller.poll(0.1):
            sock = by_number[number]
            try:
                sent = sock.send(left[sock][:65536])
            except BlockingIOError:
                continue
            except OSError:
                sent = len(left[sock])
            total += sent
            left[sock] = left[sock][sent:]
            if not left[sock]:
                poller.unregister(number)
                del by_number[number]
    poller.close()
    return total


def test_many_small_batches_while_the_bucket_hangs(launch, minio, topic):
    """What counts is the memory that a batch of 200 bytes pins."""
    proxy = Proxy(free_port(), minio.port)
    broker = launch(bucket=minio.config(topic, endpoint=proxy.endpoint), own=OWN)
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)
    before = broker.rss_bytes()
    proxy.set("hang")
    batch = encode_batch([(b"k", b"v" * 120)])
    body = (
        wire.string(None)
        + pack("hi", -1, 30000)
        + wire.array([wire.string(topic) + wire.array([pack("i", 0) + wire.blob(batch)])])
    )
    frame = pack("hhi", wire.PRODUCE, 8, 1) + wire.string("small") + body
    connections = [wire.Connection(broker.port) for _ in range(1000)]
    try:
        push(connections, [(pack("i", len(frame)) + frame) * 50] * len(connections), 6)
        answered(broker)
    finally:
        for connection in connections:
            connection.close()
        proxy.set("pass")
    check(broker, topic, before)
    proxy.stop()


def test_large_batches_while_the_bucket_hangs(launch, minio, topic):
    proxy = Proxy(free_port(), minio.port)
    broker = launch(bucket=minio.config(topic, endpoint=proxy.endpoint), own=OWN)
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)
    before = broker.rss_bytes()
    proxy.set("hang")
    batch = encode_batch([(b"k", os.urandom(900_000))])
    body = (
        wire.string(None)
        + pack("hi", -1, 30000)
        + wire.array([wire.string(topic) + wire.array([pack("i", 0) + wire.blob(batch)])])
    )
    frame = pack("hhi", wire.PRODUCE, 8, 1) + wire.string("large") + body
    connections = [wire.Connection(broker.port) for _ in range(50)]
    try:
        push(connections, [(pack("i", len(frame)) + frame) * 10] * len(connections), 6)
        answered(broker)
    finally:
        for connection in connections:
            connection.close()
        proxy.set("pass")
    check(broker, topic, before)
    proxy.stop()


def test_consumers_that_ask_for_much_and_never_read(launch, topic):
    broker = launch(own=OWN)
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)
        for _ in range(150):
            assert raw.produce(topic, encode_batch([(b"k", os.urandom(1_000_000))]))["error"] == 0
    before = broker.rss_bytes()
    lazy = [wire.Connection(broker.port) for _ in range(200)]
    try:
        for connection in lazy:
            connection.send_fetch(
                {topic: {0: 0}},
                max_wait_ms=0,
                min_bytes=1,
                max_bytes=50 * MIB,
                partition_bytes=50 * MIB,
                session=(0, -1),
                forget=None,
                epoch=-1,
            )
        for _ in range(10):
            time.sleep(0.5)
            answered(broker)
    finally:
        for connection in lazy:
            connection.close()
    check(broker, topic, before)
    with wire.Connection(broker.port) as raw:
        assert raw.fetch_one(topic, 0)["data"]


def test_endless_frames(launch, topic):
    """A hundred announce 99 MiB each and send it a byte at a time."""
    broker = launch(own=OWN)
    before = broker.rss_bytes()
    connections = [wire.Connection(broker.port) for _ in range(100)]
    try:
        for connection in connections:
            connection.socket.sendall(pack("i", 99 * MIB) + pack("hhi", wire.PRODUCE, 8, 1))
        for _ in range(50):
            for connection in connections:
                try:
                    connection.socket.sendall(b"\0")
                except OSError:
                    pass  # a broker may well lose its patience
            time.sleep(0.05)
        answered(broker)
    finally:
        for connection in connections:
            connection.close()
    check(broker, topic, before, kept=0)


def test_large_frames_at_once(launch, topic):
    """The same hundred, as fast as they can: the broker takes what it has room for and lets the others wait."""
    broker = launch(own=OWN)
    before = broker.rss_bytes()
    connections = [wire.Connection(broker.port) for _ in range(100)]
    frame = pack("i", 90 * MIB) + pack("hhi", wire.PRODUCE, 8, 1) + bytes(8 * MIB)
    try:
        push(connections, [frame] * len(connections), 5)
        answered(broker)
    finally:
        for connection in connections:
            connection.close()
    check(broker, topic, before, kept=0)
