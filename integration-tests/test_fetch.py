"""Fetch on a raw socket: where a read may begin, what limits it, how it waits, and sessions."""

import threading
import time

import pytest

from harness import wire
from harness.records import Record
from harness.wire import decode_batches, encode_batch


@pytest.fixture
def raw(broker):
    with wire.Connection(broker.port) as connection:
        yield connection


def fill(raw, topic, batches, per_batch=10, size=20, partition=0):
    for n in range(batches):
        records = [(b"k", f"{n * per_batch + i}".encode().ljust(size, b".")) for i in range(per_batch)]
        assert raw.produce(topic, encode_batch(records), partition=partition)["error"] == 0


def test_from_each_offset(raw, topic):
    """A batch that holds the offset comes whole, the client skips what stands before it."""
    raw.make_topic(topic)
    fill(raw, topic, 5, per_batch=7)
    for offset in range(35):
        answer = raw.fetch_one(topic, offset)
        batches = decode_batches(answer["data"])
        assert batches[0].base_offset == offset // 7 * 7
        values = [r[3] for b in batches for r in b.records() if r[0] >= offset]
        assert values == [f"{n}".encode().ljust(20, b".") for n in range(offset, 35)]
        assert (answer["high"], answer["stable"], answer["start"]) == (35, 35, 0)


def test_batches_come_back_byte_for_byte(raw, topic):
    """Only the base offset and the leader epoch are the broker's."""
    raw.make_topic(topic)
    sent = [encode_batch([(b"k", b"v" * n, (("h", b"x"), ("h", None)))] * 3, leader_epoch=77) for n in (1, 100, 5000)]
    for batch in sent:
        raw.produce(topic, batch)
    data = raw.fetch_one(topic, 0)["data"]
    for batch, stored in zip(sent, decode_batches(data)):
        assert data[16:][: len(batch) - 16] == batch[16:]
        assert stored.base_offset % 3 == 0
        assert stored.leader_epoch != 77
        data = data[len(batch) :]
    assert data == b""


def test_at_and_beyond_the_end(raw, topic):
    raw.make_topic(topic)
    assert raw.fetch_one(topic, 0) == {
        "error": 0, "high": 0, "stable": 0, "start": 0, "aborted": [], "preferred": -1, "data": b""
    }  # fmt: skip
    fill(raw, topic, 1)
    assert raw.fetch_one(topic, 10)["data"] == b""
    assert raw.fetch_one(topic, 11)["error"] == wire.OFFSET_OUT_OF_RANGE
    assert raw.fetch_one(topic, -1)["error"] == wire.OFFSET_OUT_OF_RANGE


def test_unknown_topic_and_partition(raw, topic):
    raw.make_topic(topic)
    assert raw.fetch_one(topic, 0, partition=1)["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
    assert raw.fetch_one(topic + "x", 0)["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("limits", [{"partition_bytes": 1}, {"max_bytes": 1}, {"partition_bytes": 0}])
def test_the_first_batch_comes_even_if_larger(raw, topic, limits):
    raw.make_topic(topic)
    fill(raw, topic, 3, size=3000)
    batches = decode_batches(raw.fetch_one(topic, 10, **limits)["data"])
    assert [b.base_offset for b in batches] == [10]


def test_partition_limit(raw, topic):
    """No more than the limit; what is cut in its middle, clients leave alone."""
    raw.make_topic(topic)
    fill(raw, topic, 10, size=1000)
    one = decode_batches(raw.fetch_one(topic, 0, partition_bytes=1)["data"])[0].size
    answer = raw.fetch_one(topic, 0, partition_bytes=3 * one + one // 2)
    assert len(decode_batches(answer["data"])) == 3
    assert len(answer["data"]) <= 3 * one + one // 2


def test_total_limit_over_partitions(raw, topic):
    """Only the first partition with data may overshoot."""
    raw.make_topic(topic, 4)
    for partition in range(4):
        fill(raw, topic, 2, size=5000, partition=partition)
    answer = raw.fetch({topic: {p: 0 for p in range(4)}}, max_bytes=1000)["topics"][topic]
    filled = [p for p, a in answer.items() if a["data"]]
    assert filled == [next(iter(answer))]
    assert all(a["error"] == 0 and a["high"] == 20 for a in answer.values())


@pytest.mark.parametrize("wait_ms", [0, 300])
def test_nothing_there_waits_for_max_wait(raw, topic, wait_ms):
    raw.make_topic(topic)
    started = time.monotonic()
    assert raw.fetch_one(topic, 0, max_wait_ms=wait_ms)["data"] == b""
    took_ms = (time.monotonic() - started) * 1000
    assert wait_ms * 0.9 <= took_ms < wait_ms + 250


def test_min_bytes_zero_answers_at_once(raw, topic):
    raw.make_topic(topic)
    started = time.monotonic()
    raw.fetch_one(topic, 0, max_wait_ms=5000, min_bytes=0)
    assert time.monotonic() - started < 0.5


def test_an_error_answers_at_once(raw, topic):
    raw.make_topic(topic)
    started = time.monotonic()
    assert raw.fetch_one(topic, 5, max_wait_ms=5000)["error"] == wire.OFFSET_OUT_OF_RANGE
    assert time.monotonic() - started < 0.5


def test_new_data_wakes_a_waiting_fetch(broker, raw, topic):
    raw.make_topic(topic)
    later = threading.Timer(0.4, lambda: fill(wire.Connection(broker.port), topic, 1))
    later.start()
    started = time.monotonic()
    answer = raw.fetch_one(topic, 0, max_wait_ms=10000)
    took = time.monotonic() - started
    later.join()
    assert len(decode_batches(answer["data"])) == 1
    assert 0.3 <= took < 1.5


def test_min_bytes_holds_until_there_is_enough(broker, raw, topic):
    raw.make_topic(topic)
    fill(raw, topic, 1, size=100)

    def more():
        with wire.Connection(broker.port) as other:
            for _ in range(4):
                time.sleep(0.15)
                fill(other, topic, 1, size=100)

    writer = threading.Thread(target=more)
    writer.start()
    started = time.monotonic()
    answer = raw.fetch_one(topic, 0, max_wait_ms=10000, min_bytes=3500)
    took = time.monotonic() - started
    writer.join()
    assert len(answer["data"]) >= 3500
    assert 0.3 < took < 2


def test_min_bytes_gives_up_with_what_there_is(raw, topic):
    raw.make_topic(topic)
    fill(raw, topic, 1)
    started = time.monotonic()
    answer = raw.fetch_one(topic, 0, max_wait_ms=300, min_bytes=1 << 20)
    assert len(decode_batches(answer["data"])) == 1
    assert 0.25 < time.monotonic() - started < 1.5


def test_a_waiting_fetch_holds_up_nobody_else(broker, raw, topic):
    raw.make_topic(topic)
    waiting = raw.send_fetch(
        {topic: {0: 0}},
        max_wait_ms=2000,
        min_bytes=1,
        max_bytes=1 << 20,
        partition_bytes=1 << 20,
        session=(0, -1),
        forget=None,
        epoch=-1,
    )
    with wire.Connection(broker.port) as other:
        started = time.monotonic()
        assert other.fetch_one(topic, 0)["data"] == b""
        assert time.monotonic() - started < 0.5
    assert raw.receive_fetch(waiting)["topics"][topic][0]["data"] == b""


def test_a_client_that_leaves_while_it_waits(broker, topic):
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)
        raw.send_fetch(
            {topic: {0: 0}},
            max_wait_ms=30000,
            min_bytes=1,
            max_bytes=1 << 20,
            partition_bytes=1 << 20,
            session=(0, -1),
            forget=None,
            epoch=-1,
        )
    with wire.Connection(broker.port) as raw:
        fill(raw, topic, 1)
        assert len(raw.read_all(topic)) == 10


# Sessions (KIP-227).


def test_session_shows_only_what_changed(raw, topic):
    raw.make_topic(topic, 3)
    first = raw.fetch({topic: {p: 0 for p in range(3)}}, session=(0, 0))
    session = first["session"]
    assert first["error"] == 0 and session != 0
    assert set(first["topics"][topic]) == {0, 1, 2}
    assert raw.fetch({}, session=(session, 1))["topics"] == {}
    fill(raw, topic, 1, partition=1)
    changed = raw.fetch({}, session=(session, 2))
    assert list(changed["topics"][topic]) == [1]
    assert changed["session"] == session
    assert len(decode_batches(changed["topics"][topic][1]["data"])) == 1
    moved = raw.fetch({topic: {1: 10}}, session=(session, 3))
    assert moved["topics"] == {} or moved["topics"][topic][1]["data"] == b""


def test_session_forgets_partitions(raw, topic):
    raw.make_topic(topic, 2)
    session = raw.fetch({topic: {0: 0, 1: 0}}, session=(0, 0))["session"]
    raw.fetch({}, session=(session, 1), forget={topic: [1]})
    fill(raw, topic, 1, partition=0)
    fill(raw, topic, 1, partition=1)
    assert list(raw.fetch({}, session=(session, 2))["topics"][topic]) == [0]


def test_session_gains_partitions(raw, topic):
    raw.make_topic(topic, 2)
    session = raw.fetch({topic: {0: 0}}, session=(0, 0))["session"]
    fill(raw, topic, 1, partition=1)
    grown = raw.fetch({topic: {1: 0}}, session=(session, 1))
    assert len(decode_batches(grown["topics"][topic][1]["data"])) == 1


def test_session_wakes_for_what_it_holds(broker, raw, topic):
    raw.make_topic(topic, 50)
    session = raw.fetch({topic: {p: 0 for p in range(50)}}, session=(0, 0))["session"]
    later = threading.Timer(0.3, lambda: fill(wire.Connection(broker.port), topic, 1, partition=33))
    later.start()
    started = time.monotonic()
    answer = raw.fetch({}, session=(session, 1), max_wait_ms=10000)
    later.join()
    assert list(answer["topics"][topic]) == [33]
    assert time.monotonic() - started < 1.5


def test_unknown_session_and_wrong_epoch(raw, topic):
    raw.make_topic(topic)
    assert raw.fetch({topic: {0: 0}}, session=(123456789, 5))["error"] == wire.FETCH_SESSION_ID_NOT_FOUND
    session = raw.fetch({topic: {0: 0}}, session=(0, 0))["session"]
    assert raw.fetch({}, session=(session, 7))["error"] == wire.INVALID_FETCH_SESSION_EPOCH
    assert raw.fetch({}, session=(session, 1))["error"] == 0


def test_closing_a_session(raw, topic):
    raw.make_topic(topic)
    session = raw.fetch({topic: {0: 0}}, session=(0, 0))["session"]
    closed = raw.fetch({topic: {0: 0}}, session=(session, -1))
    assert (closed["error"], closed["session"]) == (0, 0)
    assert raw.fetch({}, session=(session, 1))["error"] == wire.FETCH_SESSION_ID_NOT_FOUND


def test_many_sessions(broker, topic):
    """More than a real Kafka keeps (1,000): the newest may go without one, nobody fails."""
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)
        for _ in range(1100):
            assert raw.fetch({topic: {0: 0}}, session=(0, 0))["error"] == 0


# Clients that read in their own ways.


def test_small_limits_of_real_clients(client, broker, raw, topic):
    raw.make_topic(topic)
    fill(raw, topic, 20, per_batch=5, size=200)
    want = list(range(100))
    java = client("java", broker).fetch(
        topic, 0, 0, 100, config={"max.partition.fetch.bytes": "1", "max.poll.records": "3"}
    )
    assert [r.offset for r in java] == want
    seen = client("confluent", broker).fetch(topic, 0, 0, 100, config={"fetch.message.max.bytes": 1000})
    assert [r.offset for r in seen] == want


@pytest.mark.parametrize(
    "reader", ["java", "confluent", "kafka-python", "aiokafka", "kafkajs", "franz-go", "kcat", "console"]
)
def test_begin_in_the_middle_of_a_batch(client, broker, raw, topic, reader):
    raw.make_topic(topic)
    fill(raw, topic, 3, per_batch=10)
    assert [r.offset for r in client(reader, broker).fetch(topic, 0, 13, 17)] == list(range(13, 30))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_begin_in_the_middle_of_a_compressed_batch(client, broker, raw, topic, codec):
    raw.make_topic(topic)
    client("kafka-python", broker).produce(topic, [Record(b"k", f"{n}".encode()) for n in range(50)], codec=codec)
    for reader in ("java", "confluent", "franz-go"):
        seen = client(reader, broker).fetch(topic, 0, 31, 19)
        assert [(r.offset, r.value) for r in seen] == [(n, f"{n}".encode()) for n in range(31, 50)], reader
