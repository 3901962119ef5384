"""Broken and hostile clients: a Kafka error or a closed connection for them, answers for the others."""

import os
import random
import socket
import struct
import threading
import time

import pytest

from harness import wire
from harness.wire import encode_batch, pack, string


@pytest.fixture(autouse=True)
def others_are_answered(broker, topic):
    """Whatever a test does, a good client is served right after it, by the same process."""
    process = broker.child.pid
    yield
    assert broker.alive() and broker.child.pid == process
    with wire.Connection(broker.port, timeout_s=5) as good:
        good.make_topic(topic + "-good")
        assert good.produce(topic + "-good", encode_batch([(b"k", b"v")]))["base"] == 0
        assert len(good.read_all(topic + "-good")) == 1


def connect(broker, timeout_s=5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=timeout_s)


def ending(sock) -> str:
    """What became of the connection: closed, answered or silent."""
    try:
        return "answered" if sock.recv(1) else "closed"
    except TimeoutError:
        return "silent"
    except OSError:
        return "closed"


def frame(body: bytes) -> bytes:
    return pack("i", len(body)) + body


def header(api, version, correlation=1) -> bytes:
    return pack("hhi", api, version, correlation) + string("hostile")


@pytest.mark.parametrize("seed", range(20))
def test_noise(broker, seed):
    noise = random.Random(seed)
    with connect(broker, 1) as sock:
        try:
            sock.sendall(noise.randbytes(noise.randrange(1, 5000)))
        except OSError:
            pass
        assert ending(sock) in ("closed", "silent")  # silent: the noise announced a long frame


@pytest.mark.parametrize("length", [-1, -(2**31), 2**31 - 1, 200 << 20, 0, 1, 7])
def test_frame_lengths(broker, length):
    """Beyond socket.request.max.bytes, below a header, negative."""
    with connect(broker) as sock:
        sock.sendall(pack("i", length) + b"\0" * max(0, min(length, 7)))
        assert ending(sock) == "closed"


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 505]
)
def test_other_protocols(broker, text):
    with connect(broker) as sock:
        sock.sendall(text)
        assert ending(sock) == "closed"


UNKNOWN = [(api, 0) for api in (4, 5, 6, 7, 52, 58, 200, 32767, -1)] + [
    (0, 2),
    (1, 3),
    (3, 99),
    (3, -1),
    (11, 10),
    (36, 99),
]


@pytest.mark.parametrize("api,version", UNKNOWN)
def test_unknown_apis_and_versions(broker, api, version):
    with connect(broker) as sock:
        sock.sendall(frame(header(api, version) + b"\0" * 20))
        assert ending(sock) == "closed"


@pytest.mark.parametrize("version", [5, 99, 32767])
def test_unknown_version_of_api_versions(broker, version):
    """Version 0 of the answer, error 35, the range of ApiVersions itself; the connection lives on."""
    with wire.Connection(broker.port) as connection:
        reader = connection.call(wire.API_VERSIONS, version, b"\0")
        assert reader.unpack("h") == wire.UNSUPPORTED_VERSION
        ranges = reader.array(lambda: reader.unpack("hhh"))
        assert [(key, low) for key, low, _ in ranges] == [(18, 0)]
        assert reader.done()
        assert connection.api_versions()[18] == ranges[0][1:]


def test_bad_software_name(broker):
    with wire.Connection(broker.port) as connection:
        name = b"\x04a b" + b"\x021" + b"\0"
        reader = connection.call(wire.API_VERSIONS, 3, b"\0" + name)
        assert reader.unpack("h") == wire.INVALID_REQUEST
        assert connection.api_versions()


def bodies():
    """Each a well-framed request whose content does not parse: lengths beyond the frame, counts beyond reason."""
    for api, version in (
        (0, 8),
        (1, 11),
        (2, 5),
        (3, 7),
        (10, 2),
        (19, 4),
        (20, 3),
        (21, 1),
        (22, 1),
        (23, 3),
        (32, 2),
        (37, 1),
    ):
        yield f"{api}-huge-count", header(api, version) + b"\x7f\xff\xff\xff" * 3
        yield f"{api}-empty", header(api, version)
    for api, version in ((0, 9), (1, 12), (3, 12), (19, 7), (3, 9)):  # flexible: varints and tagged fields
        tagged = header(api, version) + b"\0"
        yield f"{api}-huge-varint", tagged + b"\xff\xff\xff\xff\x0f" * 4
        yield f"{api}-endless-varint", tagged + b"\xff" * 50
        yield f"{api}-many-tags", header(api, version) + b"\xff\xff\xff\xff\x07" + b"\1\1\1" * 5
    yield "client-id-beyond-the-frame", pack("hhi", 3, 7, 1) + b"\x7f\xff"
    yield "client-id-not-utf8", pack("hhi", 3, 7, 1) + b"\0\2\xff\xfe" + b"\0" * 5


BODIES = dict(bodies())


@pytest.mark.parametrize("case", BODIES)
def test_bodies_that_do_not_parse(broker, case):
    with connect(broker) as sock:
        sock.sendall(frame(BODIES[case]))
        assert ending(sock) in ("closed", "answered")


@pytest.mark.parametrize("api", range(0, 93))
def test_random_bodies(broker, api):
    """For each key that is on offer, each version: noise where the request should be. Neither a panic nor silence."""
    with wire.Connection(broker.port) as asking:
        low, high = asking.api_versions().get(api, (0, 0))
    chance = random.Random(api)
    for version in range(low, high + 1):
        with connect(broker) as sock:
            noise = bytes(
                chance.choice((0, 0, 0, 1, 2, 255, 127, chance.randrange(256))) for _ in range(chance.randrange(60))
            )
            sock.sendall(frame(header(api, version) + noise))
            sock.shutdown(socket.SHUT_WR)
            assert ending(sock) != "silent", (api, version, noise.hex())


def test_half_frames(broker):
    """Connections that stop in the middle, then go away."""
    whole = frame(header(3, 7) + pack("i?", -1, False))
    for cut in range(1, len(whole)):
        with connect(broker) as sock:
            sock.sendall(whole[:cut])


def test_a_frame_in_single_bytes(broker):
    with wire.Connection(broker.port) as connection:
        connection.socket.settimeout(10)
        for byte in frame(header(3, 7) + pack("i?", -1, False)):
            connection.socket.sendall(bytes([byte]))
            time.sleep(0.002)
        assert connection.receive(1)


@pytest.mark.strandline
def test_slow_senders_take_no_room(broker):
    """Many announce a large frame and send a byte now and then; a real Kafka runs out of memory for good."""
    socks = [connect(broker) for _ in range(100)]
    try:
        before = broker.rss_bytes()
        for sock in socks:
            sock.sendall(pack("i", 90 << 20) + header(0, 8))
        for _ in range(5):
            time.sleep(0.1)
            for sock in socks:
                sock.sendall(b"\0")
        with wire.Connection(broker.port, timeout_s=5) as good:
            assert good.metadata([])["brokers"]
        assert broker.rss_bytes() - before < 64 << 20
    finally:
        for sock in socks:
            sock.close()


def test_readers_that_never_read(broker, topic):
    """They ask for much, again and again, and leave the answers lying."""
    with wire.Connection(broker.port) as good:
        good.make_topic(topic)
        for _ in range(8):
            good.produce(topic, encode_batch([(b"k", os.urandom(900_000))]))
        lazy = [wire.Connection(broker.port) for _ in range(20)]
        try:
            for connection in lazy:
                for _ in range(10):
                    connection.send_fetch(
                        {topic: {0: 0}},
                        max_wait_ms=0,
                        min_bytes=1,
                        max_bytes=50 << 20,
                        partition_bytes=50 << 20,
                        session=(0, -1),
                        forget=None,
                        epoch=-1,
                    )
            time.sleep(0.5)
            assert good.metadata([])["brokers"]
            assert len(good.read_all(topic)) == 8
        finally:
            for connection in lazy:
                connection.close()


def test_many_connections_come_and_go(broker):
    socks = []
    try:
        for _ in range(500):
            socks.append(connect(broker))
        with wire.Connection(broker.port, timeout_s=10) as good:
            assert good.api_versions()
    finally:
        for sock in socks:
            sock.close()


def test_a_client_that_leaves_before_its_answer(broker, topic):
    with wire.Connection(broker.port) as good:
        good.make_topic(topic)
        for n in range(50):
            with wire.Connection(broker.port) as rude:
                rude.send_produce(topic, {0: encode_batch([(b"k", f"{n}".encode())])})
                if n % 2:  # a reset instead of an orderly end
                    rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end = good.list_offsets(topic, -1)[2]
        assert len(good.read_all(topic)) >= end


def test_a_flood_of_requests_on_one_connection(broker):
    """Thousands without reading: the broker stops reading the socket rather than growing."""
    with wire.Connection(broker.port, timeout_s=10) as flood:
        count = 3000

        def send():
            for _ in range(count):
                flood.send(wire.METADATA, 7, pack("i?", -1, False))

        writer = threading.Thread(target=send, daemon=True)
        writer.start()
        time.sleep(0.5)
        with wire.Connection(broker.port, timeout_s=5) as good:
            assert good.metadata([])["brokers"]
        for n in range(count):
            flood.receive(n + 1)
        writer.join(5)
