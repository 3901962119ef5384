"""Produce on a raw socket: what is refused and how, duplicates, sizes, timestamps, acks, pipelining."""

import gzip
import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from harness import wire
from harness.processes import wait_until
from harness.records import HOUR_AGO_MS, Record
from harness.wire import decode_batches, encode_batch, encode_record, pack

ONE = [(b"k", b"v")]


@pytest.fixture
def raw(broker):
    with wire.Connection(broker.port) as connection:
        yield connection


def content(raw, topic, partition=0):
    return [r[3] for r in raw.read_all(topic, partition=partition)]


# Acks.


@pytest.mark.parametrize("acks", [1, -1])
def test_acknowledged(raw, topic, acks):
    raw.make_topic(topic)
    for n in range(3):
        answer = raw.produce(topic, encode_batch(ONE * 2), acks=acks)
        assert (answer["error"], answer["base"], answer["append_ms"], answer["start"]) == (0, n * 2, -1, 0)


def test_acks_0_has_no_answer(raw, topic):
    raw.make_topic(topic)
    for n in range(10):
        raw.send_produce(topic, {0: encode_batch([(b"k", f"{n}".encode())])}, acks=0)
    # The next answer on the connection belongs to the next request, which waits for its predecessors.
    assert raw.produce(topic, encode_batch([(b"k", b"last")]))["base"] == 10
    assert content(raw, topic) == [f"{n}".encode() for n in range(10)] + [b"last"]


def test_acks_0_in_error_closes(broker, raw, topic):
    """The only way to tell a client that does not listen."""
    raw.make_topic(topic)
    raw.send_produce(topic, {7: encode_batch(ONE)}, acks=0)
    with pytest.raises(wire.Closed):
        raw.read(1)


@pytest.mark.parametrize("acks", [2, -2])
def test_other_acks_are_refused(raw, topic, acks):
    raw.make_topic(topic)
    assert raw.produce(topic, encode_batch(ONE), acks=acks)["error"] == wire.INVALID_REQUIRED_ACKS
    assert content(raw, topic) == []


@pytest.mark.parametrize("version", [5, 6, 7, 8])
def test_versions(raw, topic, version):
    raw.make_topic(topic)
    assert raw.produce(topic, encode_batch(ONE), version=version)["base"] == 0


# Order.


def test_pipelined_requests_keep_their_order(raw, topic):
    raw.make_topic(topic)
    sent = [raw.send_produce(topic, {0: encode_batch([(b"k", f"{n}".encode())])}) for n in range(100)]
    answers = [raw.receive_produce(correlation)[0] for correlation in sent]
    assert [a["base"] for a in answers] == list(range(100))
    assert content(raw, topic) == [f"{n}".encode() for n in range(100)]


def test_many_partitions_in_one_request(raw, topic):
    raw.make_topic(topic, 8)
    answers = raw.receive_produce(raw.send_produce(topic, {p: encode_batch(ONE * (p + 1)) for p in (5, 0, 7, 2, 9)}))
    assert {p: a["error"] for p, a in answers.items()} == {5: 0, 0: 0, 7: 0, 2: 0, 9: wire.UNKNOWN_TOPIC_OR_PARTITION}
    assert [raw.list_offsets(topic, -1, partition=p)[2] for p in range(8)] == [1, 0, 3, 0, 0, 6, 0, 8]


# Idempotence.


def sequenced(producer, sequence, *values, epoch=None):
    identity = (producer[0], producer[1] if epoch is None else epoch, sequence)
    return encode_batch([(b"k", v) for v in values], producer=identity)


def test_duplicates_are_answered_with_their_offset(raw, topic):
    """Each of the last five batches may come again; it is stored once."""
    raw.make_topic(topic)
    producer = raw.init_producer_id()
    batches = [sequenced(producer, n * 2, b"a%d" % n, b"b%d" % n) for n in range(5)]
    for n, batch in enumerate(batches):
        assert raw.produce(topic, batch)["base"] == n * 2
    for n, batch in enumerate(batches):
        again = raw.produce(topic, batch)
        assert (again["error"], again["base"]) == (0, n * 2)
    assert len(content(raw, topic)) == 10


def test_a_duplicate_on_another_connection(broker, raw, topic):
    raw.make_topic(topic)
    producer = raw.init_producer_id()
    batch = sequenced(producer, 0, b"once")
    raw.produce(topic, batch)
    with wire.Connection(broker.port) as other:
        assert other.produce(topic, batch)["base"] == 0
        assert content(other, topic) == [b"once"]


def test_a_duplicate_in_flight(raw, topic):
    raw.make_topic(topic)
    batch = sequenced(raw.init_producer_id(), 0, b"once")
    sent = [raw.send_produce(topic, {0: batch}) for _ in range(4)]
    assert [(a["error"], a["base"]) for a in (raw.receive_produce(c)[0] for c in sent)] == [(0, 0)] * 4
    assert content(raw, topic) == [b"once"]


def test_an_old_duplicate_beyond_the_window(raw, topic):
    raw.make_topic(topic)
    producer = raw.init_producer_id()
    batches = [sequenced(producer, n, b"%d" % n) for n in range(8)]
    for batch in batches:
        raw.produce(topic, batch)
    answer = raw.produce(topic, batches[0])
    assert answer["error"] in (wire.DUPLICATE_SEQUENCE_NUMBER, wire.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert len(content(raw, topic)) == 8


def test_a_gap_is_refused(raw, topic):
    raw.make_topic(topic)
    producer = raw.init_producer_id()
    assert raw.produce(topic, sequenced(producer, 0, b"0"))["error"] == 0
    assert raw.produce(topic, sequenced(producer, 2, b"2"))["error"] == wire.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert raw.produce(topic, sequenced(producer, 1, b"1"))["base"] == 1
    assert content(raw, topic) == [b"0", b"1"]


def test_epochs(raw, topic):
    """A newer epoch begins at sequence 0 and fences the older one."""
    raw.make_topic(topic)
    producer = raw.init_producer_id()
    assert raw.produce(topic, sequenced(producer, 0, b"0"))["error"] == 0
    assert raw.produce(topic, sequenced(producer, 5, b"x", epoch=1))["error"] == wire.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert raw.produce(topic, sequenced(producer, 0, b"1", epoch=1))["base"] == 1
    assert raw.produce(topic, sequenced(producer, 1, b"y", epoch=0))["error"] == wire.INVALID_PRODUCER_EPOCH
    assert content(raw, topic) == [b"0", b"1"]


def test_producer_ids_differ(broker):
    seen = set()
    for _ in range(3):
        with wire.Connection(broker.port) as raw:
            seen |= {raw.init_producer_id()[0] for _ in range(20)}
    assert len(seen) == 60


def test_partitions_count_apart(raw, topic):
    raw.make_topic(topic, 2)
    producer = raw.init_producer_id()
    for partition in (0, 1):
        answer = raw.produce(topic, sequenced(producer, 0, b"x"), partition=partition)
        assert (answer["error"], answer["base"]) == (0, 0)


# Sizes.


@pytest.mark.parametrize("codec", ["none"])
def test_max_message_bytes_to_the_byte(raw, topic, codec):
    limit = 5000
    raw.make_topic(topic, configs={"max.message.bytes": str(limit)})
    overhead = len(encode_batch([(b"k", b"v" * 4000)])) - 4000
    fits = encode_batch([(b"k", b"v" * (limit - overhead))])
    assert len(fits) == limit
    assert raw.produce(topic, fits)["error"] == 0
    assert raw.produce(topic, encode_batch([(b"k", b"v" * (limit - overhead + 1))]))["error"] == wire.MESSAGE_TOO_LARGE
    assert len(content(raw, topic)) == 1


def test_the_default_limit(raw, topic):
    raw.make_topic(topic)
    assert raw.produce(topic, encode_batch([(b"k", b"v" * 1_048_400)]))["error"] == 0
    assert raw.produce(topic, encode_batch([(b"k", b"v" * 1_048_588)]))["error"] == wire.MESSAGE_TOO_LARGE


# Timestamps.


def test_timestamps_before_and_after_the_bounds(raw, topic):
    raw.make_topic(
        topic, configs={"message.timestamp.after.max.ms": "60000", "message.timestamp.before.max.ms": "60000"}
    )
    now = int(time.time() * 1000)
    assert raw.produce(topic, encode_batch(ONE, first_ms=now))["error"] == 0
    for wrong in (now + 120_000, now - 120_000):
        answer = raw.produce(topic, encode_batch([(b"k", b"v", (), now), (b"k", b"v", (), wrong)], first_ms=now))
        assert answer["error"] == wire.INVALID_TIMESTAMP
        assert [index for index, _ in answer["errors"]] == [1]
    assert len(content(raw, topic)) == 1


def test_an_hour_ahead_is_the_default_bound(raw, topic):
    raw.make_topic(topic)
    now = int(time.time() * 1000)
    assert raw.produce(topic, encode_batch(ONE, first_ms=now + 3_500_000))["error"] == 0
    assert raw.produce(topic, encode_batch(ONE, first_ms=now + 3_700_000))["error"] == wire.INVALID_TIMESTAMP


def test_log_append_time(client, broker, raw, topic):
    raw.make_topic(topic, configs={"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    answer = raw.produce(topic, encode_batch([(b"k", b"v")] * 3, first_ms=5))
    after = int(time.time() * 1000)
    assert answer["error"] == 0
    assert before <= answer["append_ms"] <= after
    batch = decode_batches(raw.fetch_one(topic, 0)["data"])[0]
    assert batch.attributes & 8
    assert batch.max_ms == answer["append_ms"]
    assert raw.list_offsets(topic, answer["append_ms"])[:3] == (0, answer["append_ms"], 0)
    for reader in ("java", "confluent", "franz-go", "kafka-python", "aiokafka"):
        seen = client(reader, broker).fetch(topic, 0, 0, 3)
        assert {(r.timestamp, r.timestamp_type) for r in seen} == {(answer["append_ms"], "LogAppendTime")}, reader
    for writer in ("java", "confluent", "kafka-python", "kafkajs", "franz-go"):
        client(writer, broker).produce(topic, [Record(b"k", b"v", timestamp=HOUR_AGO_MS)], codec="gzip")
    assert all(b.max_ms >= before for b in decode_batches(raw.fetch_one(topic, 0)["data"]))


def test_no_timestamp(raw, topic):
    """-1 means that the client gave none."""
    raw.make_topic(topic)
    assert raw.produce(topic, encode_batch(ONE, first_ms=-1))["error"] == 0
    assert raw.read_all(topic)[0][1] == -1


# Compacted topics.


def test_a_compacted_topic_wants_keys(raw, topic):
    raw.make_topic(topic, configs={"cleanup.policy": "compact"})
    answer = raw.produce(topic, encode_batch([(b"k", b"v"), (None, b"v"), (b"k", None)]))
    assert answer["error"] == wire.INVALID_RECORD
    assert [index for index, _ in answer["errors"]] == [1]
    assert raw.produce(topic, encode_batch([(b"k", b"v"), (b"k", None), (b"", b"empty")]))["error"] == 0
    zipped = gzip.compress(encode_record(None, b"v", offset_delta=0))
    assert raw.produce(topic, encode_batch(ONE, attributes=1, payload=zipped))["error"] == wire.INVALID_RECORD


# Broken batches. What a real Kafka answers, it answers without storing anything.

EVIL = {
    "corrupt-crc": (dict(crc=12345), wire.CORRUPT_MESSAGE),
    "magic-3": (dict(magic=3), None),
    "base-offset-7": (dict(base_offset=7), wire.INVALID_RECORD),
    "count-0": (dict(count=0, payload=b""), wire.INVALID_RECORD),
    "count-too-high": (dict(count=5), wire.INVALID_RECORD),
    "count-too-low": (dict(count=1, last_delta=0), wire.INVALID_RECORD),
    "count-negative": (dict(count=-5), wire.INVALID_RECORD),
    "last-delta-too-high": (dict(last_delta=99), wire.INVALID_RECORD),
    "control-batch": (dict(attributes=0x20), wire.INVALID_RECORD),
    "codec-5": (dict(attributes=5), None),
    "bad-record": (dict(payload=b"\x05\x00\x00\x00\x01\x01" * 2), None),
    "transactional-without-id": (dict(attributes=0x10), None),
}


@pytest.mark.parametrize("case", EVIL)
def test_a_broken_batch_is_refused(broker, raw, topic, case):
    raw.make_topic(topic)
    bent, error = EVIL[case]
    batch = encode_batch([(b"k", b"v"), (b"k", b"w")], **bent)
    try:
        answer = raw.produce(topic, batch)["error"]
    except wire.Closed:
        answer = "closed"
    print(case, answer)
    assert answer != 0
    if error:
        assert answer == error
    with wire.Connection(broker.port) as other:
        assert other.list_offsets(topic, -1)[2] == 0
        assert other.produce(topic, encode_batch(ONE))["base"] == 0


@pytest.mark.parametrize(
    "codec,garbage", [(1, b"not gzip"), (2, b"\xff\xff\xff\xff\xff"), (3, b"not lz4"), (4, b"not zstd")]
)
@pytest.mark.parametrize("depth", ["full"])
def test_undecodable_content(raw, topic, codec, garbage, depth):
    raw.make_topic(topic)
    answer = raw.produce(topic, encode_batch(ONE, attributes=codec, payload=garbage))
    print(codec, answer["error"])
    if answer["error"] == 0:
        pytest.skip("this topic is set to check headers only")
    assert raw.list_offsets(topic, -1)[2] == 0


def test_cut_batches_and_empty_ones(broker, raw, topic):
    raw.make_topic(topic)
    batch = encode_batch(ONE)
    for data in (batch[:-3], batch[:30], b"\0" * 61):
        with wire.Connection(broker.port) as other:
            try:
                answer = other.produce(topic, data)["error"]
            except wire.Closed:
                answer = "closed"
            print(len(data), answer)
            assert answer != 0
    assert raw.list_offsets(topic, -1)[2] == 0


def test_two_batches_in_one_partition(raw, topic):
    """Format 2 allows one batch per partition and request."""
    raw.make_topic(topic)
    answer = raw.produce(topic, encode_batch(ONE) + encode_batch(ONE))
    assert answer["error"] == wire.INVALID_RECORD
    assert content(raw, topic) == []


@pytest.mark.strandline
def test_no_batch_at_all(broker, raw, topic):
    """An answer or a closed connection; a real Kafka leaves the client waiting."""
    raw.make_topic(topic)
    for data in (None, b""):
        body = wire.string(None) + pack("hi", -1, 20000)
        body += wire.array([wire.string(topic) + wire.array([pack("i", 0) + wire.blob(data)])])
        with wire.Connection(broker.port, timeout_s=5) as other:
            try:
                assert other.receive_produce(other.send(wire.PRODUCE, 8, body))[0]["error"] != 0
            except wire.Closed:
                pass


def test_one_bad_partition_spares_the_others(raw, topic):
    raw.make_topic(topic, 2)
    answers = raw.receive_produce(raw.send_produce(topic, {0: encode_batch(ONE, crc=1), 1: encode_batch(ONE)}))
    assert (answers[0]["error"], answers[1]["error"]) == (wire.CORRUPT_MESSAGE, 0)


def test_recompression(client, broker, raw, topic):
    """`compression.type` other than `producer` recompresses, or is refused when it is set."""
    error = raw.create_topic(topic, configs={"compression.type": "gzip"})
    if error == wire.INVALID_CONFIG:
        return
    assert error == 0
    wait_until(lambda: raw.list_offsets(topic, -1)[0] == 0, 10, "the topic")
    raw.produce(topic, encode_batch([(b"k", b"v" * 100)] * 10))
    assert decode_batches(raw.fetch_one(topic, 0)["data"])[0].attributes & 7 == 1
    assert [r.value for r in client("confluent", broker).fetch(topic, 0, 0, 10)] == [b"v" * 100] * 10


@pytest.mark.strandline
def test_the_largest_timestamp_beside_a_duplicate(launch, topic):
    """Three batches leave in one flush, and the one in the middle was there already: the two others are still told apart."""
    broker = launch(own={"produce": {"flush_interval_ms": 300}})
    with wire.Connection(broker.port) as raw:
        raw.make_topic(topic)

        def batch(age_ms, **options):
            return encode_batch([(b"k", b"v")], first_ms=HOUR_AGO_MS - age_ms, **options)

        known = batch(9000, producer=(*raw.init_producer_id(), 0))
        assert raw.produce(topic, known)["base"] == 0
        first = raw.send_produce(topic, {0: batch(8000)})  # leaves at once; the others wait for the next flush
        sent = [raw.send_produce(topic, {0: b}) for b in (batch(7000), known, batch(0))]
        assert [raw.receive_produce(s)[0]["base"] for s in [first, *sent]] == [1, 2, 0, 3]
    place, admin = TopicPartition(topic, 0), AdminClient({"bootstrap.servers": broker.bootstrap})
    found = admin.list_offsets({place: OffsetSpec.max_timestamp()})[place].result(10)
    assert (found.timestamp, found.offset) == (HOUR_AGO_MS, 3)
