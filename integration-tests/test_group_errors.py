"""Every error of the APIs of groups in its place: one table of requests, with the codes that a real Kafka answers
(`--broker kafka` checks the table)."""

import struct
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka.protocol.admin import groups, topics
from kafka.protocol.consumer import group as members
from kafka.protocol.metadata import FindCoordinatorRequest
from test_admin import Asker

from harness import wire
from harness.processes import wait_until

CONSUMER_GROUP_HEARTBEAT, CONSUMER_GROUP_DESCRIBE, OFFSET_COMMIT, OFFSET_FETCH = 68, 69, 8, 9
NOWHERE = uuid.UUID(int=7)
SETTINGS = {
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.max.size": 2,
    "group.consumer.max.size": 2,
}


def subscription(*names) -> bytes:
    """What a consumer says in JoinGroup (ConsumerProtocolSubscription 0)."""
    return wire.pack("h", 0) + wire.array(names, wire.string) + wire.blob(None)


class Flexible:
    """The compact encoding, for the messages that kafka-python does not have."""

    @staticmethod
    def varint(value):
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes(out) + bytes([value])

    @classmethod
    def string(cls, text):
        return b"\0" if text is None else cls.varint(len(text.encode()) + 1) + text.encode()

    @classmethod
    def array(cls, items):
        return b"\0" if items is None else cls.varint(len(items) + 1) + b"".join(items)


class Group:
    """One group of a broker, asked over a connection of its own. Every method gives an error code, or more."""

    def __init__(self, port, topic, topic_id):
        self.port, self.topic, self.topic_id = port, topic, topic_id
        self.name = f"g-{uuid.uuid4()}"
        self.here = threading.local()

    @property
    def asker(self):
        if not hasattr(self.here, "asker"):
            self.here.asker = Asker(self.port)
        return self.here.asker

    def ask(self, request, version):
        return self.asker.ask(request, version)

    def raw(self, key, version, body):
        """A flexible request; the answer behind its header and throttle time."""
        request = struct.pack(">hhih", key, version, 7, -1) + b"\0" + body
        self.asker.socket.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", self.asker._read(4))
        return self.asker._read(size)[9:]

    # The classic protocol.

    def join(self, member="", version=5, *, name=None, instance=None, kind="consumer", protocols=None, session=10_000):
        R = members.JoinGroupRequest
        protocols = protocols if protocols is not None else [("range", subscription(self.topic))]
        return self.ask(
            R(
                group_id=self.name if name is None else name,
                session_timeout_ms=session,
                rebalance_timeout_ms=10_000,
                member_id=member,
                group_instance_id=instance,
                protocol_type=kind,
                protocols=[R.JoinGroupRequestProtocol(name=n, metadata=m) for n, m in protocols],
                reason=None,
            ),
            version,
        )

    def member(self, **options):
        """A dynamic member that has joined, alone."""
        member_id = self.join(version=5, **options).member_id
        return self.join(member_id, **options)

    def sync(
        self, member, generation, version=3, *, name=None, instance=None, kind="consumer", protocol="range", to=()
    ):
        R = members.SyncGroupRequest
        request = R(
            group_id=self.name if name is None else name,
            generation_id=generation,
            member_id=member,
            group_instance_id=instance,
            protocol_type=kind,
            protocol_name=protocol,
            assignments=[R.SyncGroupRequestAssignment(member_id=m, assignment=b"mine") for m in to],
        )
        return self.ask(request, version).error_code

    def settled(self, **options):
        """A group of one that has its assignment."""
        joined = self.member(**options)
        assert self.sync(joined.member_id, joined.generation_id, to=[joined.member_id]) == 0
        return joined

    def beat(self, member, generation, version=3, *, name=None, instance=None):
        request = members.HeartbeatRequest(
            group_id=self.name if name is None else name,
            generation_id=generation,
            member_id=member,
            group_instance_id=instance,
        )
        return self.ask(request, version).error_code

    def leave(self, member, version=3, *, name=None, instance=None):
        R = members.LeaveGroupRequest
        leaving = [R.MemberIdentity(member_id=member, group_instance_id=instance, reason=None)]
        request = R(group_id=self.name if name is None else name, member_id=member, members=leaving)
        answer = self.ask(request, version)
        return [answer.error_code] + [m.error_code for m in answer.members or []]

    # Offsets.

    def commit(
        self, member="", generation=-1, version=8, *, instance=None, topic=None, partition=0, text="", name=None
    ):
        R = members.OffsetCommitRequest
        P = R.OffsetCommitRequestTopic.OffsetCommitRequestPartition
        offset = P(partition_index=partition, committed_offset=5, committed_leader_epoch=-1, committed_metadata=text)
        request = R(
            group_id=self.name if name is None else name,
            generation_id_or_member_epoch=generation,
            member_id=member,
            group_instance_id=instance,
            retention_time_ms=-1,
            topics=[R.OffsetCommitRequestTopic(name=topic or self.topic, partitions=[offset])],
        )
        return self.ask(request, version).topics[0].partitions[0].error_code

    def commit_by_id(self, topic_id, member="", epoch=-1):
        partition = wire.pack("iqi", 0, 5, -1) + Flexible.string("") + b"\0"
        topic = topic_id.bytes + Flexible.array([partition]) + b"\0"
        body = Flexible.string(self.name) + wire.pack("i", epoch) + Flexible.string(member) + Flexible.string(None)
        answer = self.raw(OFFSET_COMMIT, 10, body + Flexible.array([topic]) + b"\0")
        assert answer[1:17] == topic_id.bytes
        return struct.unpack_from(">h", answer, 22)[0]

    def fetch_by_id(self, topic_id, member=None, epoch=-1):
        """The group's error and the partition's."""
        topic = topic_id.bytes + Flexible.array([wire.pack("i", 0)]) + b"\0"
        group = Flexible.string(self.name) + Flexible.string(member) + wire.pack("i", epoch)
        group += Flexible.array([topic]) + b"\0"
        answer = self.raw(OFFSET_FETCH, 10, Flexible.array([group]) + b"\0\0")
        at = 2 + len(self.name)
        if answer[at] == 1:
            return [struct.unpack_from(">h", answer, at + 1)[0]]
        at += 18 + 16  # the array's length and the id, the partitions' length, partition, offset and leader epoch
        return [struct.unpack_from(">h", answer, len(answer) - 4)[0], struct.unpack_from(">h", answer, at + 1)[0]]

    def fetch(self, member=None, epoch=-1, version=9):
        R = members.OffsetFetchRequest
        G = R.OffsetFetchRequestGroup
        T = G.OffsetFetchRequestTopics
        asked = [T(name=self.topic, partition_indexes=[0])]
        group = G(group_id=self.name, member_id=member, member_epoch=epoch, topics=asked)
        return self.ask(R(groups=[group], require_stable=True), version).groups[0].error_code

    def delete_offset(self, *, topic=None, name=None):
        R = members.OffsetDeleteRequest
        T = R.OffsetDeleteRequestTopic
        partitions = [T.OffsetDeleteRequestPartition(partition_index=0)]
        request = R(
            group_id=self.name if name is None else name, topics=[T(name=topic or self.topic, partitions=partitions)]
        )
        answer = self.ask(request, 0)
        return [answer.error_code] + [p.error_code for t in answer.topics for p in t.partitions]

    # Groups as a whole.

    def delete(self):
        request = groups.DeleteGroupsRequest(groups_names=[self.name])
        return self.ask(request, 2).results[0].error_code

    def describe(self, version=6):
        request = groups.DescribeGroupsRequest(groups=[self.name], include_authorized_operations=False)
        found = self.ask(request, version).groups[0]
        return [found.error_code, found.group_state]

    def describe_consumer(self):
        answer = self.raw(CONSUMER_GROUP_DESCRIBE, 1, Flexible.array([Flexible.string(self.name)]) + b"\0\0")
        return struct.unpack_from(">h", answer, 1)[0]

    # The consumer protocol.

    def consume(self, member="", epoch=0, version=1, **options):
        """Its error and the epoch that it gives."""
        names = options.get("topics", [self.topic] if epoch == 0 else None)
        owned = options.get("owned", [] if epoch == 0 else None)
        body = Flexible.string(options.get("name", self.name)) + Flexible.string(member) + wire.pack("i", epoch)
        body += Flexible.string(options.get("instance")) + Flexible.string(options.get("rack"))
        body += wire.pack("i", options.get("rebalance", 10_000 if epoch == 0 else -1))
        body += Flexible.array(names and [Flexible.string(n) for n in names])
        body += Flexible.string(options.get("regex")) if version >= 1 else b""
        body += Flexible.string(options.get("assignor")) + Flexible.array(owned) + b"\0"
        answer = self.raw(CONSUMER_GROUP_HEARTBEAT, version, body)
        (error,) = struct.unpack_from(">h", answer)
        if error:
            return [error]
        at = 3 + max(answer[2] - 1, 0)
        at += 1 + max(answer[at] - 1, 0)
        return [0, struct.unpack_from(">i", answer, at)[0]]


# Each case is a story of one new group; it gives the codes in their order.


def first_join(g):
    """A new member is told its id (MEMBER_ID_REQUIRED) from version 4 on; ids out of thin air are refused."""
    told = g.join(version=4)
    return [told.error_code, g.join(told.member_id, 4).error_code, g.join("nobody", 4).error_code]


def bad_joins(g):
    return [
        g.join(name="").error_code,
        g.join(session=999).error_code,
        g.join(session=1_800_001).error_code,
        g.join(version=3, protocols=[]).error_code,
        g.join(version=3, kind="").error_code,
        g.join("nobody").error_code,
        g.join("nobody", instance="one").error_code,
    ]


def other_protocols(g):
    g.settled()
    return [
        g.join(version=3, kind="connect").error_code,
        g.join(version=3, protocols=[("sticky", subscription(g.topic))]).error_code,
    ]


def syncs(g):
    joined = g.member()
    me, generation = joined.member_id, joined.generation_id
    return [
        g.commit(me, generation),
        g.beat(me, generation),
        g.sync("nobody", generation),
        g.sync(me, generation + 1),
        g.sync(me, generation - 1),
        g.sync(me, generation, 5, kind="connect"),
        g.sync(me, generation, 5, protocol="sticky"),
        g.sync(me, generation, 5, protocol=None),
        g.sync(me, generation, name=""),
        g.sync(me, generation, to=[me]),
        g.sync(me, generation),
    ]


def beats(g):
    joined = g.settled()
    me, generation = joined.member_id, joined.generation_id
    return [
        g.beat(me, generation),
        g.beat("nobody", generation),
        g.beat(me, generation + 1),
        g.beat(me, generation - 1),
        g.beat(me, generation, instance="one"),
        g.beat(me, generation, name=""),
        g.beat(me, generation, name="never-was"),
    ]


def commits(g):
    joined = g.settled()
    me, generation = joined.member_id, joined.generation_id
    return [
        g.commit(me, generation),
        g.commit("nobody", generation),
        g.commit(me, generation + 1),
        g.commit(me, generation - 1),
        g.commit(),
        g.commit("nobody"),
        g.commit(me, generation, instance="one"),
        g.commit(me, generation, topic="nowhere"),
        g.commit(me, generation, partition=99),
        g.commit(me, generation, text="x" * 4096),
        g.commit(me, generation, text="x" * 4097),
        g.commit("nobody", generation, text="x" * 4097),
        g.commit("nobody", generation, topic="nowhere"),
        g.commit_by_id(g.topic_id, me, generation),
        g.commit_by_id(NOWHERE, me, generation),
    ]


def commits_without_members(g):
    return [
        g.commit("someone", 3),
        g.commit("someone", 3, version=9),
        g.commit("someone"),
        g.commit(),
        g.commit("someone", 3),
        g.commit(name=""),
        g.commit(topic="nowhere", name="never-was"),
        g.commit_by_id(g.topic_id),
        g.commit_by_id(NOWHERE),
        g.fetch(),
        g.fetch("someone", 3),
        g.fetch_by_id(g.topic_id),
        g.fetch_by_id(NOWHERE),
    ]


def leaves(g):
    joined = g.settled()
    me = joined.member_id
    return [
        g.leave("nobody", 1),
        g.leave("nobody"),
        g.leave(me, instance="one"),
        g.leave("", instance="one"),
        g.leave(me, name=""),
        g.leave(me, 1, name="never-was"),
        g.leave(me, name="never-was"),
        g.leave(me),
        g.leave(me),
        g.beat(me, joined.generation_id),
    ]


def instances(g):
    """A static member that comes back gets a new id, and its old one is fenced."""
    old = g.join(instance="one")
    g.sync(old.member_id, old.generation_id, instance="one", to=[old.member_id])
    new = g.join(instance="one")
    return [
        old.error_code,
        new.error_code,
        g.beat(old.member_id, old.generation_id, instance="one"),
        g.sync(old.member_id, old.generation_id, instance="one"),
        g.commit(old.member_id, old.generation_id, instance="one"),
        g.join(old.member_id, instance="one").error_code,
        g.leave(old.member_id, instance="one"),
        g.beat(old.member_id, old.generation_id),
        g.beat(new.member_id, new.generation_id, instance="two"),
        g.leave("", instance="one"),
        g.leave("", instance="one"),
    ]


def a_second_member(g):
    """While one comes, the others are told to join again."""
    first = g.settled()
    me, generation = first.member_id, first.generation_id
    second = g.join().member_id
    with ThreadPoolExecutor(1) as background:
        coming = background.submit(g.join, second)
        wait_until(lambda: g.beat(me, generation) != 0)
        during = [
            g.beat(me, generation),
            g.sync(me, generation),
            g.commit(me, generation),
            g.beat(second, generation),
            g.describe()[1],
        ]
        again = g.join(me)
        come = coming.result(20)
    third = g.join()
    return during + [
        again.error_code,
        come.error_code,
        g.beat(me, generation),
        g.commit(me, generation),
        g.commit(me, again.generation_id),
        third.error_code,
        g.join(third.member_id).error_code,
        g.join(version=3).error_code,
    ]


def whole_groups(g):
    never = [
        g.delete(),
        g.describe(),
        g.describe(5),
        g.describe_consumer(),
        g.delete_offset(),
        g.delete_offset(name=""),
    ]
    joined = g.settled()
    g.commit(joined.member_id, joined.generation_id)
    lively = [g.delete(), g.describe(), g.describe_consumer(), g.delete_offset(), g.delete_offset(topic="nowhere")]
    g.leave(joined.member_id)
    return never + lively + [g.describe(), g.delete_offset(), g.delete(), g.delete(), g.describe()]


def other_kinds(g):
    """Of members that are no consumers nobody knows what they are subscribed to."""
    joined = g.member(kind="connect", protocols=[("v1", b"anything")])
    me = joined.member_id
    g.sync(me, joined.generation_id, kind="connect", protocol="v1", to=[me])
    return [g.commit(me, joined.generation_id), g.delete_offset(), g.consume("me")]


def bad_heartbeats(g):
    return [
        g.consume("me", name=""),
        g.consume(""),
        g.consume("me", rebalance=-1),
        g.consume("me", topics=None),
        g.consume("me", owned=None),
        g.consume("me", instance=""),
        g.consume("me", rack=""),
        g.consume("me", assignor="nothing"),
        g.consume("me", -2),
        g.consume("me", -3),
        g.consume("me", topics=None, regex="("),
        g.consume("me", 1),
        g.consume("me", -1),
        g.consume("", 1, 0),
        g.describe(),
    ]


def epochs(g):
    _, epoch = g.consume("me")
    return [
        g.consume("me", epoch + 1),
        g.consume("nobody", epoch),
        g.consume("me", epoch, topics=None, regex="("),
        g.commit("me", epoch, 9),
        g.commit("me", epoch, 8),
        g.commit("me", epoch + 1, 9),
        g.commit("me", epoch - 1, 9),
        g.commit("nobody", epoch, 9),
        g.commit(version=9),
        g.commit_by_id(g.topic_id, "me", epoch),
        g.commit_by_id(g.topic_id, "me", epoch + 1),
        g.fetch("me", epoch),
        g.fetch("me", epoch + 1),
        g.fetch("me", epoch - 1),
        g.fetch("nobody", epoch),
        g.fetch(),
        g.fetch_by_id(g.topic_id, "me", epoch),
        g.fetch_by_id(g.topic_id, "me", epoch + 1),
        g.beat("me", epoch),
        g.sync("me", epoch),
        g.leave("nobody"),
        g.delete(),
        g.delete_offset(),
        g.describe(),
        g.describe_consumer(),
        g.consume("you")[:1],
        g.consume("they"),
        g.consume("me", -1),
        g.consume("me", -1),
        g.consume("me", epoch),
    ]


def moves(g):
    """Classic consumers may come to a group of the other protocol, within its size."""
    g.consume("me")
    return [g.join("nobody").error_code, g.join(kind="connect", version=3).error_code]


def static_epochs(g):
    _, epoch = g.consume("me", instance="one")
    return [
        g.consume("you", instance="one"),
        g.consume("you", epoch, instance="one"),
        g.consume("me", epoch, instance="two"),
        g.consume("me", -2, instance="one"),
        g.consume("you", instance="one")[:1],
        g.consume("me", epoch, instance="one"),
        g.consume("me", -1, instance="one"),
    ]


# What a real Kafka answers.
CASES = {
    first_join: [79, 0, 25],
    bad_joins: [24, 26, 26, 23, 23, 25, 25],
    other_protocols: [23, 23],
    syncs: [27, 0, 25, 22, 22, 23, 23, 23, 24, 0, 0],
    beats: [0, 25, 22, 22, 25, 24, 25],
    commits: [0, 25, 22, 22, 25, 25, 25, 3, 3, 0, 12, 25, 3, 0, 100],
    commits_without_members: [22, 69, 0, 0, 25, 0, 3, 0, 100, 0, 0, [0, 0], [0, 100]],
    leaves: [[25], [0, 25], [0, 25], [0, 25], [24], [25], [0, 25], [0, 0], [0, 25], 25],
    instances: [0, 0, 82, 82, 82, 82, [0, 82], 25, 25, [0, 0], [0, 25]],
    a_second_member: [27, 27, 0, 27, "PreparingRebalance", 0, 0, 22, 22, 27, 81, 81, 81],
    whole_groups: [
        69,
        [69, "Dead"],
        [0, "Dead"],
        69,
        [69],
        [24],
        68,
        [0, "Stable"],
        69,
        [0, 86],
        [0, 3],
        [0, "Empty"],
        [0, 0],
        0,
        69,
        [69, "Dead"],
    ],
    other_kinds: [0, [68], [69]],
    bad_heartbeats: [
        [42],
        [42],
        [42],
        [42],
        [42],
        [42],
        [42],
        [112],
        [42],
        [42],
        [128],
        [69],
        [69],
        [42],
        [69, "Dead"],
    ],
    epochs: [
        [110],
        [25],
        [128],
        0,
        35,
        113,
        113,
        25,
        25,
        0,
        113,
        0,
        113,
        113,
        25,
        0,
        [0, 0],
        [113],
        25,
        25,
        [0, 25],
        68,
        [0, 86],
        [69, "Dead"],
        0,
        [0],
        [81],
        [0, -1],
        [25],
        [25],
    ],
    moves: [0, 81],
    static_epochs: [[111], [82], [25], [0, -2], [0], [82], [82]],
}


@pytest.fixture
def tell(launch):
    """Tells a story of a new group, on a broker of its own."""
    broker = launch(settings=SETTINGS)
    asker = Asker(broker.port)
    T = topics.CreateTopicsRequest.CreatableTopic
    made = [T(name="errors", num_partitions=1, replication_factor=1, assignments=[], configs=[])]
    create = topics.CreateTopicsRequest(topics=made, timeout_ms=15000, validate_only=False)
    topic_id = asker.ask(create, 7).topics[0].topic_id
    # Kafka makes its topic of offsets when somebody looks for a coordinator, and takes a while.
    find = FindCoordinatorRequest(key="any", key_type=0, coordinator_keys=[])
    wait_until(lambda: asker.ask(find, 2).error_code == 0)
    wait_until(lambda: Group(broker.port, "errors", topic_id).commit() == 0)
    return lambda story: story(Group(broker.port, "errors", topic_id))


def test_errors_are_those_of_kafka(tell):
    for story, codes in CASES.items():
        assert (story.__name__, tell(story)) == (story.__name__, codes)
