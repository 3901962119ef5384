"""What three brokers cost while their thousand consumers wait for records that do not come: requests to the bucket where that
keeps the journal, statements where PostgreSQL does. Everything is as it is shipped. (On a virtual clock, in each run of the unit
tests: src/server/tests/trio.rs.)"""

import os
import re
import selectors
import time
from collections import Counter

import pytest
from confluent_kafka import Consumer

from harness import wire
from harness.processes import wait_until

pytestmark = [pytest.mark.strandline, pytest.mark.nightly, pytest.mark.timeout(900)]

BROKERS, CONSUMERS, MEMBERS, PARTITIONS = 3, 1000, 12, 12
MONTH_S = 30 * 24 * 3600
# Dollars per million requests on S3.
PRICES = {"create": 5.0, "list": 5.0, "read": 0.4, "delete": 0.0}
DOLLARS_MAX, STATEMENTS_MAX = 10.0, 5.0


@pytest.fixture
def cluster(launch, topic):
    def make(journal, bucket, environment=None):
        brokers = [
            launch(start=False, own={"broker_id": id, "journal": journal}, bucket=bucket) for id in range(1, BROKERS + 1)
        ]
        for broker in brokers:
            broker.environment = environment or {}
            broker.start()
        wait_until(lambda: all(broker.seen() == BROKERS for broker in brokers), 30, "all brokers know each other")
        with brokers[0].connect() as connection:
            connection.make_topic(topic, PARTITIONS)
            for partition in range(PARTITIONS):
                assert connection.produce(topic, wire.encode_batch([(None, b"x")]), partition=partition)["error"] == 0
        return brokers

    return make


class Consumers:
    """Long polls at the ends of partitions, one after another as clients make them, over so many connections; and a group, whose
    members are heard all the time."""

    def __init__(self, brokers, topic, count):
        self.selector, self.topic = selectors.DefaultSelector(), topic
        bootstrap = ",".join(broker.bootstrap for broker in brokers)
        settings = {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "latest"}
        self.members = [Consumer(settings) for _ in range(MEMBERS)]
        for member in self.members:
            member.subscribe([topic])
        for number in range(count - MEMBERS):
            connection = brokers[number % len(brokers)].connect()
            self.selector.register(connection.socket, selectors.EVENT_READ, (connection, number % PARTITIONS))
            self._ask(connection, number % PARTITIONS)

    def _ask(self, connection, partition):
        sizes = {"min_bytes": 1, "max_bytes": 50 << 20, "partition_bytes": 1 << 20}
        connection.send_fetch({self.topic: {partition: 1}}, max_wait_ms=500, session=(0, -1), forget=None, epoch=-1, **sizes)

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for member in self.members:
                assert member.poll(0) is None, "there is nothing to read"
            for key, _ in self.selector.select(min(left, 0.5)):
                connection, partition = key.data
                connection.read_frame()
                self._ask(connection, partition)

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.data[0].close()
        for member in self.members:
            member.close()


def requests(brokers) -> Counter:
    """What was asked of the bucket so far, by operation and purpose."""
    found = Counter()
    for broker in brokers:
        for name, value in broker.metrics().items():
            if label := re.fullmatch(r'strandline_bucket_requests_total\{operation="(\w+)",purpose="(\w+)",outcome="\w+"\}', name):
                found[label.groups()] += int(value)
    return found


def cost_of_a_month(brokers, consumers, seconds) -> float:
    """In dollars, for all of them."""
    before = requests(brokers)
    consumers.wait(seconds)
    asked = requests(brokers) - before
    dollars = {what: count / seconds * MONTH_S * PRICES[what[0]] / 1e6 for what, count in asked.items()}
    for what, count in asked.most_common():
        print(f"{what[0]:6} {what[1]:8} {count:5} in {seconds} s: {dollars[what]:.2f} dollars a month")
    print(f"together {sum(dollars.values()):.2f} dollars a month")
    return sum(dollars.values())


def run_on_the_bucket(cluster, minio, topic, seconds):
    brokers = cluster({"kind": "bucket"}, minio.config(f"idle-{topic}"))
    consumers = Consumers(brokers, topic, CONSUMERS)
    consumers.wait(20)  # they find their places, and what has begun ends
    dollars = cost_of_a_month(brokers, consumers, seconds)
    fenced = [line for b in brokers for line in b.log.read_text().splitlines() if "was fenced" in line]
    consumers.close()
    assert dollars <= DOLLARS_MAX and not fenced, (dollars, fenced)


def test_a_journal_in_the_bucket_costs_little_while_nothing_happens(cluster, minio, topic):
    run_on_the_bucket(cluster, minio, topic, 40)


def test_a_journal_in_the_bucket_costs_little_for_many_minutes(cluster, minio, topic):
    """As above, with what happens seldom: snapshots, trims, looks at the boundary."""
    run_on_the_bucket(cluster, minio, topic, 600)


def test_postgres_is_asked_little_while_nothing_happens(cluster, postgres, minio, topic):
    journal = postgres.journal(postgres_schema=f"test_{os.urandom(4).hex()}")
    brokers = cluster(journal, minio.config(f"idle-{topic}"), postgres.environment())
    consumers = Consumers(brokers, topic, CONSUMERS)
    consumers.wait(10)
    count = lambda: int(postgres.query("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"))  # noqa: E731
    before, seconds = count(), 20
    consumers.wait(seconds)
    rate = (count() - before) / seconds / BROKERS
    consumers.close()
    print(f"{rate:.1f} statements a second and broker")
    assert rate <= STATEMENTS_MAX
