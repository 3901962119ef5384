"""`__consumer_offsets` and lag: what monitors read, in Kafka's formats, by clients and tools of others."""

import json
import re
import struct
import subprocess
import time

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import InvalidTopicError
from kafka.structs import OffsetAndMetadata

from harness import broker as brokers
from harness import wire
from harness.clients.console import tool
from harness.processes import wait_until

OFFSETS = "__consumer_offsets"
PARTITIONS = 7


class Fields:
    """Reads Kafka's types one after another."""

    def __init__(self, data):
        self.data = data

    def take(self, form):
        (value,) = struct.unpack_from(form, self.data)
        self.data = self.data[struct.calcsize(form) :]
        return value

    def raw(self, length):
        taken, self.data = self.data[:length], self.data[length:]
        assert len(taken) == length
        return taken

    def text(self):
        length = self.take(">h")
        return None if length < 0 else self.raw(length).decode()

    def compact_text(self):
        length = self.take(">B")
        assert 0 < length < 128
        return self.raw(length - 1).decode()

    def bytes(self):
        return self.raw(self.take(">i"))


def decode(key, value):
    """The key as a tuple, the value as a dictionary."""
    key, value = Fields(key), value and Fields(value)
    version = key.take(">h")
    if version in (0, 1):
        named = ("offset", key.text(), key.text(), key.take(">i"))
        decoded = value and decode_offset(value)
    elif version == 2:
        named = ("group", key.text())
        decoded = value and decode_group(value)
    else:
        return None, None
    assert not key.data
    return named, decoded


def decode_offset(value):
    version = value.take(">h")
    # Kafka 4.3 writes version 4, which is 3 with the topic's id behind it.
    assert version in (3, 4)
    offset = {"offset": value.take(">q"), "epoch": value.take(">i")}
    offset["metadata"] = value.text() if version == 3 else value.compact_text()
    offset["ms"] = value.take(">q")
    assert version == 4 or not value.data
    return offset


def decode_group(value):
    assert value.take(">h") == 3
    group = {"type": value.text(), "generation": value.take(">i"), "protocol": value.text(), "leader": value.text()}
    group["ms"] = value.take(">q")
    member = lambda: {
        "id": value.text(),
        "instance": value.text(),
        "client": value.text(),
        "host": value.text(),
        "rebalance_ms": value.take(">i"),
        "session_ms": value.take(">i"),
        "subscription": value.bytes(),
        "assignment": value.bytes(),
    }
    group["members"] = [member() for _ in range(value.take(">i"))]
    assert not value.data
    return group


def hash_partition(group):
    """Kafka's choice: Java's hash of the text."""
    value = 0
    for unit in struct.unpack(f">{len(group)}H", group.encode("utf-16-be")):
        value = (31 * value + unit) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >> 31 else value
    return 0 if signed == -(1 << 31) else abs(signed) % PARTITIONS


class Tail:
    """Reads the topic as monitors do, by assignment."""

    def __init__(self, broker):
        self.consumer = KafkaConsumer(
            bootstrap_servers=broker.bootstrap, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False,
            exclude_internal_topics=False,
        )  # fmt: skip
        wait_until(lambda: len(self.consumer.partitions_for_topic(OFFSETS) or ()) == PARTITIONS, 20, "the topic")
        self.consumer.assign([TopicPartition(OFFSETS, p) for p in range(PARTITIONS)])
        self.last, self.gone = {}, set()

    def read(self, until, timeout_s=20.0):
        """Reads on until `until()` is true of `last`, the newest value by key, and `gone`, the keys without one."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, (self.last, self.gone)
            for records in self.consumer.poll(200).values():
                for record in records:
                    self.take(record)
        return self.last

    def take(self, record):
        key, value = decode(record.key, record.value)
        if key is None:
            return
        assert record.partition == hash_partition(key[1]), key
        if value is None:
            self.last.pop(key, None)
            self.gone.add(key)
        else:
            assert abs(value["ms"] - time.time() * 1000) < 300_000
            self.last[key] = value
            self.gone.discard(key)


@pytest.fixture
def cluster(launch):
    return launch(settings={"offsets.topic.num.partitions": PARTITIONS, "group.initial.rebalance.delay.ms": 0})


@pytest.fixture
def plums(cluster):
    """A topic of three partitions with four, three and two records."""
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    admin.create_topics([NewTopic("plums", 3, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap)
    for partition, count in enumerate([4, 3, 2]):
        for _ in range(count):
            producer.send("plums", b"ripe", partition=partition).get(20)
    producer.close()
    return "plums"


def commit(cluster, group, offsets, topic="plums"):
    """As clients do that use no membership: offsets by partition, as (offset, leader epoch, text)."""
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=group, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, p) for p in offsets])
    make = lambda offset, epoch, text: OffsetAndMetadata(offset, text, epoch)
    consumer.commit({TopicPartition(topic, p): make(*offset) for p, offset in offsets.items()})
    consumer.close(autocommit=False)


def test_commits_groups_and_deletions_are_records(cluster, plums):
    commit(cluster, "simple", {0: (1, -1, "hello"), 2: (2, 0, "")})
    commit(cluster, "simple", {2: (1, -1, "é" * 30)})
    tail = Tail(cluster)
    last = tail.read(lambda: tail.last.get(("offset", "simple", plums, 2), {}).get("offset") == 1)
    of = lambda key: {k: v for k, v in last[key].items() if k != "ms"}
    assert of(("offset", "simple", plums, 0)) == {"offset": 1, "epoch": -1, "metadata": "hello"}
    assert of(("offset", "simple", plums, 2)) == {"offset": 1, "epoch": -1, "metadata": "é" * 30}
    assert ("group", "simple") not in last

    member = KafkaConsumer(
        plums, bootstrap_servers=cluster.bootstrap, group_id="classic", client_id="eater", session_timeout_ms=20_000,
        max_poll_interval_ms=60_000, auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    eaten = 0
    while eaten < 9:
        eaten += sum(len(records) for records in member.poll(500).values())
    member.commit()
    stable = lambda: tail.last.get(("group", "classic"), {}).get("members") and len(tail.last) == 6
    last = tail.read(stable)
    group = last["group", "classic"]
    assert (group["type"], group["protocol"]) == ("consumer", "range")
    generation = group["generation"]
    (only,) = group["members"]
    assert group["leader"] == only["id"]
    assert (only["instance"], only["client"], only["host"]) == (None, "eater", "/127.0.0.1")
    assert (only["rebalance_ms"], only["session_ms"]) == (60_000, 20_000)
    assert b"plums" in only["subscription"] and b"plums" in only["assignment"]
    assert [last["offset", "classic", plums, p]["offset"] for p in range(3)] == [4, 3, 2]

    member.close(autocommit=False)
    last = tail.read(lambda: not tail.last["group", "classic"]["members"])
    group = {k: v for k, v in last["group", "classic"].items() if k != "ms"}
    assert group == {"type": "consumer", "generation": generation + 1, "protocol": None, "leader": None, "members": []}

    # What is deleted is read as deleted by who reads on, the topic's offsets here, and the group below.
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    admin.delete_topics([plums])
    tail.read(lambda: len(tail.gone) == 5)
    assert tail.gone == {("offset", "simple", plums, p) for p in (0, 2)} | {
        ("offset", "classic", plums, p) for p in range(3)
    }
    tool("kafka-consumer-groups", "--bootstrap-server", cluster.bootstrap, "--delete", "--group", "classic")
    tail.read(lambda: ("group", "classic") in tail.gone)
    admin.close()


def test_a_restarted_broker_shows_the_same(cluster, plums):
    commit(cluster, "simple", {0: (1, -1, "hello"), 1: (2, -1, "")})
    tail = Tail(cluster)
    before = tail.read(lambda: len(tail.last) == 2)
    ends = tail.consumer.end_offsets(tail.consumer.assignment())
    cluster.kill9()
    cluster.restart()
    again = Tail(cluster)
    assert again.read(lambda: len(again.last) == 2) == before
    assert again.consumer.end_offsets(again.consumer.assignment()) == ends
    # And the one that read on reads on.
    commit(cluster, "simple", {0: (3, -1, "")})
    tail.read(lambda: tail.last["offset", "simple", "plums", 0]["offset"] == 3)


def test_it_is_internal_and_read_only(cluster, plums):
    commit(cluster, "simple", {0: (1, -1, "")})
    described = tool("kafka-topics", "--bootstrap-server", cluster.bootstrap, "--describe", "--topic", OFFSETS)
    configs = re.search(r"Configs: (\S*)", described)[1].split(",")
    assert f"PartitionCount: {PARTITIONS}" in described
    assert {"cleanup.policy=compact", "compression.type=producer", "segment.bytes=104857600"} <= set(configs)
    listed = tool("kafka-topics", "--bootstrap-server", cluster.bootstrap, "--list", "--exclude-internal")
    assert listed.split() == [plums]
    producer = ["kafka-console-producer", "--bootstrap-server", cluster.bootstrap, "--topic", OFFSETS]
    assert "InvalidTopicException" in tool(*producer, stdin=b"ripe\n", check=False)
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    with pytest.raises(InvalidTopicError):
        admin.delete_records({TopicPartition(OFFSETS, 0): 0})
    admin.close()


def test_who_asks_for_it_by_name_creates_it_with_its_partitions(cluster):
    with wire.Connection(cluster.port) as connection:
        wait_until(lambda: len(connection.metadata([OFFSETS], create=True)["topics"][OFFSETS]["partitions"]) == PARTITIONS, 20, "the topic")


def test_the_console_consumer_prints_the_commits(cluster, plums):
    commit(cluster, "simple", {0: (1, -1, "hello"), 2: (2, -1, "")})
    printed = tool(
        "kafka-console-consumer", "--bootstrap-server", cluster.bootstrap, "--topic", OFFSETS, "--from-beginning",
        "--partition", hash_partition("simple"), "--max-messages", 2, "--timeout-ms", 20_000,
        "--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter",
    )  # fmt: skip
    lines = [json.loads(text) for text in re.findall(r'\{"key".*?\}\}\}', printed)]
    keys = [line["key"]["data"] for line in lines]
    assert keys == [{"group": "simple", "topic": plums, "partition": p} for p in (0, 2)]
    values = [(v["offset"], v["leaderEpoch"], v["metadata"]) for v in (line["value"]["data"] for line in lines)]
    assert values == [(1, -1, "hello"), (2, -1, "")]


def rows(text):
    """(group, topic, partition) → (current offset, log end offset, lag) of a table, with the owner's client id."""
    table = {}
    for line in text.splitlines():
        cells = line.split()
        if len(cells) == 9 and cells[2].isdigit():
            table[cells[0], cells[1], int(cells[2])] = (cells[3], cells[4], cells[5], cells[8])
    return table


def ours(cluster, *arguments):
    argv = [brokers.BINARY, "group", *arguments, "--server", cluster.bootstrap]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_lag_is_what_kafkas_tool_prints(cluster, plums):
    commit(cluster, "simple", {0: (1, -1, ""), 1: (3, -1, "")})
    member = KafkaConsumer(
        plums, bootstrap_servers=cluster.bootstrap, group_id="classic", client_id="eater",
        auto_offset_reset="earliest", enable_auto_commit=False,
    )  # fmt: skip
    wait_until(lambda: member.poll(500) or member.assignment(), 30, "an assignment")
    part = lambda p: TopicPartition(plums, p)
    member.commit({part(0): OffsetAndMetadata(4, "", -1), part(2): OffsetAndMetadata(0, "", -1)})
    try:
        tables = {}
        for group in ("simple", "classic"):
            theirs = tool("kafka-consumer-groups", "--bootstrap-server", cluster.bootstrap, "--describe", "--group", group)
            mine = ours(cluster, "describe", group)
            assert mine.returncode == 0, mine.stderr
            assert rows(mine.stdout) == rows(theirs)
            tables |= rows(theirs)
        assert {key: row[2:] for key, row in tables.items()} == {
            ("simple", plums, 0): ("3", "-"),
            ("simple", plums, 1): ("0", "-"),
            ("classic", plums, 0): ("0", "eater"),
            ("classic", plums, 1): ("-", "eater"),
            ("classic", plums, 2): ("2", "eater"),
        }
        assert ours(cluster, "describe", "classic").stdout.startswith("classic: Stable (classic protocol, assignor range, 1 member)\n")
        listed = ours(cluster, "list").stdout
        assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["classic", "classic"], ["simple", "classic"]]
        nobody = ours(cluster, "describe", "nobody")
        assert (nobody.returncode, nobody.stderr) == (1, "strandline: there is no group nobody\n")
        if cluster.kind == "strandline":
            samples = cluster.metrics()
            name = lambda metric, key: f'strandline_group_{metric}{{group="{key[0]}",topic="{key[1]}",partition="{key[2]}"}}'
            expected = {name("lag", key): float(row[2]) for key, row in tables.items() if row[2] != "-"}
            assert {k: v for k, v in samples.items() if k.startswith("strandline_group_lag")} == expected
            assert samples[name("committed_offset", ("simple", plums, 1))] == 3
    finally:
        member.close(autocommit=False)
