"""A small Kafka client on a raw socket, to send what no real client would and to see the bytes that come back.

Versions are the last before the flexible encoding, so that one reader and one writer do; the real clients cover the rest.
"""

import itertools
import socket
import struct
import time
from dataclasses import dataclass

from crc32c import crc32c

from .records import HOUR_AGO_MS

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
OFFSET_FETCH = 9
CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID, EPOCH_END, CREATE_PARTITIONS = 19, 20, 21, 22, 23, 37

NONE = 0
OFFSET_OUT_OF_RANGE = 1
CORRUPT_MESSAGE = 2
UNKNOWN_TOPIC_OR_PARTITION = 3
MESSAGE_TOO_LARGE = 10
COORDINATOR_LOAD_IN_PROGRESS = 14
INVALID_TOPIC = 17
INVALID_REQUIRED_ACKS = 21
INVALID_TIMESTAMP = 32
UNSUPPORTED_VERSION = 35
TOPIC_ALREADY_EXISTS = 36
INVALID_PARTITIONS = 37
INVALID_CONFIG = 40
INVALID_REQUEST = 42
UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
DUPLICATE_SEQUENCE_NUMBER = 46
INVALID_PRODUCER_EPOCH = 47
UNKNOWN_PRODUCER_ID = 59
FETCH_SESSION_ID_NOT_FOUND = 70
INVALID_FETCH_SESSION_EPOCH = 71
FENCED_LEADER_EPOCH = 74
UNKNOWN_LEADER_EPOCH = 75
INVALID_RECORD = 87


def string(text) -> bytes:
    if text is None:
        return b"\xff\xff"
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def blob(data) -> bytes:
    return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data


def array(items, encode=lambda item: item) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(encode(i) for i in items)


def pack(form, *values) -> bytes:
    return struct.pack(">" + form, *values)


def varint(value) -> bytes:
    return uvarint((value << 1) ^ (value >> 63))


def uvarint(value) -> bytes:
    out = bytearray()
    while value & ~0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def unpack(self, form):
        values = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def take(self, length) -> bytes:
        assert self.at + length <= len(self.data), f"wanted {length} bytes at {self.at} of {len(self.data)}"
        self.at += length
        return self.data[self.at - length : self.at]

    def string(self):
        length = self.unpack("h")
        return None if length < 0 else self.take(length).decode()

    def blob(self):
        length = self.unpack("i")
        return None if length < 0 else self.take(length)

    def array(self, decode):
        return [decode() for _ in range(self.unpack("i"))]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def done(self) -> bool:
        return self.at == len(self.data)


# Record batches, format version 2.


def encode_record(key, value, *, offset_delta, timestamp_delta=0, headers=()) -> bytes:
    def field(data):
        return varint(-1) if data is None else varint(len(data)) + data

    body = b"\0" + varint(timestamp_delta) + varint(offset_delta) + field(key) + field(value) + varint(len(headers))
    for name, content in headers:
        body += varint(len(name)) + name.encode() + field(content)
    return varint(len(body)) + body


def encode_batch(
    records,
    *,
    first_ms=HOUR_AGO_MS,
    max_ms=None,
    producer=(-1, -1, -1),
    attributes=0,
    base_offset=0,
    leader_epoch=-1,
    magic=2,
    count=None,
    last_delta=None,
    payload=None,
    crc=None,
) -> bytes:
    """A batch of (key, value[, headers[, timestamp]]) with any field of the header bent as the caller likes."""
    encoded, latest = [], first_ms
    for delta, record in enumerate(records):
        key, value, headers, at = (*record, *((), first_ms)[len(record) - 2 :])
        latest = max(latest, at)
        encoded.append(encode_record(key, value, offset_delta=delta, timestamp_delta=at - first_ms, headers=headers))
    body = b"".join(encoded) if payload is None else payload
    count = len(records) if count is None else count
    last_delta = count - 1 if last_delta is None else last_delta
    max_ms = latest if max_ms is None else max_ms
    summed = pack("hiqqqhii", attributes, last_delta, first_ms, max_ms, *producer, count) + body
    checksum = crc32c(summed) if crc is None else crc
    after_length = pack("ib", leader_epoch, magic) + pack("I", checksum) + summed
    return pack("qi", base_offset, len(after_length)) + after_length


@dataclass(frozen=True)
class Batch:
    base_offset: int
    leader_epoch: int
    magic: int
    attributes: int
    last_delta: int
    first_ms: int
    max_ms: int
    producer: tuple
    count: int
    payload: bytes
    size: int

    @property
    def last_offset(self):
        return self.base_offset + self.last_delta

    def records(self):
        """(offset, timestamp, key, value, headers); only of uncompressed batches."""
        assert self.attributes & 7 == 0, "compressed"
        reader = Reader(self.payload)

        def field():
            length = reader.varint()
            return None if length < 0 else reader.take(length)

        for _ in range(self.count):
            reader.varint()
            reader.take(1)
            at, delta, key, value = reader.varint(), reader.varint(), field(), field()
            headers = tuple((reader.take(reader.varint()).decode(), field()) for _ in range(reader.varint()))
            yield self.base_offset + delta, self.first_ms + at, key, value, headers


def decode_batches(data: bytes) -> list[Batch]:
    """The whole batches in `data`, each with its checksum verified; a cut one at the end is left out, as clients do."""
    found, at = [], 0
    while at + 12 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        epoch, magic, checksum = struct.unpack_from(">ibI", data, at + 12)
        assert magic == 2, f"magic {magic}"
        assert crc32c(data[at + 21 : end]) == checksum, f"CRC of the batch at offset {base}"
        attributes, delta, first, latest, *producer, count = struct.unpack_from(">hiqqqhii", data, at + 21)
        found.append(
            Batch(
                base,
                epoch,
                magic,
                attributes,
                delta,
                first,
                latest,
                tuple(producer),
                count,
                data[at + 61 : end],
                end - at,
            )
        )
        at = end
    return found


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class Connection:
    """One connection. Requests and answers can also be sent and received apart, to pipeline."""

    def __init__(self, port, *, host="127.0.0.1", timeout_s=20.0, client_id="wire"):
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client_id = client_id
        self.ids = itertools.count(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, api, version, body: bytes) -> int:
        """Sends a request with a header of version 1; its correlation id."""
        correlation = next(self.ids)
        frame = pack("hhi", api, version, correlation) + string(self.client_id) + body
        self.socket.sendall(pack("i", len(frame)) + frame)
        return correlation

    def receive(self, correlation=None) -> Reader:
        reader = Reader(self.read_frame())
        seen = reader.unpack("i")
        assert correlation is None or seen == correlation, f"correlation id {seen}, expected {correlation}"
        return reader

    def read_frame(self) -> bytes:
        return self.read(struct.unpack(">i", self.read(4))[0])

    def read(self, length) -> bytes:
        data = b""
        while len(data) < length:
            try:
                more = self.socket.recv(length - len(data))
            except (ConnectionResetError, BrokenPipeError) as error:
                raise Closed from error
            if not more:
                raise Closed
            data += more
        return data

    def call(self, api, version, body: bytes) -> Reader:
        return self.receive(self.send(api, version, body))

    def api_versions(self) -> dict[int, tuple[int, int]]:
        reader = self.call(API_VERSIONS, 0, b"")
        error = reader.unpack("h")
        assert error == 0, f"ApiVersions: error {error}"
        return {key: (low, high) for key, low, high in reader.array(lambda: reader.unpack("hhh"))}

    def metadata(self, topics, *, create=False) -> dict:
        """Version 7; `topics` None asks for all."""
        names = pack("i", -1) if topics is None else array(topics, string)
        reader = self.call(METADATA, 7, names + pack("?", create))
        reader.unpack("i")
        brokers = reader.array(lambda: (reader.unpack("i"), reader.string(), reader.unpack("i"), reader.string()))
        cluster, controller = reader.string(), reader.unpack("i")

        def ints():
            return reader.array(lambda: reader.unpack("i"))

        def partition():
            error, index, leader, epoch = reader.unpack("hiii")
            return {
                "error": error,
                "partition": index,
                "leader": leader,
                "epoch": epoch,
                "replicas": ints(),
                "isr": ints(),
                "offline": ints(),
            }

        def topic():
            error, name, internal = reader.unpack("h"), reader.string(), reader.unpack("?")
            return name, {"error": error, "internal": internal, "partitions": reader.array(partition)}

        found = dict(reader.array(topic))
        assert reader.done()
        return {"brokers": brokers, "cluster": cluster, "controller": controller, "topics": found}

    def create_topic(self, name, partitions=1, *, replicas=1, configs=None, validate_only=False) -> int:
        """Version 4; the error code."""
        entries = array(list((configs or {}).items()), lambda c: string(c[0]) + string(c[1]))
        topic = string(name) + pack("ih", partitions, replicas) + pack("i", 0) + entries
        reader = self.call(CREATE_TOPICS, 4, array([topic]) + pack("i?", 20000, validate_only))
        reader.unpack("i")
        [(_, error, _)] = reader.array(lambda: (reader.string(), reader.unpack("h"), reader.string()))
        return error

    def make_topic(self, name, partitions=1, *, configs=None):
        """Creates a topic and waits until its leader serves it: a real Kafka answers before the broker knows it."""
        error = self.create_topic(name, partitions, configs=configs)
        assert error == 0, f"CreateTopics: error {error}"
        deadline = time.monotonic() + 10
        for partition in range(partitions):
            while error := self.list_offsets(name, -1, partition=partition)[0]:
                assert time.monotonic() < deadline, f"{name}-{partition} is not served: error {error}"
                time.sleep(0.01)

    def delete_topic(self, name) -> int:
        reader = self.call(DELETE_TOPICS, 3, array([name], string) + pack("i", 20000))
        reader.unpack("i")
        [(_, error)] = reader.array(lambda: (reader.string(), reader.unpack("h")))
        return error

    def init_producer_id(self) -> tuple[int, int]:
        """Waits while a fresh Kafka loads its coordinator."""
        deadline = time.monotonic() + 10
        while True:
            reader = self.call(INIT_PRODUCER_ID, 1, string(None) + pack("i", 60000))
            _, error, producer, epoch = reader.unpack("ihqh")
            if error == 0:
                return producer, epoch
            assert error == COORDINATOR_LOAD_IN_PROGRESS and time.monotonic() < deadline, (
                f"InitProducerId: error {error}"
            )
            time.sleep(0.05)

    def send_produce(self, topic, batches: dict[int, bytes], *, acks=-1, version=8, timeout_ms=20000) -> int:
        partitions = array(list(batches.items()), lambda p: pack("i", p[0]) + blob(p[1]))
        body = string(None) + pack("hi", acks, timeout_ms) + array([string(topic) + partitions])
        return self.send(PRODUCE, version, body)

    def receive_produce(self, correlation, *, version=8) -> dict[int, dict]:
        reader = self.receive(correlation)

        def partition():
            index, error, base, append_ms, start = reader.unpack("ihqqq")
            errors, message = [], None
            if version >= 8:
                errors = reader.array(lambda: (reader.unpack("i"), reader.string()))
                message = reader.string()
            return index, {
                "error": error,
                "base": base,
                "append_ms": append_ms,
                "start": start,
                "errors": errors,
                "message": message,
            }

        [found] = reader.array(lambda: (reader.string(), dict(reader.array(partition)))[1])
        reader.unpack("i")
        assert reader.done()
        return found

    def produce(self, topic, batch: bytes, *, partition=0, acks=-1, version=8) -> dict:
        """One batch to one partition, versions 5 to 8."""
        return self.receive_produce(
            self.send_produce(topic, {partition: batch}, acks=acks, version=version), version=version
        )[partition]

    def fetch(
        self,
        topics: dict[str, dict[int, int]],
        *,
        max_wait_ms=0,
        min_bytes=1,
        max_bytes=50 << 20,
        partition_bytes=1 << 20,
        session=(0, -1),
        forget=None,
        epoch=-1,
    ) -> dict:
        """Version 11; `topics` gives per topic and partition the offset."""
        return self.receive_fetch(
            self.send_fetch(
                topics,
                max_wait_ms=max_wait_ms,
                min_bytes=min_bytes,
                max_bytes=max_bytes,
                partition_bytes=partition_bytes,
                session=session,
                forget=forget,
                epoch=epoch,
            )
        )

    def send_fetch(self, topics, *, max_wait_ms, min_bytes, max_bytes, partition_bytes, session, forget, epoch) -> int:
        def partition(item):
            return pack("iiqqi", item[0], epoch, item[1], -1, partition_bytes)

        def topic(item):
            return string(item[0]) + array(list(item[1].items()), partition)

        forgotten = array(list((forget or {}).items()), lambda f: string(f[0]) + array(f[1], lambda p: pack("i", p)))
        head = pack("iiiibii", -1, max_wait_ms, min_bytes, max_bytes, 0, *session)
        return self.send(FETCH, 11, head + array(list(topics.items()), topic) + forgotten + string(""))

    def receive_fetch(self, correlation) -> dict:
        reader = self.receive(correlation)
        _, error, session = reader.unpack("ihi")

        def partition():
            index, failed, high, stable, start = reader.unpack("ihqqq")
            aborted = [reader.unpack("qq") for _ in range(max(0, reader.unpack("i")))]
            preferred, data = reader.unpack("i"), reader.blob()
            return index, {
                "error": failed,
                "high": high,
                "stable": stable,
                "start": start,
                "aborted": aborted,
                "preferred": preferred,
                "data": data or b"",
            }

        topics = dict(reader.array(lambda: (reader.string(), dict(reader.array(partition)))))
        assert reader.done()
        return {"error": error, "session": session, "topics": topics}

    def fetch_one(self, topic, offset, *, partition=0, **options) -> dict:
        answer = self.fetch({topic: {partition: offset}}, **options)
        assert answer["error"] == 0, f"Fetch: error {answer['error']}"
        return answer["topics"][topic][partition]

    def list_offsets(self, topic, timestamp, *, partition=0, epoch=-1) -> tuple[int, int, int, int]:
        """Version 5: (error, timestamp, offset, leader epoch); -1 is the latest, -2 the earliest."""
        body = pack("ib", -1, 0) + array([string(topic) + array([pack("iiq", partition, epoch, timestamp)])])
        reader = self.call(LIST_OFFSETS, 5, body)
        reader.unpack("i")
        [[(_, error, at, offset, leader)]] = reader.array(
            lambda: (reader.string(), reader.array(lambda: reader.unpack("ihqqi")))[1]
        )
        return error, at, offset, leader

    def epoch_end(self, topic, epoch, *, partition=0, current=-1) -> tuple[int, int, int]:
        """OffsetForLeaderEpoch, version 3: (error, epoch, end offset)."""
        body = pack("i", -1) + array([string(topic) + array([pack("iii", partition, current, epoch)])])
        reader = self.call(EPOCH_END, 3, body)
        reader.unpack("i")
        [[(error, _, found, end)]] = reader.array(
            lambda: (reader.string(), reader.array(lambda: reader.unpack("hiiq")))[1]
        )
        return error, found, end

    def delete_records(self, topic, before, *, partition=0) -> tuple[int, int]:
        """Version 1: (error, low watermark)."""
        reader = self.call(
            DELETE_RECORDS, 1, array([string(topic) + array([pack("iq", partition, before)])]) + pack("i", 20000)
        )
        reader.unpack("i")
        [[(_, low, error)]] = reader.array(lambda: (reader.string(), reader.array(lambda: reader.unpack("iqh")))[1])
        return error, low

    def read_all(self, topic, *, partition=0, offset=0) -> list:
        """Every record of uncompressed batches up to the high watermark."""
        found, patience = [], time.monotonic() + 15
        while True:
            answer = self.fetch_one(topic, offset, partition=partition, max_wait_ms=200)
            assert answer["error"] == 0, answer["error"]
            batches = decode_batches(answer["data"])
            if not batches:
                if offset >= answer["high"]:
                    return found
                # A broker without room for an answer may send an empty one.
                assert time.monotonic() < patience, f"no data at {offset} below {answer['high']}"
                continue
            for batch in batches:
                found.extend(r for r in batch.records() if r[0] >= offset)
            offset = batches[-1].last_offset + 1
            if offset >= answer["high"]:
                return found
