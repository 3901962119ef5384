"""Topics from birth to death, their configurations and offsets; with Kafka's tools and the Java admin client."""

import re
import time

import pytest

from harness import wire
from harness.clients import Failure
from harness.clients.console import tool
from harness.processes import wait_until
from harness.records import HOUR_AGO_MS, Record


@pytest.fixture
def admin(client, broker):
    return client("java", broker)


@pytest.fixture
def raw(broker):
    with wire.Connection(broker.port) as connection:
        yield connection


def described(admin, topic):
    """A real Kafka answers CreateTopics before its broker knows the topic."""
    return wait_until(lambda: admin.describe(topic), 10, f"{topic} to be known")


# Birth and growth.


def test_create_and_describe(admin, topic):
    made = admin.create(topic, partitions=3)
    assert made["partitions"] == 3
    found = described(admin, topic)
    assert found["topic_id"] == made["topic_id"] != "AAAAAAAAAAAAAAAAAAAAAA"
    assert [p["partition"] for p in found["partitions"]] == [0, 1, 2]
    assert not found["internal"]
    for partition in found["partitions"]:
        assert partition["leader"] >= 0
        assert partition["isr"] == partition["replicas"] >= 1
    assert topic in admin.topics()


def test_default_partitions_and_replicas(admin, topic):
    assert admin.create(topic)["partitions"] == 1


@pytest.mark.parametrize("replicas", [-1, 1])
def test_replication_factor(admin, topic, replicas):
    admin.create(topic, partitions=1, replicas=replicas)
    assert described(admin, topic)["partitions"][0]["replicas"] >= 1


@pytest.mark.strandline
def test_any_replication_factor_is_accepted(admin, topic):
    """The bucket replicates, so tools that ask for three replicas work unchanged."""
    admin.create(topic, partitions=1, replicas=3)
    assert described(admin, topic)["partitions"][0]["leader"] >= 0


def test_validate_only_leaves_nothing(admin, topic):
    assert admin.create(topic, partitions=2, validate_only=True)["partitions"] == 2
    assert topic not in admin.topics()
    with pytest.raises(Failure, match="InvalidPartitions"):
        admin.create(topic, partitions=0, validate_only=True)
    admin.create(topic, partitions=1)
    with pytest.raises(Failure, match="TopicExists"):
        admin.create(topic, partitions=1, validate_only=True)


def test_create_twice(raw, topic):
    raw.make_topic(topic)
    assert raw.create_topic(topic) == wire.TOPIC_ALREADY_EXISTS


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ü", "x" * 250, "a:b", "tab\there"])
def test_bad_names(raw, name):
    assert raw.create_topic(name) == wire.INVALID_TOPIC


def test_longest_name(raw, topic):
    raw.make_topic((topic + "-" * 249)[:249])


def test_names_that_collide_as_metrics(raw, topic):
    raw.make_topic(f"{topic}.x")
    assert raw.create_topic(f"{topic}_x") == wire.INVALID_TOPIC


@pytest.mark.parametrize("partitions", [0, -2])
def test_bad_partition_counts(raw, topic, partitions):
    assert raw.create_topic(topic, partitions) == wire.INVALID_PARTITIONS


@pytest.mark.parametrize(
    "configs",
    [{"no.such.key": "1"}, {"retention.ms": "soon"}, {"cleanup.policy": "shred"}, {"max.message.bytes": "-1"}],
)
def test_bad_configurations(raw, topic, configs):
    assert raw.create_topic(topic, configs=configs) == wire.INVALID_CONFIG
    assert raw.metadata([topic])["topics"][topic]["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION


def test_two_of_one_name_in_a_request(raw, topic):
    twice = [wire.string(topic) + wire.pack("ihii", 1, 1, 0, 0)] * 2
    reader = raw.call(wire.CREATE_TOPICS, 4, wire.array(twice) + wire.pack("i?", 20000, False))
    reader.unpack("i")
    answers = reader.array(lambda: (reader.string(), reader.unpack("h"), reader.string()))
    assert {(name, error) for name, error, _ in answers} == {(topic, wire.INVALID_REQUEST)}


def test_grow(admin, raw, topic):
    raw.make_topic(topic, 2)
    raw.produce(topic, wire.encode_batch([(b"k", b"before")]), partition=1)
    admin.grow(topic, 5)
    wait_until(lambda: len(admin.describe(topic)["partitions"]) == 5, 10, "five partitions")
    assert [r[3] for r in raw.read_all(topic, partition=1)] == [b"before"]
    wait_until(lambda: raw.list_offsets(topic, -1, partition=4)[0] == 0, 10, "the new partition's leader")
    assert raw.produce(topic, wire.encode_batch([(b"k", b"after")]), partition=4)["base"] == 0


@pytest.mark.parametrize("partitions", [1, 2])
def test_shrinking_is_refused(admin, raw, topic, partitions):
    raw.make_topic(topic, 2)
    with pytest.raises(Failure, match="InvalidPartitions"):
        admin.grow(topic, partitions)
    assert len(admin.describe(topic)["partitions"]) == 2


def test_growing_nothing(admin, topic):
    with pytest.raises(Failure, match="UnknownTopicOrPartition"):
        admin.grow(topic, 3)


@pytest.mark.parametrize("count", [500])
def test_many_partitions(raw, topic, count):
    raw.make_topic(topic, count)
    assert len(raw.metadata([topic])["topics"][topic]["partitions"]) == count
    answer = raw.fetch({topic: {p: 0 for p in range(count)}})
    assert all(p["error"] == 0 for p in answer["topics"][topic].values())


@pytest.mark.strandline
def test_create_then_produce_without_waiting(broker, topic):
    """Requests of one connection wait for those before them; only a real Kafka's broker may learn of the topic later."""
    with wire.Connection(broker.port) as connection:
        body = wire.array([wire.string(topic) + wire.pack("ihii", 1, 1, 0, 0)]) + wire.pack("i?", 20000, False)
        created = connection.send(wire.CREATE_TOPICS, 4, body)
        produced = connection.send_produce(topic, {0: wire.encode_batch([(b"k", b"v")])})
        connection.receive(created)
        assert connection.receive_produce(produced)[0] == {
            "error": 0, "base": 0, "append_ms": -1, "start": 0, "errors": [], "message": None
        }  # fmt: skip


# Death.


def test_delete_and_recreate(admin, raw, client, broker, topic):
    raw.make_topic(topic, 2)
    first = admin.describe(topic)["topic_id"]
    raw.produce(topic, wire.encode_batch([(b"k", b"old")] * 5))
    admin.delete(topic)
    wait_until(lambda: topic not in admin.topics(), 10, "the topic to go")
    assert raw.metadata([topic])["topics"][topic]["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
    assert raw.fetch_one(topic, 0)["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
    assert raw.produce(topic, wire.encode_batch([(b"k", b"v")]))["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
    raw.make_topic(topic)
    again = admin.describe(topic)
    assert again["topic_id"] != first
    assert len(again["partitions"]) == 1
    assert raw.list_offsets(topic, -1)[2] == 0
    assert raw.produce(topic, wire.encode_batch([(b"k", b"new")]))["base"] == 0
    for reader in ("confluent", "java", "franz-go"):
        assert [r.value for r in client(reader, broker).fetch(topic, 0, 0, 1)] == [b"new"], reader


def test_delete_nothing(admin, raw, topic):
    assert raw.delete_topic(topic) == wire.UNKNOWN_TOPIC_OR_PARTITION
    with pytest.raises(Failure, match="UnknownTopicOrPartition"):
        admin.delete(topic)


@pytest.mark.parametrize("who", ["kafkajs", "franz-go"])
def test_other_admins(client, broker, raw, topic, who):
    other = client(who, broker)
    other.ask("create", topic=topic, partitions=2, configs={"retention.ms": "3600000"})
    wait_until(lambda: raw.list_offsets(topic, -1, partition=1)[0] == 0, 10, "the topic")
    assert topic in other.ask("list")
    raw.produce(topic, wire.encode_batch([(b"k", b"v")] * 3), partition=1)
    found = other.ask("offsets", topic=topic, partition=1)
    if who == "kafkajs":
        found = next([int(p["low"]), int(p["high"])] for p in found if p["partition"] == 1)
    assert found == [0, 3]
    other.ask("delete", topic=topic)
    wait_until(lambda: topic not in other.ask("list"), 10, "the topic to go")


# By itself.


def test_metadata_creates_only_when_asked(raw, topic):
    assert raw.metadata([topic])["topics"][topic]["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
    assert topic not in raw.metadata(None)["topics"]
    raw.metadata([topic], create=True)
    wait_until(lambda: raw.metadata([topic])["topics"][topic]["error"] == 0, 10, "the topic")


def test_metadata_of_a_bad_name(raw):
    assert raw.metadata(["a/b"], create=True)["topics"]["a/b"]["error"] == wire.INVALID_TOPIC


def test_metadata_of_no_topics(raw):
    answer = raw.metadata([])
    assert answer["topics"] == {}
    assert answer["controller"] in [b[0] for b in answer["brokers"]]
    assert answer["cluster"]


def test_auto_create_can_be_off(launch, topic):
    broker = launch(settings={"auto.create.topics.enable": "false", "num.partitions": 3})
    with wire.Connection(broker.port) as connection:
        answer = connection.metadata([topic], create=True)["topics"][topic]
        assert answer["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION
        connection.create_topic(topic, -1, replicas=-1)
        wait_until(lambda: len(connection.metadata([topic])["topics"][topic]["partitions"]) == 3, 10, "num.partitions")


# Configurations.

TOPIC_KEYS = """cleanup.policy compression.type delete.retention.ms file.delete.delay.ms flush.messages flush.ms
    follower.replication.throttled.replicas index.interval.bytes leader.replication.throttled.replicas max.compaction.lag.ms
    max.message.bytes message.timestamp.after.max.ms message.timestamp.before.max.ms message.timestamp.type
    min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate retention.bytes retention.ms
    segment.bytes segment.index.bytes segment.jitter.ms segment.ms unclean.leader.election.enable""".split()


def test_describe_topic_configurations(admin, raw, topic):
    raw.make_topic(topic, configs={"retention.ms": "7200000"})
    found = admin.configs(topic)
    assert set(TOPIC_KEYS) <= set(found)
    retention = found["retention.ms"]
    assert (retention["value"], retention["source"], retention["type"]) == ("7200000", "DYNAMIC_TOPIC_CONFIG", "LONG")
    assert retention["synonyms"][0] == ["retention.ms", "DYNAMIC_TOPIC_CONFIG"]
    assert retention["documentation"]
    policy = found["cleanup.policy"]
    assert (policy["value"], policy["source"], policy["type"]) == ("delete", "DEFAULT_CONFIG", "LIST")
    assert found["max.message.bytes"]["value"] == "1048588"
    assert found["message.timestamp.type"]["value"] == "CreateTime"
    assert found["compression.type"]["value"] == "producer"
    assert not any(e["read_only"] or e["sensitive"] for e in found.values())


def test_alter_topic_configurations(admin, raw, topic):
    raw.make_topic(topic)

    def value(key):
        return admin.configs(topic)[key]["value"]

    admin.alter(topic, ("SET", "retention.ms", "60000"), ("SET", "max.message.bytes", "5000"))
    wait_until(lambda: value("retention.ms") == "60000", 10, "the new retention")
    assert value("max.message.bytes") == "5000"
    admin.alter(topic, ("APPEND", "cleanup.policy", "compact"))
    wait_until(lambda: value("cleanup.policy") == "delete,compact", 10, "two policies")
    admin.alter(topic, ("SUBTRACT", "cleanup.policy", "delete"))
    wait_until(lambda: value("cleanup.policy") == "compact", 10, "one policy")
    admin.alter(topic, ("DELETE", "retention.ms", None))
    wait_until(lambda: value("retention.ms") == "604800000", 10, "the default retention")
    assert value("max.message.bytes") == "5000"


@pytest.mark.parametrize(
    "change", [("SET", "retention.ms", "soon"), ("SET", "no.such.key", "1"), ("SET", "min.insync.replicas", "0")]
)
def test_bad_changes_change_nothing(admin, raw, topic, change):
    raw.make_topic(topic)
    with pytest.raises(Failure, match="InvalidConfiguration"):
        admin.alter(topic, ("SET", "retention.bytes", "12345"), change)
    assert admin.configs(topic)["retention.bytes"]["value"] == "-1"


def test_configurations_of_nothing(admin, topic):
    with pytest.raises(Failure, match="UnknownTopicOrPartition"):
        admin.configs(topic)
    with pytest.raises(Failure, match="UnknownTopicOrPartition"):
        admin.alter(topic, ("SET", "retention.ms", "1"))


def test_old_alter_configs_replaces_the_set(client, broker, raw, topic):
    """kafkajs knows only AlterConfigs: what it does not name goes back to its default."""
    raw.make_topic(topic, configs={"retention.ms": "60000", "retention.bytes": "1000"})
    js = client("kafkajs", broker)
    js.ask("alter", topic=topic, configs={"retention.bytes": "2000"})
    wait_until(lambda: js.ask("configs", topic=topic)["retention.bytes"] == "2000", 10, "the new value")
    assert js.ask("configs", topic=topic)["retention.ms"] == "604800000"


def test_broker_configurations(admin):
    node = admin.cluster()["nodes"][0][0]
    found = admin.configs(str(node), type="BROKER")
    for key in "auto.create.topics.enable num.partitions default.replication.factor log.retention.ms offsets.retention.minutes".split():
        assert key in found, key
    assert found["num.partitions"]["type"] == "INT"


# Offsets.


@pytest.fixture
def timed(raw, topic):
    """Ten records, one a minute, in batches of five; the newest timestamp is at offset 8."""
    raw.make_topic(topic)
    at = [HOUR_AGO_MS + minute * 60_000 for minute in (0, 1, 2, 3, 4, 5, 6, 7, 20, 9)]
    for part in (at[:5], at[5:]):
        raw.produce(topic, wire.encode_batch([(b"k", b"v", (), t) for t in part], first_ms=part[0]))
    return at


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_offset_by_time_is_a_records(client, broker, raw, topic, codec):
    """Not its batch's first offset, whatever the codec."""
    raw.make_topic(topic)
    at = [HOUR_AGO_MS + n * 1000 for n in range(20)]
    client("franz-go", broker).produce(topic, [Record(b"k", b"v" * 50, timestamp=t) for t in at], codec=codec)
    for want in (0, 1, 7, 19):
        assert raw.list_offsets(topic, at[want])[:3] == (0, at[want], want)
        assert raw.list_offsets(topic, at[want] - 1)[:3] == (0, at[want], want)
    assert raw.list_offsets(topic, at[19] + 1)[:3] == (0, -1, -1)


def test_offsets_earliest_latest_and_by_time(admin, timed, topic):
    assert admin.offsets(topic, "earliest")[0] == 0
    assert admin.offsets(topic, "latest")[0] == 10
    assert admin.offsets(topic, "max-timestamp")[:2] == [8, timed[8]]
    assert admin.offsets(topic, timed[6])[:2] == [6, timed[6]]
    assert admin.offsets(topic, timed[6] + 1)[:2] == [7, timed[7]]
    assert admin.offsets(topic, timed[7] + 1)[:2] == [8, timed[8]]
    assert admin.offsets(topic, 0)[:2] == [0, timed[0]]
    assert admin.offsets(topic, timed[8] + 1)[:2] == [-1, -1]


def test_offsets_of_an_empty_partition(admin, raw, topic):
    raw.make_topic(topic)
    assert admin.offsets(topic, "earliest")[:2] == [0, -1]
    assert admin.offsets(topic, "latest")[:2] == [0, -1]
    assert admin.offsets(topic, "max-timestamp")[:2] == [-1, -1]
    assert admin.offsets(topic, 0)[:2] == [-1, -1]


def test_offsets_of_nothing(raw, topic):
    assert raw.list_offsets(topic, -1)[0] == wire.UNKNOWN_TOPIC_OR_PARTITION
    raw.make_topic(topic)
    assert raw.list_offsets(topic, -1, partition=1)[0] == wire.UNKNOWN_TOPIC_OR_PARTITION


def test_offset_for_leader_epoch(client, broker, raw, timed, topic):
    epoch = raw.metadata([topic])["topics"][topic]["partitions"][0]["epoch"]
    go = client("franz-go", broker)
    assert go.ask("epoch_end", topic=topic, partition=0, epoch=epoch, current_epoch=epoch) == [0, epoch, 10]
    assert raw.epoch_end(topic, epoch) == (0, epoch, 10)
    assert raw.epoch_end(topic, epoch + 1)[1:] == (-1, -1)
    assert raw.epoch_end(topic, epoch, current=epoch + 1)[0] == wire.UNKNOWN_LEADER_EPOCH
    assert raw.list_offsets(topic, -1, epoch=epoch)[:3] == (0, -1, 10)
    assert raw.list_offsets(topic, -1, epoch=epoch + 1)[0] == wire.UNKNOWN_LEADER_EPOCH
    assert raw.fetch_one(topic, 0, epoch=epoch)["error"] == 0
    assert raw.fetch_one(topic, 0, epoch=epoch + 1)["error"] == wire.UNKNOWN_LEADER_EPOCH


def test_delete_records(admin, client, broker, raw, timed, topic):
    assert admin.delete_records(topic, 3) == 3
    assert admin.offsets(topic, "earliest")[0] == 3
    assert raw.fetch_one(topic, 2)["error"] == wire.OFFSET_OUT_OF_RANGE
    answer = raw.fetch_one(topic, 3)
    assert (answer["error"], answer["start"], answer["high"]) == (0, 3, 10)
    assert [r.offset for r in client("confluent", broker).fetch(topic, 0, 3, 7)] == list(range(3, 10))
    assert admin.delete_records(topic, 2) == 3, "the start never goes back"
    with pytest.raises(Failure, match="OffsetOutOfRange"):
        admin.delete_records(topic, 11)
    assert admin.delete_records(topic, -1) == 10
    assert admin.offsets(topic, "earliest")[0] == 10
    assert raw.produce(topic, wire.encode_batch([(b"k", b"v")]))["base"] == 10


# Kafka's own tools: each a JVM, so few and long.


def test_tools(broker, raw, topic, tmp_path):
    at = ("--bootstrap-server", broker.bootstrap)
    assert "Created topic" in tool(
        "kafka-topics", *at, "--create", "--topic", topic, "--partitions", 2, "--config", "retention.ms=3600000"
    )
    assert topic in tool("kafka-topics", *at, "--list").split()
    wait_until(lambda: raw.list_offsets(topic, -1, partition=1)[0] == 0, 10, "the topic")
    shown = tool("kafka-topics", *at, "--describe", "--topic", topic)
    assert re.search(
        r"TopicId: \S{22}\s+PartitionCount: 2\s+ReplicationFactor: \d+\s+Configs: .*retention.ms=3600000", shown
    ), shown
    assert len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: [\d,]+\s+Isr: [\d,]+", shown)) == 2, shown
    tool("kafka-topics", *at, "--alter", "--topic", topic, "--partitions", 3)
    again = tool("kafka-topics", *at, "--create", "--topic", topic, check=False)
    assert f"Topic '{topic}' already exists" in again
    wait_until(lambda: raw.list_offsets(topic, -1, partition=2)[0] == 0, 10, "the third partition")

    tool(
        "kafka-configs",
        *at,
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        topic,
        "--add-config",
        "max.message.bytes=2000,cleanup.policy=[compact,delete]",
    )
    shown = tool("kafka-configs", *at, "--describe", "--entity-type", "topics", "--entity-name", topic)
    assert "max.message.bytes=2000" in shown and "cleanup.policy=compact,delete" in shown, shown
    refused = tool(
        "kafka-configs",
        *at,
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        topic,
        "--add-config",
        "retention.ms=x",
        check=False,
    )
    assert "Invalid value x for configuration retention.ms" in refused, refused

    now = int(time.time() * 1000)
    for n in range(4):
        assert (
            raw.produce(topic, wire.encode_batch([(b"k", b"v", (), now + n)], first_ms=now + n), partition=2)["error"]
            == 0
        )
    times = {"latest": 4, "earliest": 0, "max-timestamp": 3, "-1": 4, str(now + 2): 2}
    for when, offset in times.items():
        shown = tool("kafka-get-offsets", *at, "--topic", topic, "--time", when).split()
        assert f"{topic}:2:{offset}" in shown, (when, shown)

    plan = tmp_path / "delete.json"
    plan.write_text('{"version":1,"partitions":[{"topic":"%s","partition":2,"offset":3}]}' % topic)
    assert re.search(r"low_watermark: 3", tool("kafka-delete-records", *at, "--offset-json-file", plan))
    assert raw.list_offsets(topic, -2, partition=2)[2] == 3

    tool("kafka-topics", *at, "--delete", "--topic", topic)
    wait_until(
        lambda: raw.metadata([topic])["topics"][topic]["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION,
        10,
        "the topic to go",
    )


def test_tools_about_the_broker(broker):
    at = ("--bootstrap-server", broker.bootstrap)
    versions = tool("kafka-broker-api-versions", *at)
    assert re.search(r"Produce\(0\): 0 to \d+", versions), versions
    assert "UNSUPPORTED" not in versions.split("Fetch(1)")[0]
    assert re.search(r"Cluster ID: \S+", tool("kafka-cluster", "cluster-id", *at))
