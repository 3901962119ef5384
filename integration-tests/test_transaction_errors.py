"""What a raw client is told about transactions in each state, beside a real Kafka: scripts/transactions.txt.

The script is written anew with `TEST_WRITE=1 pytest --broker kafka test_transaction_errors.py`, read, and committed.
"""

import os
import time
from pathlib import Path

import pytest

from harness import wire
from harness.wire import pack

SCRIPT = Path(__file__).parent / "scripts/transactions.txt"
ERRORS = {
    0: "done", 3: "UNKNOWN_TOPIC_OR_PARTITION", 22: "ILLEGAL_GENERATION", 25: "UNKNOWN_MEMBER_ID", 42: "INVALID_REQUEST",
    45: "OUT_OF_ORDER_SEQUENCE_NUMBER", 47: "INVALID_PRODUCER_EPOCH", 48: "INVALID_TXN_STATE",
    49: "INVALID_PRODUCER_ID_MAPPING", 50: "INVALID_TRANSACTION_TIMEOUT", 53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    55: "OPERATION_NOT_ATTEMPTED", 90: "PRODUCER_FENCED", 120: "TRANSACTION_ABORTABLE",
}  # fmt: skip
# Kafka is not ready, or at something else that Strandline does at once.
RETRIABLE = {14, 15, 16, 19, 51}
# Step: what Strandline says instead, on purpose (docs/compatibility.md).
OTHERWISE = {
    # A batch that is not transactional, of a producer that is, is never taken.
    "v2 send without the flag": "TRANSACTION_ABORTABLE",
    "v1 send without the flag": "TRANSACTION_ABORTABLE",
    # A commit that is sent again is answered again, also when the next transaction is open.
    "v2 commit again in the next": "done epoch 3",
    # One epoch fences the old instance and is the new one's.
    "v2 init while open": "done epoch 4",
    "v1 init while open": "done epoch 1",
    "v2 exchange": "done epoch 5",
    "v2 exchange again": "done epoch 5",
    "v1 exchange": "done epoch 2",
    "v1 exchange again": "done epoch 2",
    # A group is there when it has a member or an offset, not before.
    "v2 offsets of no member": "ILLEGAL_GENERATION",
    "v1 offsets of no member": "ILLEGAL_GENERATION",
}


def compact(text) -> bytes:
    return b"\0" if text is None else wire.uvarint(len(text) + 1) + text.encode()


class Raw:
    """The requests of a transactional producer in flexible versions."""

    def __init__(self, connection):
        self.connection = connection

    def ask(self, api, version, body, read):
        """Tries until the answer is no request to try again; `read` gives (error, answer)."""
        for _ in range(200):
            answer = self.connection.call(api, version, b"\0" + body + b"\0")
            answer.unpack("b")
            error, rest = read(answer)
            if error not in RETRIABLE:
                return ERRORS.get(error, str(error)), rest
            time.sleep(0.1)
        raise AssertionError(f"API {api} is never answered")

    def find(self, key, kind):
        def read(answer):
            answer.unpack("ib")
            answer.take(answer.unpack("b") - 1 + 4)
            answer.take(answer.unpack("b") - 1 + 4)
            return answer.unpack("h"), None

        self.ask(10, 4, pack("bb", kind, 2) + compact(key), read)

    def init(self, id, producer=(-1, -1), timeout_ms=60_000):
        body = compact(id) + pack("iqh", timeout_ms, *producer)
        return self.ask(22, 5, body, lambda a: (a.unpack("ih")[1], a.unpack("qh")))

    def end(self, id, producer, commit, version):
        body = compact(id) + pack("qhb", *producer, commit)
        return self.ask(26, version, body, lambda a: (a.unpack("ih")[1], a.unpack("qh") if version >= 5 else producer))

    def add(self, id, producer, topic, *partitions):
        def read(answer):
            answer.unpack("ib")
            answer.take(answer.unpack("b") - 1)
            errors = [answer.unpack("ihb")[1] for _ in range(answer.unpack("b") - 1)]
            return errors[-1], None

        listed = pack("b", len(partitions) + 1) + b"".join(pack("i", p) for p in partitions)
        return self.ask(24, 3, compact(id) + pack("qhb", *producer, 2) + compact(topic) + listed + b"\0", read)[0]

    def add_group(self, id, producer, group):
        return self.ask(25, 3, compact(id) + pack("qh", *producer) + compact(group), lambda a: (a.unpack("ih")[1], None))[0]

    def send(self, id, producer, sequence, topic, partition, version, attributes=0x10):
        def read(answer):
            answer.unpack("b")
            answer.take(answer.unpack("b") - 1)
            return answer.unpack("bih")[2], None

        now_ms = int(time.time() * 1000)
        batch = wire.encode_batch([(None, b"v")], producer=(*producer, sequence), attributes=attributes, first_ms=now_ms)
        data = pack("i", partition) + wire.uvarint(len(batch) + 1) + batch + b"\0"
        body = compact(id) + pack("hib", -1, 20_000, 2) + compact(topic) + b"\2" + data + b"\0"
        return self.ask(0, version, body, read)[0]

    def offsets(self, id, group, producer, topic, version, generation=-1, member=""):
        def read(answer):
            answer.unpack("ib")
            answer.take(answer.unpack("b") - 1)
            return answer.unpack("bih")[2], None

        data = pack("iqi", 2, 7, -1) + compact("") + b"\0"
        who = pack("qhi", *producer, generation) + compact(member) + compact(None)
        body = compact(id) + compact(group) + who + b"\2" + compact(topic) + b"\2" + data + b"\0"
        return self.ask(28, version, body, read)[0]


def story(raw, topic, version):
    """(step, answer) of one producer with this version of transactions."""
    id, end_version, send_version, offsets_version = f"{topic}-{version}", *((5, 12, 5) if version == 2 else (4, 11, 4))
    group = f"{id}-group"

    def said(answer):
        error, (_, epoch) = answer
        return f"done epoch {epoch}" if error == "done" else error

    def send(who, sequence, partition=0, **options):
        return raw.send(options.pop("id", id), who, sequence, topic, partition, send_version, **options)

    def end(who, commit, on=id):
        return raw.end(on, who, commit, end_version)

    def offsets(who, **options):
        return raw.offsets(id, group, who, topic, offsets_version, **options)

    first = raw.init(id)
    yield "init", said(first)
    me = first[1]
    yield "commit nothing", said(end(me, True))
    ended = end(me, False)
    yield "abort nothing", said(ended)
    me = ended[1] if ended[0] == "done" else me
    yield "send from sequence 5", send(me, 5)
    yield "send what was not added", send(me, 0)
    ended = end(me, False)
    yield "abort", said(ended)
    me = ended[1] if ended[0] == "done" else me
    before, behind, other = (me[0], me[1] - 1), (me[0], me[1] + 1), (me[0] + 1000, me[1])
    if version == 1:
        yield "add", raw.add(id, me, topic, 0)
    yield "add an unknown partition", raw.add(id, me, topic, 0, 9)
    yield "add with an old epoch", raw.add(id, before, topic, 0)
    yield "add with a future epoch", raw.add(id, behind, topic, 0)
    yield "add with another id", raw.add(id, other, topic, 0)
    yield "add of nobody", raw.add("nobody", me, topic, 0)
    yield "send", send(me, 0)
    yield "send again", send(me, 0)
    yield "send behind a gap", send(me, 5)
    yield "send with an old epoch", send(before, 1)
    yield "send with a future epoch", send(behind, 0)
    yield "send with an old epoch elsewhere", send(before, 0, partition=1)
    yield "send with another id", send(other, 0, partition=1)
    yield "send without the flag", send(me, 1, attributes=0)
    yield "send without a transactional id", send(me, 1, id=None)
    yield "commit with an old epoch", said(end(before, True))
    yield "commit with a future epoch", said(end(behind, True))
    yield "commit with another id", said(end(other, True))
    yield "commit of nobody", said(end(me, True, on="nobody"))
    if version == 1:
        yield "offsets of a group that was not added", offsets(me)
    yield "add a group", raw.add_group(id, me, group)
    yield "add a group with an old epoch", raw.add_group(id, before, group)
    yield "offsets", offsets(me)
    yield "offsets with an old epoch", offsets(before)
    yield "offsets of no member", offsets(me, generation=4, member="m")
    ended = end(me, True)
    yield "commit", said(ended)
    old, me = me, ended[1]
    yield "commit again", said(end(old, True))
    yield "abort what is committed", said(end(old, False))
    yield "send late", send(old, 1)
    if version == 1:
        yield "add to the next", raw.add(id, me, topic, 0)
    yield "send in the next", send(me, 0 if version == 2 else 1)
    if version == 2:
        yield "commit again in the next", said(end(old, True))
        yield "abort what is committed in the next", said(end(old, False))
    yield "exchange another id while open", said(raw.init(id, other))
    fenced, (error, me) = me, raw.init(id)
    yield "init while open", said((error, me))
    yield "commit of the fenced", said(end(fenced, True))
    yield "abort of the fenced", said(end(fenced, False))
    yield "send of the fenced", send(fenced, 1)
    yield "exchange", said(raw.init(id, me))
    yield "exchange again", said(raw.init(id, me))
    yield "exchange of the fenced", said(raw.init(id, fenced))
    yield "exchange of nobody", said(raw.init(f"{id}-new", me))
    yield "exchange without an epoch", said(raw.init(id, (me[0], -1)))
    yield "time-out of 0", said(raw.init(id, timeout_ms=0))
    yield "time-out above the limit", said(raw.init(id, timeout_ms=900_001))
    yield "init without a name", said(raw.init(""))


def test_k5_errors_are_those_of_kafka(request, broker, topic):
    kafka = request.config.getoption("--broker") == "kafka"
    with wire.Connection(broker.port, timeout_s=40) as connection:
        connection.make_topic(topic, 3)
        raw = Raw(connection)
        for version in (2, 1):
            raw.find(f"{topic}-{version}", 1)
            raw.find(f"{topic}-{version}-group", 0)
        steps = [(f"v{v} {step}", answer) for v in (2, 1) for step, answer in story(raw, topic, v)]
    if kafka and os.environ.get("TEST_WRITE"):
        SCRIPT.write_text("".join(f"{step}: {answer}\n" for step, answer in steps))
    expected = dict(line.split(": ") for line in SCRIPT.read_text().splitlines())
    if not kafka:
        expected.update(OTHERWISE)
    assert dict(steps) == expected
