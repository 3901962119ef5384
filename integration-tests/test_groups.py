"""Consumer groups of real clients: two share a topic, one goes, the other goes on; several kinds in one group; kill -9 of the broker."""

import random
import time
from zlib import crc32

import pytest

from harness import broker as brokers
from harness import wire
from harness.group import SETTINGS, Group

PARTITIONS = 6
ASSIGNORS = {
    "java": ["range", "roundrobin", "sticky", "cooperative-sticky"],
    "librdkafka": ["range", "roundrobin", "cooperative-sticky"],
    "kafka-python": ["range", "roundrobin", "sticky"],
    "aiokafka": ["range", "roundrobin", "sticky"],
    "kafkajs": ["range", "RoundRobinAssigner"],
    "franz-go": ["range", "roundrobin", "sticky", "cooperative-sticky"],
    "sarama": ["range", "roundrobin", "sticky"],
}
CLASSIC = [(client, "classic", assignors[0]) for client, assignors in ASSIGNORS.items()]
CLASSIC += [("java", "classic", "cooperative-sticky")]
NEW = [(client, "consumer", "uniform") for client in ("java", "librdkafka", "franz-go")]
EVERY = [(c, "classic", a) for c, assignors in ASSIGNORS.items() for a in assignors if (c, "classic", a) not in CLASSIC]
EVERY += [(client, "consumer", "range") for client, *_ in NEW]


def shown(case):
    return "-".join(case)


@pytest.fixture(scope="module")
def broker(request, tmp_path_factory):
    """A broker that does not wait for further members."""
    kind = {"kafka": brokers.Kafka, "strandline": brokers.Strandline}[request.config.getoption("--broker")]
    made = kind(tmp_path_factory.mktemp("groups"), settings=SETTINGS).start()
    yield made
    made.kill9()


@pytest.fixture
def group(broker, topic, tmp_path):
    """Makes the group of this test; what is left of it ends with the test."""
    made = []

    def make(on=broker, **options):
        with wire.Connection(on.port) as connection:
            connection.make_topic(topic, PARTITIONS)
        made.append(Group(on, topic, tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Writer:
    """Writes numbered records in small batches to all partitions in turn."""

    def __init__(self, group):
        self.group, self.counts = group, dict.fromkeys(range(PARTITIONS), 0)

    def write(self, rounds, size=5, pause_s=0.0):
        with wire.Connection(self.group.broker.port) as connection:
            for _ in range(rounds):
                for partition, count in self.counts.items():
                    batch = wire.encode_batch([(None, f"{partition}-{count + n}".encode()) for n in range(size)])
                    assert connection.produce(self.group.topic, batch, partition=partition)["error"] == 0
                    self.counts[partition] += size
                time.sleep(pause_s)

    def check_contents(self):
        for member in self.group.members:
            for partition, offset, seen in member.sums:
                assert seen == crc32(f"{partition}-{offset}".encode()), f"{member}: another record at {partition}, {offset}"

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(partition, offset) for partition, count in self.counts.items() for offset in range(count)]

    def all_read(self):
        """Waits until the group has read and committed everything."""
        self.group.wait_read(len(self.places))
        self.group.wait_committed(self.counts)


def in_order(member):
    last = {}
    for partition, offset in member.records:
        assert offset > last.get(partition, -1), f"{member} read {offset} of {partition} after {last[partition]}"
        last[partition] = offset


def two_members(group, client):
    """The life of a group of two: join, read, one closes in the middle of a load, the other takes over."""
    first, second = group.join(client), group.join(client)
    group.settle(PARTITIONS)
    writer = Writer(group)
    writer.write(4)
    writer.all_read()
    assert first.records and second.records
    second.ask_to_close()
    writer.write(10, pause_s=0.05)
    second.close()
    group.settle(PARTITIONS)
    writer.write(2)
    writer.all_read()
    assert sorted(group.read) == writer.places, "read twice or skipped"
    in_order(first)
    first.close()
    third = group.join(client)
    group.settle(PARTITIONS)
    writer.write(1)
    writer.all_read()
    assert sorted(group.read) == writer.places, "a new member begins elsewhere than at the committed offsets"
    writer.check_contents()
    third.close()


@pytest.mark.parametrize("client,protocol,assignor", CLASSIC, ids=map(shown, CLASSIC))
def test_two_members(group, client, protocol, assignor):
    two_members(group(protocol=protocol, assignor=assignor), client)


@pytest.mark.nightly
@pytest.mark.parametrize("client,protocol,assignor", EVERY, ids=map(shown, EVERY))
def test_two_members_with_every_assignor(group, client, protocol, assignor):
    two_members(group(protocol=protocol, assignor=assignor), client)


@pytest.mark.parametrize("client,protocol,assignor", NEW, ids=map(shown, NEW))
def test_two_members_of_the_new_protocol(group, client, protocol, assignor):
    two_members(group(protocol=protocol, assignor=assignor), client)


MIXED = [
    ("java", "librdkafka", "franz-go"), ("kafka-python", "aiokafka", "kafkajs"), ("sarama", "java", "kafkajs"),
    ("librdkafka", "kafka-python", "sarama"), ("franz-go", "kafkajs", "aiokafka"), ("aiokafka", "sarama", "franz-go"),
]  # fmt: skip
MIXED = [pytest.param(m, id="-".join(m), marks=[pytest.mark.nightly] if n > 1 else []) for n, m in enumerate(MIXED)]


@pytest.mark.parametrize("clients", MIXED)
def test_mixed_clients_in_one_group(group, clients):
    """All assign by range; whoever leads decides for the others. They leave one after the other, the last reads it all."""
    group = group(assignor="range")
    members = [group.join(client) for client in clients]
    group.settle(PARTITIONS)
    assert all(len(m.owned) == PARTITIONS // 3 for m in members)
    writer = Writer(group)
    writer.write(3)
    writer.all_read()
    for member in members:
        assert member.records
        member.close()
        writer.write(2)
        if group.present:
            group.settle(PARTITIONS)
            writer.all_read()
            assert sorted(group.read) == writer.places
    group.join(clients[0])
    writer.all_read()
    assert sorted(group.read) == writer.places


LIVES = [pytest.param(*case, id=shown(case)) for case in CLASSIC + NEW]
LIVES += [pytest.param("librdkafka", "classic", "cooperative-sticky", marks=pytest.mark.nightly)]


@pytest.mark.strandline  # a real Kafka is away for ten seconds and lets about half of these clients join again
@pytest.mark.parametrize("client,protocol,assignor", LIVES)
def test_members_go_on_after_kill9_of_the_broker(launch, group, client, protocol, assignor):
    """The membership is unchanged: nobody is asked to join again, nobody gets other partitions, no commit is lost."""
    broker = launch(settings=SETTINGS)
    group = group(on=broker, protocol=protocol, assignor=assignor)
    # Java that reaches no broker at all forgets its metadata (KIP-899); a leader then joins again unasked, on a Kafka too.
    members = [group.join(client, metadata_recovery="none") for _ in range(2)]
    group.settle(PARTITIONS)
    writer = Writer(group)
    writer.write(4)
    writer.all_read()
    before = [(m.of("owned"), m.generations) for m in members]
    writer.write(4, pause_s=0.02)
    broker.kill9()
    acknowledged = {}
    for event in [e for m in members for e in m.of("committed")]:
        for partition, offset in event["offsets"].items():
            acknowledged[int(partition)] = max(offset, acknowledged.get(int(partition), 0))
    broker.restart()
    for partition, offset in group.committed(PARTITIONS).items():
        assert offset >= acknowledged.get(partition, 0), f"partition {partition} went back"
    writer.write(4, pause_s=0.02)
    writer.all_read()
    assert sorted(group.read) == writer.places
    assert [(m.of("owned"), m.generations) for m in members] == before, [m.events for m in members]


@pytest.mark.parametrize("client", ["java", "librdkafka"])
def test_a_static_member_that_comes_back_disturbs_nobody(group, client):
    """It is killed, so it does not leave; under its instance's name it gets what it had (KIP-345)."""
    group = group(session_ms=30_000)
    stays, goes = group.join(client, instance="one"), group.join(client, instance="two")
    group.settle(PARTITIONS)
    writer = Writer(group)
    writer.write(2)
    writer.all_read()
    before, share = stays.of("owned"), goes.owned
    goes.kill9()
    back = group.join(client, instance="two")
    group.settle(PARTITIONS)
    writer.write(2)
    writer.all_read()
    assert sorted(group.read) == writer.places
    assert (back.owned, stays.of("owned")) == (share, before)


def test_a_group_moves_to_the_new_protocol_and_back(group):
    """Its members are replaced one by one, and it reads all the time (KIP-848's online upgrade and downgrade). As in Kafka not
    from every assignor: Java's cooperative one adds data of its own to what it assigns, which would be lost."""
    group = group(assignor="range")
    writer = Writer(group)
    present = [group.join("java"), group.join("librdkafka")]
    group.settle(PARTITIONS)
    for protocol, assignor in (("consumer", "uniform"), ("classic", "range")):
        for client in ("java", "librdkafka"):
            writer.write(2)
            present.append(group.join(client, protocol=protocol, assignor=assignor))
            group.settle(PARTITIONS)
            writer.write(2)
            present.pop(0).close()
            group.settle(PARTITIONS)
            writer.all_read()
    assert sorted(set(group.read)) == writer.places
    writer.check_contents()


@pytest.mark.nightly
@pytest.mark.timeout(120)
@pytest.mark.parametrize("repetition", range(10))
def test_churn(group, repetition):
    """Every half second a member comes or goes, for 30 s; afterwards the group settles, and nothing was skipped."""
    chance = random.Random(repetition)
    protocol, clients, assignor = [
        ("classic", ("librdkafka", "franz-go", "sarama"), "range"),
        ("consumer", ("librdkafka", "franz-go"), "uniform"),
    ][repetition % 2]
    group = group(protocol=protocol, assignor=assignor)
    writer = Writer(group)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        staying = [m for m in group.present if not m.child.process.stdin.closed]
        if len(staying) < 2 or (len(staying) < PARTITIONS and chance.random() < 0.5):
            group.join(chance.choice(clients))
        else:
            chance.choice(staying).ask_to_close()
        writer.write(1, size=2)
        time.sleep(0.5)
    for member in group.present:
        if member.child.process.stdin.closed:
            member.child.wait(20)
    group.settle(PARTITIONS)
    writer.all_read()
    assert sorted(set(group.read)) == writer.places, "skipped"
    writer.check_contents()
    for member in group.members:
        assert member.child.alive() or member.of("closed"), f"{member}: {member.child.log_tail()}"
