"""Transactions of real clients: what readers see of them, fencing, time-outs, offsets of groups, and the operator's tools."""

import random
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from harness import broker as brokers
from harness import wire
from harness.clients import connect
from harness.clients.base import Failure
from harness.processes import CACHE, Child, wait_until
from harness.transactions import CLIENTS, FranzGo, Java, Sarama


@pytest.fixture(scope="module")
def broker(request, tmp_path_factory):
    kind = {"kafka": brokers.Kafka, "strandline": brokers.Strandline}[request.config.getoption("--broker")]
    settings = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000}
    made = kind(tmp_path_factory.mktemp("transactions"), settings=settings).start()
    yield made
    made.kill9()


@pytest.fixture(scope="module")
def java(broker, tmp_path_factory):
    """Reads for all tests: the Java client."""
    made = Java(broker.bootstrap, tmp_path_factory.mktemp("java"))
    yield made
    made.close()


# The others speak version 1 as librdkafka does.
EACH = [pytest.param(name, marks=[pytest.mark.nightly] if name in ("java-3.9", "sarama") else []) for name in CLIENTS]


@pytest.fixture(params=EACH)
def client(request, broker, java, tmp_path):
    if request.param == "java":
        yield java
        return
    made = CLIENTS[request.param](broker.bootstrap, tmp_path)
    yield made
    made.close()


@pytest.fixture
def log(broker, topic):
    """A topic of this test's own, of two partitions."""
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 2)
    return topic


def values(records):
    return [value for _, value in records]


def transact(client, producer, log, *texts, commit=True):
    client.begin(producer)
    client.send(producer, log, 0, *texts)
    client.send(producer, log, 1, *texts)
    (client.commit if commit else client.abort)(producer)


def test_what_is_committed_is_seen_and_what_is_aborted_is_not(client, java, log):
    client.init("p", log)
    transact(client, "p", log, "a", "b")
    transact(client, "p", log, "x", "y", commit=False)
    transact(client, "p", log, "c")
    for partition in (0, 1):
        assert java.read(log, partition) == [(0, "a"), (1, "b"), (6, "c")]
        assert values(java.read(log, partition, committed=False)) == ["a", "b", "x", "y", "c"]
    for offset in range(8):
        expected = [record for record in [(0, "a"), (1, "b"), (6, "c")] if record[0] >= offset]
        assert java.read(log, offset=offset, bytes=1) == expected


def test_readers_stop_before_an_open_transaction(client, java, log):
    client.init("p", log)
    client.init("q", f"{log}-other")
    client.begin("p")
    client.send("p", log, 0, "a")
    transact(client, "q", log, "b")
    assert values(java.read(log)) == []
    assert values(java.read(log, 1)) == ["b"]
    assert values(java.read(log, committed=False)) == ["a", "b"]
    client.commit("p")
    assert values(java.read(log)) == ["a", "b"]


def test_k6_a_new_instance_fences_the_old_one(client, java, log):
    client.init("old", log)
    client.begin("old")
    client.send("old", log, 0, "lost")
    client.init("new", log)
    transact(client, "new", log, "kept")
    with pytest.raises(Failure, match="Fenced|FENCED|INVALID_PRODUCER_EPOCH|InvalidProducerEpoch|old epoch"):
        client.send("old", log, 0, "late")
        client.commit("old")
    assert values(java.read(log)) == ["kept"]


def test_k9_a_transaction_that_nobody_ends_is_aborted_in_time(client, java, log):
    client.init("p", log, timeout_ms=2000)
    client.begin("p")
    client.send("p", log, 0, "lost")
    client.init("q", f"{log}-other")
    transact(client, "q", log, "kept")
    assert values(java.read(log)) == []
    began = time.monotonic()
    wait_until(lambda: values(java.read(log)) == ["kept"], 15, "the time-out of the transaction")
    assert time.monotonic() - began < 10
    with pytest.raises(Failure):
        client.send("p", log, 0, "late")
        client.commit("p")
    assert values(java.read(log)) == ["kept"]


@pytest.mark.parametrize("timeout_ms", [0, -1, 900_001])
def test_k10_time_outs_have_a_limit(broker, log, timeout_ms):
    with wire.Connection(broker.port) as connection:
        body = wire.string(log) + wire.pack("i", timeout_ms)
        answer = connection.call(22, 0, body)
        assert answer.unpack("ih") == (0, 50)  # INVALID_TRANSACTION_TIMEOUT


def test_k13_offsets_are_committed_with_the_transaction(client, java, log):
    if isinstance(client, FranzGo):
        pytest.skip("it commits offsets of members only")
    group = f"{log}-group"
    client.init("p", log)
    client.begin("p")
    client.send("p", log, 0, "a")
    client.offsets("p", group, log, {1: 5})
    if not isinstance(client, Sarama):
        with pytest.raises(Failure, match="Timeout"):
            java.committed(group, log, 1, timeout_s=2)  # UNSTABLE_OFFSET_COMMIT until it ends
    client.commit("p")
    assert java.committed(group, log, 1) == 5
    client.begin("p")
    client.send("p", log, 0, "b")
    client.offsets("p", group, log, {1: 9})
    client.abort("p")
    assert java.committed(group, log, 1) == 5


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_franz_gos_own_copies_are_exact(broker, tmp_path):
    """Three groups of members that consume, transform and produce in transactions, each fed by the one before, while members
    come and go: the client's own test, which wants every record once and in order."""
    environment = {
        "KGO_SEEDS": broker.bootstrap, "KGO_TEST_RF": "1", "KGO_TEST_RECORDS": "30000", "KGO_TEST_MAX_TOPIC_PARTS": "7",
        "KGO_TEST_UNSAFE": "",  # it begins the next transaction while the last one is being ended
    }  # fmt: skip
    argv = [CACHE / "bin/franz-tests", "-test.run", "^TestTxnEtl$", "-test.v", "-test.timeout", "4m"]
    child = Child(argv, log=tmp_path / "franz-go.log", env=environment)
    assert child.wait(250) == 0, child.log_tail()
    assert "--- PASS: TestTxnEtl/" in child.log.read_text()


@pytest.mark.strandline
def test_k9_transactions_outlive_the_broker(launch, tmp_path, topic):
    broker = launch()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 2)
    java = Java(broker.bootstrap, tmp_path / "java")
    java.init("p", topic)
    java.init("q", f"{topic}-other")
    transact(java, "q", topic, "aborted", commit=False)
    java.begin("p")
    java.send("p", topic, 0, "before")
    broker.kill9()
    broker.restart()
    assert values(java.read(topic)) == []
    java.send("p", topic, 0, "after")
    java.commit("p")
    transact(java, "q", topic, "last")
    broker.kill9()
    broker.restart()
    assert values(java.read(topic)) == ["before", "after", "last"]
    java.close()


class Worker(threading.Thread):
    """One of the group that copies a topic to another, offsets and records in one transaction; begins anew after any error."""

    def __init__(self, bootstrap, source, target, name):
        super().__init__(daemon=True)
        self.bootstrap, self.source, self.target, self.id = bootstrap, source, target, name
        self.copied, self.begun, self.stopping = 0, 0, False
        self.start()

    def run(self):
        while not self.stopping:
            self.begun += 1
            consumer = Consumer(
                {
                    "bootstrap.servers": self.bootstrap, "group.id": "copy", "auto.offset.reset": "earliest",
                    "enable.auto.commit": False, "isolation.level": "read_committed", "session.timeout.ms": 6000,
                    "heartbeat.interval.ms": 500,
                }
            )  # fmt: skip
            producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": self.id, "linger.ms": 1})
            try:
                producer.init_transactions(20)
                consumer.subscribe([self.source])
                while not self.stopping:
                    self.copy(consumer, producer)
            except KafkaException:
                time.sleep(0.2)
            finally:
                consumer.close()

    def copy(self, consumer, producer):
        records = [record for record in consumer.consume(50, 0.2) if not record.error()]
        if not records:
            return
        producer.begin_transaction()
        for record in records:
            producer.produce(self.target, record.value(), partition=record.partition())
        ends = {}
        for record in records:
            ends[record.partition()] = record.offset() + 1
        positions = [TopicPartition(self.source, partition, end) for partition, end in ends.items()]
        try:
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 10)
            if random.random() < 0.1:
                raise KafkaException("the application has changed its mind")
            producer.commit_transaction(10)
        except KafkaException:
            producer.abort_transaction(10)
            raise
        self.copied += len(records)


@pytest.mark.nightly
@pytest.mark.strandline
def test_k13_a_copy_is_exact_whatever_dies(launch, topic, tmp_path):
    """Workers copy numbers; the broker is killed meanwhile, and workers give up at random and begin anew."""
    broker = launch(settings={"group.initial.rebalance.delay.ms": 0})
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 4)
        connection.make_topic(f"{topic}-copy", 4)
    workers = [Worker(broker.bootstrap, topic, f"{topic}-copy", f"worker-{n}") for n in range(2)]
    source = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    count = 0
    for _ in range(3):
        for _ in range(10):
            for _ in range(40):
                source.produce(topic, str(count).encode(), partition=count % 4)
                count += 1
            source.poll(0)
            time.sleep(0.2)
        broker.kill9()
        time.sleep(0.3)
        broker.restart()
    assert source.flush(60) == 0
    java = Java(broker.bootstrap, tmp_path / "java")

    def copies():
        return [int(v) for p in range(4) for v in values(java.read(f"{topic}-copy", p))]

    wait_until(lambda: len(copies()) >= count, 60, "the whole copy", every_s=1)
    for worker in workers:
        worker.stopping = True
    for worker in workers:
        worker.join(30)
    print([(worker.copied, worker.begun) for worker in workers])
    assert sorted(copies()) == list(range(count))
    java.close()


@pytest.mark.strandline
def test_operators_see_transactions_and_end_them(broker, client, java, log):
    tools = connect("java", broker.bootstrap, broker.directory / "tools")

    def run(*arguments):
        args = ["--bootstrap-server", broker.bootstrap, *arguments]
        return tools.ask("tool", **{"class": "org.apache.kafka.tools.TransactionsCommand", "args": args})

    client.init("p", log)
    transact(client, "p", log, "first")
    client.begin("p")
    (offset,) = client.send("p", log, 0, "open")
    listed = [line.split() for line in run("list").splitlines()]
    assert [line[3] for line in listed if line[0] == log] == ["Ongoing"]
    described = run("describe", "--transactional-id", log)
    assert "Ongoing" in described and f"{log}-0" in described
    producers = run("describe-producers", "--topic", log, "--partition", "0")
    assert producers.splitlines()[1].split()[-1] == str(offset)
    assert log not in run("find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0")
    run("abort", "--topic", log, "--partition", "0", "--start-offset", str(offset))
    assert values(java.read(log)) == ["first"]
    metrics = broker.metrics()
    assert metrics["strandline_state_transactional_ids"] >= 1
    assert metrics['strandline_transactions_aborted_by_total{reason="operator"}'] >= 1
    with pytest.raises(Failure):
        client.commit("p")
    tools.close()
