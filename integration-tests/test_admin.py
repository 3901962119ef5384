"""Admin APIs: every version through a codec that others wrote, refusals in Kafka's words, admin clients and tools."""

import itertools
import json
import re
import socket
import struct
import uuid

import confluent_kafka.admin as librdkafka
import pytest
from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from kafka import KafkaAdminClient
from kafka.protocol.admin import acl, cluster, configs, topics, transactions
from kafka.protocol.api_header import ResponseClassRegistry

from harness import wire
from harness.clients.console import tool
from harness.processes import wait_until

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


class Asker:
    """Sends requests of kafka-python's codec in any version, and decodes the answers with it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.correlation = itertools.count(1)

    def ask(self, request, version):
        request.API_VERSION = version
        request.with_header(correlation_id=next(self.correlation), client_id="asker")
        self.socket.sendall(request.encode(version=version, header=True, framed=True))
        (size,) = struct.unpack(">i", self._read(4))
        answer = ResponseClassRegistry._response_class_registry[request.API_KEY]
        return answer.decode(self._read(size), version=version, header=True)

    def _read(self, length):
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            assert more, "the broker closed the connection"
            data += more
        return data


@pytest.fixture
def asker(broker):
    made = Asker(broker.port)
    yield made
    made.socket.close()


@pytest.fixture
def raw(broker):
    with wire.Connection(broker.port) as connection:
        yield connection


# Requests, short.


def create(*made, validate_only=False, timeout_ms=15000):
    """Topics as (name, partitions, replicas, {partition: brokers}, [(key, value)]), the last of them optional."""
    R = topics.CreateTopicsRequest
    T = R.CreatableTopic

    def one(name, partitions=1, replicas=-1, assigned=None, settings=()):
        assignments = [
            T.CreatableReplicaAssignment(partition_index=p, broker_ids=ids) for p, ids in (assigned or {}).items()
        ]
        settings = [T.CreatableTopicConfig(name=k, value=v) for k, v in settings]
        return T(
            name=name,
            num_partitions=partitions,
            replication_factor=replicas,
            assignments=assignments,
            configs=settings,
        )

    return R(topics=[one(*m) for m in made], timeout_ms=timeout_ms, validate_only=validate_only)


def grow(*grown, validate_only=False):
    """Topics as (name, count, [brokers of each new partition])."""
    R = topics.CreatePartitionsRequest
    T = R.CreatePartitionsTopic

    def one(name, count, assigned=None):
        assignments = assigned and [T.CreatePartitionsAssignment(broker_ids=ids) for ids in assigned]
        return T(name=name, count=count, assignments=assignments)

    return R(topics=[one(*g) for g in grown], timeout_ms=15000, validate_only=validate_only)


def delete_by_id(*deleted):
    """Topics as (name, id)."""
    R = topics.DeleteTopicsRequest
    return R(topics=[R.DeleteTopicState(name=n, topic_id=i or uuid.UUID(int=0)) for n, i in deleted], timeout_ms=15000)


def alter(*altered, validate_only=False):
    """Resources as (type, name, [(key, operation, value)])."""
    R = configs.IncrementalAlterConfigsRequest
    C = R.AlterConfigsResource.AlterableConfig

    def one(kind, name, changes):
        changes = [C(name=k, config_operation=op, value=v) for k, op, v in changes]
        return R.AlterConfigsResource(resource_type=kind, resource_name=name, configs=changes)

    return R(resources=[one(*a) for a in altered], validate_only=validate_only)


def replace(*altered):
    """Resources as (type, name, [(key, value)])."""
    R = configs.AlterConfigsRequest
    C = R.AlterConfigsResource.AlterableConfig

    def one(kind, name, values):
        values = [C(name=k, value=v) for k, v in values]
        return R.AlterConfigsResource(resource_type=kind, resource_name=name, configs=values)

    return R(resources=[one(*a) for a in altered], validate_only=False)


def describe(*described, synonyms=False, documentation=False):
    """Resources as (type, name, keys)."""
    R = configs.DescribeConfigsRequest
    made = [
        R.DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
        for kind, name, keys in described
    ]
    return R(resources=made, include_synonyms=synonyms, include_documentation=documentation)


def delete_records(*deleted):
    """Topics as (name, {partition: offset})."""
    R = topics.DeleteRecordsRequest
    P = R.DeleteRecordsTopic.DeleteRecordsPartition

    def one(name, offsets):
        return R.DeleteRecordsTopic(name=name, partitions=[P(partition_index=p, offset=o) for p, o in offsets.items()])

    return R(topics=[one(*d) for d in deleted], timeout_ms=15000)


def pages(*names, limit=2000, cursor=None):
    R = topics.DescribeTopicPartitionsRequest
    at = cursor and R.Cursor(topic_name=cursor[0], partition_index=cursor[1])
    return R(topics=[R.TopicRequest(name=n) for n in names], response_partition_limit=limit, cursor=at)


# Every version. The answer's own check (a decoder that finds its end) is half of each test.


def versions(raw, request, first):
    low, high = raw.api_versions()[request.API_KEY]
    return range(max(low, first), min(high, request.max_version) + 1)


def test_create_grow_and_delete_in_every_version(asker, raw, topic):
    names = []
    for version in versions(raw, topics.CreateTopicsRequest, 2):
        names.append(f"{topic}-{version}")
        found = asker.ask(create((names[-1], 2, 1, None, [("retention.ms", "7200000")])), version).topics[0]
        assert (found.error_code, found.error_message) == (0, None)
        if version >= 5:
            assert (found.num_partitions, found.replication_factor) == (2, 1)
            kept = {c.name: (c.value, c.config_source, c.read_only) for c in found.configs}
            assert kept["retention.ms"] == ("7200000", 1, False)
            assert kept["cleanup.policy"] == ("delete", 5, False)
        assert bool(found.topic_id) == (version >= 7)
    wait_until(lambda: raw.metadata([names[-1]])["topics"][names[-1]]["error"] == 0, 10, "the topic")
    for count, version in enumerate(versions(raw, topics.CreatePartitionsRequest, 0), 3):
        found = asker.ask(grow((names[-1], count)), version).results[0]
        assert (found.name, found.error_code, found.error_message) == (names[-1], 0, None)
    wait_until(lambda: len(raw.metadata([names[-1]])["topics"][names[-1]]["partitions"]) == 6, 10, "six partitions")
    for version in versions(raw, topics.DeleteTopicsRequest, 1):
        if version < 6:
            request = topics.DeleteTopicsRequest(topic_names=[names[version - 1]], timeout_ms=15000)
        else:
            request = delete_by_id((names[version - 1], None))
        found = asker.ask(request, version).responses[0]
        assert (found.name, found.error_code) == (names[version - 1], 0)


def test_configurations_in_every_version(asker, raw, topic):
    raw.make_topic(topic)
    key = "retention.bytes"

    def value():
        return asker.ask(describe((TOPIC, topic, [key])), 4).results[0].configs[0].value

    for version in versions(raw, configs.IncrementalAlterConfigsRequest, 0):
        found = asker.ask(alter((TOPIC, topic, [(key, SET, f"10{version}")])), version).responses[0]
        assert (found.error_code, found.error_message, found.resource_name) == (0, None, topic)
        wait_until(lambda v=version: value() == f"10{v}", 10, "the new value")
    for version in versions(raw, configs.AlterConfigsRequest, 0):
        found = asker.ask(replace((TOPIC, topic, [(key, f"20{version}")])), version).responses[0]
        assert (found.error_code, found.error_message, found.resource_name) == (0, None, topic)
        wait_until(lambda v=version: value() == f"20{v}", 10, "the new value")
    for version in versions(raw, configs.DescribeConfigsRequest, 1):
        request = describe((TOPIC, topic, [key]), (BROKER, "1", None), synonyms=True, documentation=version >= 3)
        one, brokers = asker.ask(request, version).results
        all_of_them = asker.ask(describe((TOPIC, topic, None)), version).results[0]
        assert [(c.name, c.config_source) for c in one.configs] == [(key, 1)]
        assert [s.name for s in one.configs[0].synonyms] == [key, "log.retention.bytes"]
        assert len(all_of_them.configs) >= 33
        shown = {c.name: c for c in brokers.configs}
        assert shown["num.partitions"].read_only and shown["node.id"].value == "1"
        if version >= 3:
            assert one.configs[0].config_type == 5 and one.configs[0].documentation
    for version in versions(raw, configs.ListConfigResourcesRequest, 0):
        found = asker.ask(configs.ListConfigResourcesRequest(resource_types=[]), version)
        assert found.error_code == 0
        assert ((TOPIC, topic) in [(r.resource_type, r.resource_name) for r in found.config_resources]) == (version > 0)


def test_what_partitions_hold_in_every_version(asker, raw, topic):
    raw.make_topic(topic, 2)
    raw.produce(topic, wire.encode_batch([(b"k", b"v" * 100)] * 10, producer=(77, 0, 0)))
    for offset, version in enumerate(versions(raw, topics.DeleteRecordsRequest, 0), 2):
        found = asker.ask(delete_records((topic, {0: offset})), version).topics[0].partitions[0]
        assert (found.low_watermark, found.error_code) == (offset, 0)
    R = cluster.DescribeLogDirsRequest
    for version in versions(raw, R, 1):
        request = R(topics=[R.DescribableLogDirTopic(topic=topic, partitions=[0, 1, 9])])
        directory = asker.ask(request, version).results[0]
        sizes = {p.partition_index: p.partition_size for p in directory.topics[0].partitions}
        assert directory.error_code == 0 and directory.log_dir
        assert sizes[0] > 1000 and sizes[1] == 0 and len(sizes) == 2
    R = transactions.DescribeProducersRequest
    request = R(topics=[R.TopicRequest(name=topic, partition_indexes=[0, 9])])
    known, missing = asker.ask(request, 0).topics[0].partitions
    producer = known.active_producers[0]
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (77, 0, 9)
    assert producer.current_txn_start_offset == -1 and producer.last_timestamp > 0
    assert missing.error_code == wire.UNKNOWN_TOPIC_OR_PARTITION


def test_leaders_and_replicas_in_every_version(asker, raw, topic):
    raw.make_topic(topic)
    R = cluster.DescribeClusterRequest
    for version in versions(raw, R, 0):
        request = R(include_cluster_authorized_operations=True, endpoint_type=1, include_fenced_brokers=False)
        found = asker.ask(request, version)
        assert (found.error_code, [b.broker_id for b in found.brokers]) == (0, [1])
        assert found.cluster_id == raw.metadata([])["cluster"]
        if version >= 1:
            wrong = R(include_cluster_authorized_operations=False, endpoint_type=2, include_fenced_brokers=False)
            assert asker.ask(wrong, version).error_code == 114
    R = topics.ElectLeadersRequest
    for version in versions(raw, R, 0):
        asked = [R.TopicPartitions(topic=topic, partitions=[0, 9])]
        found = asker.ask(R(election_type=0, topic_partitions=asked, timeout_ms=15000), version)
        results = [(p.error_code, p.error_message) for p in found.replica_election_results[0].partition_result]
        needless = "Leader election not needed for topic partition."
        assert results == [(84, needless), (3, f"No such partition as {topic}-9")]
    R = topics.AlterPartitionReassignmentsRequest
    P = R.ReassignableTopic.ReassignablePartition
    for version in versions(raw, R, 0):
        moves = [P(partition_index=0, replicas=[1])]
        found = asker.ask(R(topics=[R.ReassignableTopic(name=topic, partitions=moves)], timeout_ms=15000), version)
        assert [p.error_code for p in found.responses[0].partitions] == [0], "no move is asked for"
        for refused, code in (([7], 39), (None, 85)):
            moves = [P(partition_index=0, replicas=refused)]
            found = asker.ask(R(topics=[R.ReassignableTopic(name=topic, partitions=moves)], timeout_ms=15000), version)
            assert [p.error_code for p in found.responses[0].partitions] == [code]
    found = asker.ask(topics.ListPartitionReassignmentsRequest(topics=None, timeout_ms=15000), 0)
    assert (found.error_code, found.topics) == (0, [])


@pytest.mark.strandline
def test_acls_in_every_version(asker, raw):
    """What a Kafka without an authorizer answers; the one of these tests has one."""
    anything = {"pattern_type_filter": 3, "principal_filter": None, "host_filter": None, "operation": 1}
    anything |= {"resource_type_filter": 2, "resource_name_filter": None, "permission_type": 1}
    made = {"resource_type": 2, "resource_name": "t", "resource_pattern_type": 3, "principal": "User:a", "host": "*"}
    made |= {"operation": 3, "permission_type": 3}
    for version in versions(raw, acl.DescribeAclsRequest, 1):
        assert asker.ask(acl.DescribeAclsRequest(**anything), version).error_code == 54
        request = acl.CreateAclsRequest(creations=[acl.CreateAclsRequest.AclCreation(**made)])
        assert asker.ask(request, version).results[0].error_code == 54
        request = acl.DeleteAclsRequest(filters=[acl.DeleteAclsRequest.DeleteAclsFilter(**anything)])
        assert asker.ask(request, version).filter_results[0].error_code == 54


# Refusals, as a real Kafka words them.

REPLICAS = "Replication factor must be larger than 0, or -1 to use the default value."
PARTITIONS = "Number of partitions was set to an invalid non-positive value."
MANUAL = "A manual partition assignment was specified, but"
ASSIGNMENT = "The manual partition assignment includes"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((2, 0), 38, REPLICAS),
        ((2, -2), 38, REPLICAS),
        ((0,), 37, PARTITIONS),
        ((0, 0), 38, REPLICAS),
        ((1, -1, {0: [1]}), 42, f"{MANUAL} numPartitions was not set to -1."),
        ((-1, 1, {0: [1]}), 42, f"{MANUAL} replication factor was not set to -1."),
        ((-1, -1, {0: [1], 2: [1]}), 39, "partitions should be a consecutive 0-based integer sequence"),
        ((-1, -1, {0: []}), 39, f"{ASSIGNMENT} an empty replica list."),
        ((-1, -1, {0: [1, 1]}), 39, f"{ASSIGNMENT} the broker 1 more than once."),
        ((1, -1, None, [("retention.ms", None)]), 40, "Null value not supported for topic configs: retention.ms"),
        ((0, -1, None, [("no.such.key", "1")]), 40, "Unknown topic config name: no.such.key"),
        ((10_001,), 44, "Excessively large number of partitions per request."),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_create_is_refused(asker, raw, topic, given, error, message, validate_only):
    found = asker.ask(create((topic, *given), validate_only=validate_only), 7).topics[0]
    assert (found.error_code, found.error_message) == (error, message)
    assert raw.metadata([topic])["topics"][topic]["error"] == wire.UNKNOWN_TOPIC_OR_PARTITION


def test_manual_assignments_count_partitions(asker, topic):
    found = asker.ask(create((topic, -1, -1, {1: [1], 0: [1]})), 7).topics[0]
    assert (found.error_code, found.num_partitions, found.replication_factor) == (0, 2, 1)


@pytest.mark.strandline
def test_manual_assignments_may_name_brokers_that_are_not_there(asker, topic):
    """A plan made for a cluster of three works unchanged; a real Kafka refuses brokers that it does not know."""
    found = asker.ask(create((topic, -1, -1, {0: [4, 5, 6], 1: [5, 6, 4]})), 7).topics[0]
    assert (found.error_code, found.num_partitions, found.replication_factor) == (0, 2, 3)
    found = asker.ask(create((f"{topic}-x", -1, -1, {0: [4, 5], 1: [6]})), 7).topics[0]
    assert found.error_code == 39 and "not consistent with previous partitions" in found.error_message


def test_one_bad_topic_does_not_spoil_the_others(asker, topic):
    made = [(f"{topic}-a",), (f"{topic}-b", 0), (f"{topic}-c",), (f"{topic}-c",)]
    found = {t.name: t.error_code for t in asker.ask(create(*made), 7).topics}
    assert found == {f"{topic}-a": 0, f"{topic}-b": 37, f"{topic}-c": 42}


def test_grow_is_refused(asker, raw, topic):
    raw.make_topic(topic, 2)
    increase = f"The topic {topic} currently has 2 partition(s); {{}} would not be an increase."
    attempted = "Attempted to add 1 additional partition(s), but only {} assignment(s) were specified."
    cases = [
        (2, None, 37, "Topic already has 2 partition(s)."),
        (1, None, 37, increase.format(1)),
        (-1, None, 37, increase.format(-1)),
        (3, [[1], [1]], 39, attempted.format(2)),
        (3, [[]], 39, f"{ASSIGNMENT} an empty replica list."),
        (3, [[1, 1]], 39, f"{ASSIGNMENT} the broker 1 more than once."),
    ]
    for count, assigned, error, message in cases:
        for validate_only in (True, False):
            found = asker.ask(grow((topic, count, assigned), validate_only=validate_only), 3).results[0]
            assert (found.error_code, found.error_message) == (error, message)
    found = asker.ask(grow((topic, 3), (topic, 4)), 3).results
    assert [(t.error_code, t.error_message) for t in found] == [(42, "Duplicate topic name.")]
    assert asker.ask(grow((topic, 3, [[1]]), validate_only=True), 3).results[0].error_code == 0
    assert len(raw.metadata([topic])["topics"][topic]["partitions"]) == 2


def test_delete_is_refused(asker, topic):
    made = asker.ask(create((topic,)), 7).topics[0].topic_id
    other = uuid.uuid4()
    cases = [
        ([(None, None)], 42, "Neither topic name nor id were specified."),
        ([(topic, made)], 42, "You may not specify both topic name and topic id."),
        ([(None, made), (None, made)], 42, "Duplicate topic id."),
        ([(topic, None), (topic, None)], 42, "Duplicate topic name."),
        ([(None, made), (topic, None)], 42, "The provided topic name maps to an ID that was already supplied."),
        ([(None, other)], 100, "This server does not host this topic ID."),
        ([(f"{topic}-no", None)], 3, "This server does not host this topic-partition."),
    ]
    for asked, error, message in cases:
        found = asker.ask(delete_by_id(*asked), 6).responses
        assert [(t.error_code, t.error_message) for t in found] == [(error, message)]
    found = asker.ask(delete_by_id((None, made)), 6).responses[0]
    assert (found.name, found.topic_id, found.error_code) == (topic, made, 0)


def test_deletion_can_be_off(launch, topic):
    broker = launch(settings={"delete.topic.enable": "false"})
    asker = Asker(broker.port)
    asker.ask(create((topic,)), 7)
    request = topics.DeleteTopicsRequest(topic_names=[topic], timeout_ms=15000)
    assert asker.ask(request, 5).responses[0].error_code == 73
    assert asker.ask(topics.DeleteTopicsRequest(topic_names=[topic], timeout_ms=15000), 1).responses[0].error_code == 42


def test_changes_are_refused(asker, raw, topic):
    raw.make_topic(topic)
    not_list = "Can't {} to key retention.ms because its type is not LIST."
    retention = "Invalid value x for configuration retention.ms: Not a number of type LONG"
    policies = "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete"
    cases = [
        ((TOPIC, topic, [("retention.ms", SET, "x")]), 40, retention),
        ((TOPIC, topic, [("no.such.key", SET, "x")]), 40, "Unknown topic config name: no.such.key"),
        ((TOPIC, topic, [("retention.ms", APPEND, "1")]), 40, not_list.format("APPEND")),
        ((TOPIC, topic, [("retention.ms", SUBTRACT, "1")]), 40, not_list.format("SUBTRACT")),
        ((TOPIC, topic, [("cleanup.policy", APPEND, "shred")]), 40, policies),
        ((TOPIC, topic, [("a", SET, "1"), ("a", DELETE, None)]), 42, "Error due to duplicate config keys"),
        ((TOPIC, topic, [("a", SET, None), ("b", APPEND, None)]), 42, "Null value not supported for : a, b"),
        ((TOPIC, "", [("retention.ms", SET, "1")]), 42, "Default topic resources are not allowed."),
        ((TOPIC, f"{topic}-no", [("retention.ms", SET, "1")]), 3, f"The topic '{topic}-no' does not exist."),
        ((3, "x", []), 42, "Unknown resource type 3"),
        ((BROKER, "7", [("log.retention.ms", SET, "1")]), 42, "Unexpected broker id, expected 1, but received 7"),
        ((BROKER, "x", [("log.retention.ms", SET, "1")]), 42, "Node id must be an integer, but it is: x"),
    ]  # fmt: skip
    for resource, error, message in cases:
        found = asker.ask(alter(resource), 1).responses[0]
        assert (found.error_code, found.error_message) == (error, message)
    found = asker.ask(alter((TOPIC, topic, []), (TOPIC, topic, [])), 1).responses
    assert {(r.error_code, r.error_message) for r in found} == {(42, "Each resource must appear at most once.")}
    found = asker.ask(alter((TOPIC, topic, [("retention.ms", SET, "1")]), validate_only=True), 1).responses[0]
    assert found.error_code == 0
    assert asker.ask(describe((TOPIC, topic, ["retention.ms"])), 4).results[0].configs[0].value == "604800000"


@pytest.mark.parametrize("name", ["num.partitions", "log.dirs", "node.id"])
def test_settings_of_brokers_are_not_altered(asker, name):
    found = asker.ask(alter((BROKER, "1", [(name, SET, "1")])), 1).responses[0]
    assert found.error_code == 42
    assert f"Cannot update these configs dynamically: [{name}]" in found.error_message
    found = asker.ask(alter((BROKER, "1", [("leader.replication.throttled.rate", DELETE, None)])), 1).responses[0]
    assert found.error_code == 0, "what is not set can be taken away"


@pytest.mark.strandline
def test_settings_of_brokers_say_where_they_are_set(asker):
    """A real Kafka would take this one while it runs."""
    found = asker.ask(alter((BROKER, "", [("log.retention.ms", SET, "1")])), 1).responses[0]
    assert found.error_code == 42
    assert "STRANDLINE_KAFKA__LOG_RETENTION_MS" in found.error_message


def test_delete_records_is_refused(asker, raw, topic):
    raw.make_topic(topic)
    raw.make_topic(f"{topic}-c", configs={"cleanup.policy": "compact"})
    raw.produce(topic, wire.encode_batch([(b"k", b"v")] * 3))
    cases = [(topic, 0, 4, 1), (topic, 0, -2, 1), (topic, 9, 0, 3), (f"{topic}-no", 0, 0, 3), (f"{topic}-c", 0, 0, 44)]
    for name, partition, offset, error in cases:
        found = asker.ask(delete_records((name, {partition: offset})), 2).topics[0].partitions[0]
        assert (found.low_watermark, found.error_code) == (-1, error), (name, partition, offset)


def test_topics_in_pages(asker, raw, topic):
    a, b = f"{topic}-a", f"{topic}-b"
    raw.make_topic(a, 3)
    raw.make_topic(b, 2)

    def page(*names, **options):
        found = asker.ask(pages(*names, **options), 0)
        shown = [(t.name, t.error_code, [p.partition_index for p in t.partitions]) for t in found.topics]
        return shown, found.next_cursor and (found.next_cursor.topic_name, found.next_cursor.partition_index)

    assert page(b, a) == ([(a, 0, [0, 1, 2]), (b, 0, [0, 1])], None)
    assert page(a, b, limit=2) == ([(a, 0, [0, 1])], (a, 2))
    assert page(a, b, limit=2, cursor=(a, 2)) == ([(a, 0, [2]), (b, 0, [0])], (b, 1))
    assert page(a, b, limit=3) == ([(a, 0, [0, 1, 2])], (b, 0))
    assert page(a, limit=0) == ([(a, 0, [0])], (a, 1)), "a page has one partition at least"
    assert page(a, b, cursor=(b, 1)) == ([(b, 0, [1])], None)
    assert page(a, "a b", f"{topic}-z") == ([("a b", 17, []), (a, 0, [0, 1, 2]), (f"{topic}-z", 3, [])], None)
    assert page(a, cursor=(f"{topic}-aa", 0)) == ([(a, 42, [])], None), "a cursor stands at a topic that is asked for"
    every = asker.ask(pages(cursor=(a, 1)), 0).topics
    assert every[0].name == a and [p.partition_index for p in every[0].partitions] == [1, 2]
    assert b in [t.name for t in every] and [t.name for t in every] == sorted(t.name for t in every)


# Admin clients that others wrote; Java, kafkajs and franz-go are in test_topics.py.


def test_librdkafka(broker, raw, topic):
    admin = librdkafka.AdminClient({"bootstrap.servers": broker.bootstrap})

    def done(futures):
        return {key: future.result(20) for key, future in futures.items()}

    done(admin.create_topics([librdkafka.NewTopic(topic, 2, 1, config={"retention.ms": "60000"})]))
    wait_until(lambda: raw.list_offsets(topic, -1, partition=1)[0] == 0, 10, "the topic")
    done(admin.create_partitions([librdkafka.NewPartitions(topic, 3)]))
    wait_until(lambda: raw.list_offsets(topic, -1, partition=2)[0] == 0, 10, "the third partition")
    found = done(admin.describe_topics(TopicCollection([topic])))[topic]
    assert [p.id for p in found.partitions] == [0, 1, 2] and str(found.topic_id) != "AAAAAAAAAAAAAAAAAAAAAA"
    assert [node.id for node in admin.describe_cluster().result(20).nodes] == [1]

    this = librdkafka.ConfigResource(librdkafka.ResourceType.TOPIC, topic)
    change = librdkafka.ConfigEntry("retention.bytes", "5000", incremental_operation=librdkafka.AlterConfigOpType.SET)
    done(
        admin.incremental_alter_configs(
            [librdkafka.ConfigResource(librdkafka.ResourceType.TOPIC, topic, incremental_configs=[change])]
        )
    )
    wait_until(lambda: done(admin.describe_configs([this]))[this]["retention.bytes"].value == "5000", 10, "the value")
    assert done(admin.describe_configs([this]))[this]["retention.ms"].value == "60000"

    raw.produce(topic, wire.encode_batch([(b"k", b"v")] * 5))
    low = done(admin.delete_records([TopicPartition(topic, 0, 3)]))[TopicPartition(topic, 0)].low_watermark
    assert low == 3
    earliest = {TopicPartition(topic, 0): librdkafka.OffsetSpec.earliest()}
    assert done(admin.list_offsets(earliest))[TopicPartition(topic, 0)].offset == 3
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        done(admin.create_topics([librdkafka.NewTopic(topic, 1, 1)]))
    with pytest.raises(KafkaException, match="INVALID_PARTITIONS"):
        done(admin.create_partitions([librdkafka.NewPartitions(topic, 2)]))
    done(admin.delete_topics([topic]))
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 10, "the topic to go")


def test_kafka_python(broker, raw, topic):
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
        wait_until(lambda: raw.list_offsets(topic, -1, partition=1)[0] == 0, 10, "the topic")
        admin.create_partitions({topic: 3})
        wait_until(lambda: topic in admin.list_topics(), 10, "the topic in the list")
        wait_until(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 3, 10, "three partitions")
        assert admin.describe_cluster()["cluster_id"] == raw.metadata([])["cluster"]
        assert admin.describe_log_dirs()
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), 10, "the topic to go")
    finally:
        admin.close()


# Kafka's own tools: each a JVM, so few and long. kafka-topics, kafka-get-offsets and others are in test_topics.py.


def test_tools_about_partitions(broker, raw, topic, tmp_path):
    at = ("--bootstrap-server", broker.bootstrap)
    raw.make_topic(topic, 2)
    raw.produce(topic, wire.encode_batch([(b"k", b"v" * 100)] * 10, producer=(78, 0, 0)))

    shown = tool("kafka-log-dirs", *at, "--describe", "--topic-list", topic)
    brokers = json.loads(shown.strip().splitlines()[-1])["brokers"]
    sizes = {p["partition"]: p["size"] for d in brokers[0]["logDirs"] for p in d["partitions"]}
    assert sizes[f"{topic}-0"] > 1000 and sizes[f"{topic}-1"] == 0

    shown = tool("kafka-transactions", *at, "describe-producers", "--topic", topic, "--partition", 0)
    assert re.search(r"78\s+0\s+-1\s+9\s+\d+\s+None", shown), shown

    shown = tool("kafka-leader-election", *at, "--election-type", "preferred", "--topic", topic, "--partition", 0)
    assert f"already elected for partitions {topic}-0" in shown, shown

    moved = tmp_path / "topics.json"
    moved.write_text(json.dumps({"version": 1, "topics": [{"topic": topic}]}))
    shown = tool(
        "kafka-reassign-partitions", *at, "--topics-to-move-json-file", moved, "--broker-list", 1, "--generate"
    )
    plan = tmp_path / "plan.json"
    plan.write_text(shown.strip().splitlines()[-1])
    plan.write_text(re.sub(r',"log_dirs":\[[^]]*\]', "", plan.read_text()))
    assert f"Successfully started partition reassignments for {topic}-0,{topic}-1" in tool(
        "kafka-reassign-partitions", *at, "--reassignment-json-file", plan, "--execute"
    )
    shown = tool("kafka-reassign-partitions", *at, "--reassignment-json-file", plan, "--verify")
    assert shown.count("is completed") == 2, shown
    assert "No partition reassignments found" in tool("kafka-reassign-partitions", *at, "--list")


def test_tools_about_the_cluster(broker, raw):
    at = ("--bootstrap-server", broker.bootstrap)
    assert raw.metadata([])["cluster"] in tool("kafka-cluster", "cluster-id", *at)
    assert re.search(r"^1\s+127.0.0.1\s+\d+.*broker", tool("kafka-cluster", "list-endpoints", *at), re.M)
    every = tool("kafka-configs", *at, "--describe", "--all", "--entity-type", "brokers", "--entity-name", "1")
    assert "num.partitions=" in every and "log.retention.hours=168" in every
    refused = tool(
        "kafka-configs", *at, "--alter", "--entity-type", "brokers", "--entity-name", 1,
        "--add-config", "num.partitions=3", check=False,
    )  # fmt: skip
    assert "Cannot update these configs dynamically: [num.partitions]" in refused, refused
    assert tool("kafka-client-metrics", *at, "--list").strip() == ""


@pytest.mark.strandline
def test_tools_about_security(broker):
    shown = tool("kafka-acls", "--bootstrap-server", broker.bootstrap, "--list", check=False)
    assert "No Authorizer is configured on the broker" in shown, shown
