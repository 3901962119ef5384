"""Consumer groups of real clients: two share a topic, one goes, the other goes on; several kinds in one group; kill -9 of the broker."""

import time

import pytest

from harness import broker as brokers
from harness import wire
from harness.group import Group

PARTITIONS = 6
SETTINGS = {
    "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000,
    "group.consumer.heartbeat.interval.ms": 500, "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.session.timeout.ms": 10000, "group.consumer.min.session.timeout.ms": 3000,
}  # fmt: skip
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
CLASSIC += [("java", "classic", "cooperative-sticky"), ("librdkafka", "classic", "cooperative-sticky")]
NEW = [(client, "consumer", assignor) for client in ("java", "librdkafka", "franz-go") for assignor in ("uniform", "range")]
EVERY = [(c, "classic", a) for c, assignors in ASSIGNORS.items() for a in assignors if (c, "classic", a) not in CLASSIC]


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
