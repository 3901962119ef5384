"""Each client writes with each codec; itself and the others read: offsets, keys, values, headers, timestamps."""

import time

import pytest

from harness import wire
from harness.clients import ALL, NAMES, Failure
from harness.records import CODECS, Record, sample

COUNT = 40
CASES = [(writer, codec) for writer in NAMES for codec in CODECS if codec in ALL[writer].codecs]
# Every other codec of each client in turn; the full matrix has them all.
QUICK = [(w, c) for w, c in CASES if (NAMES.index(w) + CODECS.index(c)) % 2 == 0]
QUICK_READERS = [n for n in NAMES if n not in ("console", "java")]  # one JVM start per step is too slow for all of CI


def wanted(writer, seed) -> list[Record]:
    """Records of every shape that `writer` can write."""
    can = ALL[writer]
    records = sample(COUNT, seed=seed, timestamps=can.timestamps, duplicates=can.duplicate_headers)
    if writer == "kcat":  # one process per change of headers
        records = [
            Record(r.key, r.value, (("trace", b"t"), ("other", b"o")) if i >= COUNT // 2 else ())
            for i, r in enumerate(records)
        ]
    if not can.null_records:
        records = [r if r.key or r.value else Record(r.key, b"v", r.headers, r.timestamp, r.partition) for r in records]
    if not can.empty_values:
        records = [Record(r.key, r.value or None, r.headers, r.timestamp, r.partition) for r in records]
    if can.null_headers:
        last = records[-1]
        records[-1] = Record(last.key, last.value, (("nothing", None), ("empty", b"")), last.timestamp, last.partition)
    return records


def same_headers(writer, reader, expected, seen):
    if ALL[writer].interleaves_headers and ALL[reader].interleaves_headers:
        return expected == seen
    return sorted(expected, key=lambda h: h[0]) == sorted(seen, key=lambda h: h[0])  # stable: order within a name


def check(writer, reader, expected, seen, first_offset, written_between):
    assert len(seen) == len(expected), f"{reader} read {len(seen)} of {len(expected)}"
    for index, (want, got) in enumerate(zip(expected, seen)):
        where = f"{reader}, record {index}"
        assert got.offset == first_offset + index, where
        assert got.key == want.key, where
        assert got.value == want.value, where
        assert same_headers(writer, reader, want.headers, got.headers), (
            f"{where}: {got.headers}, expected {want.headers}"
        )
        if want.timestamp is not None:
            assert got.timestamp == want.timestamp, where
        else:
            assert written_between[0] <= got.timestamp <= written_between[1], where
        if ALL[reader].says_timestamp_type:
            assert got.timestamp_type == "CreateTime", where


def stored_codecs(broker, topic) -> set[int]:
    with wire.Connection(broker.port) as connection:
        return {b.attributes & 7 for b in wire.decode_batches(connection.fetch_one(topic, 0)["data"])}


def readers_for(writer, codec, store):
    """Itself, the Java consumer, and one of the others in turn, so that each pair meets in some codec or store."""
    turn = QUICK_READERS[
        (NAMES.index(writer) + CODECS.index(codec) + (3 if store == "minio" else 0)) % len(QUICK_READERS)
    ]
    return list(dict.fromkeys([writer, "java", turn]))


@pytest.mark.parametrize("writer,codec", QUICK, ids=[f"{w}-{c}" for w, c in QUICK])
def test_matrix(store, broker, client, topic, writer, codec):
    write_and_read(broker, client, topic, writer, codec, readers_for(writer, codec, store))


@pytest.mark.nightly
@pytest.mark.parametrize("writer,codec", CASES, ids=[f"{w}-{c}" for w, c in CASES])
def test_full_matrix(store, broker, client, topic, writer, codec):
    write_and_read(broker, client, topic, writer, codec, NAMES)


def write_and_read(broker, client, topic, writer, codec, readers):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    expected = wanted(writer, seed=CODECS.index(codec))
    began = int(time.time() * 1000) - 1
    placed = client(writer, broker).produce(topic, expected, codec=codec)
    ended = int(time.time() * 1000) + 1
    if placed is not None:
        assert placed == [(0, i) for i in range(COUNT)]
    assert CODECS.index(codec) in stored_codecs(broker, topic), "the codec did not reach the store"
    for reader in readers:
        check(writer, reader, expected, client(reader, broker).fetch(topic, 0, 0, COUNT), 0, (began, ended))


@pytest.mark.parametrize("writer", NAMES)
def test_second_write_follows_the_first(broker, client, topic, writer):
    """Offsets go on where they were; a read may begin anywhere."""
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    for part in range(2):
        records = [Record(b"k", f"{part}-{i}".encode()) for i in range(10)]
        placed = client(writer, broker).produce(topic, records, codec="none")
        if placed is not None:
            assert placed == [(0, part * 10 + i) for i in range(10)]
    seen = client("confluent" if writer != "confluent" else "franz-go", broker).fetch(topic, 0, 7, 13)
    assert [(r.offset, r.value) for r in seen] == [(n, f"{n // 10}-{n % 10}".encode()) for n in range(7, 20)]


@pytest.mark.parametrize("writer", [n for n in NAMES if n not in ("console",)])
def test_partitions_are_kept_apart(broker, client, topic, writer):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 5)
    records = [Record(None, f"{n}".encode(), partition=n % 5) for n in range(50)]
    if writer == "kcat":
        records.sort(key=lambda r: r.partition)
    client(writer, broker).produce(topic, records, codec="none")
    with wire.Connection(broker.port) as connection:
        for partition in range(5):
            values = [int(r[3]) for r in connection.read_all(topic, partition=partition)]
            assert values == list(range(partition, 50, 5))


@pytest.mark.parametrize("writer", ["java", "console", "confluent", "kafka-python", "aiokafka", "kafkajs", "franz-go"])
def test_idempotent_producer(broker, client, topic, writer):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    records = [Record(b"k", f"{n}".encode()) for n in range(100)]
    client(writer, broker).produce(topic, records, codec="none", idempotent=True)
    with wire.Connection(broker.port) as connection:
        answer = connection.fetch_one(topic, 0)
        batches = wire.decode_batches(answer["data"])
        assert [r[3] for b in batches for r in b.records()] == [r.value for r in records]
        assert all(b.producer[0] >= 0 for b in batches), "the producer was not idempotent"
        sequence = 0
        for batch in batches:
            assert batch.producer[2] == sequence
            sequence += batch.count


@pytest.mark.parametrize("acks", [0, 1])
@pytest.mark.parametrize("writer", ["java", "confluent", "kafka-python", "kafkajs", "franz-go"])
def test_fewer_acks(broker, client, topic, writer, acks):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
    client(writer, broker).produce(topic, [Record(b"k", b"v")], acks=acks)
    assert client("confluent", broker).fetch(topic, 0, 0, 1)[0].value == b"v"


@pytest.mark.parametrize(
    "writer", ["java", "confluent", "kafka-python", "aiokafka", "kafkajs", "franz-go", "console", "kcat"]
)
def test_topics_come_by_themselves(broker, client, topic, writer):
    """auto.create.topics.enable, as each client triggers it."""
    client(writer, broker).produce(topic, [Record(b"k", b"v")])
    assert client("confluent", broker).fetch(topic, 0, 0, 1)[0].value == b"v"


@pytest.mark.parametrize("reader", ["java", "confluent", "franz-go"])
def test_offset_beyond_the_end_is_an_error(broker, client, topic, reader):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic)
        connection.produce(topic, wire.encode_batch([(b"k", b"v")]))
        assert connection.fetch_one(topic, 2)["error"] == wire.OFFSET_OUT_OF_RANGE
        assert connection.fetch_one(topic, 1)["error"] == 0
    if reader == "franz-go":  # resets to the configured start by itself
        assert client(reader, broker).fetch(topic, 0, 99, 1)[0].offset == 0
    else:
        with pytest.raises(Failure, match="(?i)out.of.range"):
            client(reader, broker).fetch(topic, 0, 99, 1, timeout_s=10)
