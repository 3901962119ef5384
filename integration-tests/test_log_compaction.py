"""Log compaction: readers of `cleanup.policy=compact` come to the table that a real Kafka gives them, before, while and after."""

import random
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from harness import wire
from harness.broker import Kafka
from harness.clients.driver import Java
from harness.processes import wait_until
from harness.transactions import Java as JavaTransactions

pytestmark = pytest.mark.strandline

# What takes minutes by default happens within seconds.
OWN = {
    "compaction": {"objects_per_job": 16, "age_ms_max": 700, "rest_ms": 100, "objects_per_merge": 4, "takeover_ms": 0},
    "produce": {"flush_interval_ms": 0},
}
SETTINGS = {"log.cleaner.backoff.ms": 200}
CONFIGS = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "3000"}
ROUNDS = 60


def history(seed):
    """(how, records, ends well) by turns: plain by one client or the other, or a transaction of one of them."""
    chance = random.Random(seed)
    for n in range(ROUNDS):
        how = chance.choice(["java", "librdkafka", "java transaction", "librdkafka transaction"])
        records = [
            (f"k{chance.randrange(25)}", None if chance.random() < 0.25 else f"{n}.{i} " + "x" * chance.randrange(300))
            for i in range(chance.randrange(1, 12))
        ]
        yield how, records, chance.random() < 0.6


class Writer:
    """Writes histories by clients that live as long as it does."""

    def __init__(self, broker, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.java = JavaTransactions(broker.bootstrap, directory)
        self.plain = Java(broker.bootstrap, directory)
        config = {"bootstrap.servers": broker.bootstrap, "linger.ms": 0}
        self.librdkafka = Producer({**config, "enable.idempotence": True, "compression.type": "zstd"})
        self.transactional = Producer({**config, "transactional.id": "librdkafka"})
        self.transactional.init_transactions()
        self.java.init("p", "java")

    def write(self, topic, how, records, commit=True):
        from harness.records import Record

        encoded = [(key.encode(), value and value.encode()) for key, value in records]
        if how == "java":
            made = [Record(key, value) for key, value in encoded]
            assert len(self.plain.produce(topic, made, codec="lz4", idempotent=True)) == len(made)
        elif how == "java transaction":
            self.java.begin("p")
            self.java.send("p", topic, 0, *[list(record) for record in records])
            self.java.commit("p") if commit else self.java.abort("p")
        else:
            producer = self.transactional if "transaction" in how else self.librdkafka
            if producer is self.transactional:
                producer.begin_transaction()
            for key, value in encoded:
                producer.produce(topic, value, key, partition=0)
            assert producer.flush(30) == 0
            if producer is self.transactional:
                producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    def close(self):
        self.java.close()
        self.plain.close()


def consume(broker, topic, isolation="read_committed", offset=0):
    """[(offset, key, value)] by librdkafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap, "group.id": "g", "isolation.level": isolation,
            "enable.auto.commit": False, "enable.partition.eof": True,
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, offset)])
    found, until = [], time.monotonic() + 60
    while time.monotonic() < until:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            assert message.error().name() == "_PARTITION_EOF", message.error()
            consumer.close()
            return found
        found.append((message.offset(), message.key(), message.value()))
    raise AssertionError("no end of the partition")


def java_reads(broker, topic, directory, count, isolation="read_committed"):
    java = Java(broker.bootstrap, directory)
    config = {"isolation.level": isolation}
    found = [(r.offset, r.key, r.value) for r in java.fetch(topic, 0, 0, count, timeout_s=30, config=config)]
    java.close()
    return found


def table(records):
    found = {}
    for _, key, value in records:
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def last_of_each(records):
    last = {key: (offset, key, value) for offset, key, value in records}
    return sorted(last.values())


def prepare(broker, topic, configs=CONFIGS):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 1, configs=configs)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["minio", pytest.param("local", marks=pytest.mark.nightly)])
def test_a_table_is_the_same_before_and_after_and_as_on_kafka(launch, request, where, topic, tmp_path):
    bucket = request.getfixturevalue("minio").config(f"clean-{topic}") if where == "minio" else None
    broker = launch(own=OWN, settings=SETTINGS, bucket=bucket)
    kafka = Kafka(tmp_path / "kafka", settings={**SETTINGS, "log.cleaner.threads": 1}).start()
    try:
        run(broker, kafka, topic, tmp_path)
    finally:
        kafka.kill9()


def run(broker, kafka, topic, tmp_path):
    # Nothing is to happen while the history is written.
    waits = {**CONFIGS, "min.compaction.lag.ms": "3600000"}
    prepare(broker, topic, waits)
    prepare(kafka, topic, {**CONFIGS, "segment.ms": "1000"})
    writers = [Writer(broker, tmp_path / "ours"), Writer(kafka, tmp_path / "theirs")]
    for how, records, commit in history(seed=len(topic)):
        for writer in writers:
            writer.write(topic, how, records, commit)
    before = consume(broker, topic)
    end = watermark(broker, topic)
    assert table(before) == table(consume(kafka, topic))
    alter(broker, topic, "min.compaction.lag.ms", "0")
    wait_until(lambda: consume(broker, topic) == last_of_each(before), 60, "the last record of each key", every_s=0.5)
    after = last_of_each(before)
    assert java_reads(broker, topic, tmp_path, len(after)) == after
    # What was aborted is gone for those too who would read it.
    assert consume(broker, topic, "read_uncommitted") == after
    assert watermark(broker, topic) == end and beginning(broker, topic) == 0
    check_by_offset(broker, topic, after, end)
    assert metric(broker, 'jobs_total{result="failed"}') == 0
    # After their time tombstones go, with what comes later.
    time.sleep(3.5)
    for writer in writers:
        writer.write(topic, "java", [("late", "1")])
    wanted = [record for record in after if record[2] is not None] + [(end, b"late", b"1")]
    wait_until(lambda: consume(broker, topic) == wanted, 60, "that tombstones go", every_s=0.5)
    theirs = until_cleaned(kafka, topic, writers[1], len(before))
    ours = table(java_reads(broker, topic, tmp_path, len(wanted)))
    assert ours == {key: value for key, value in table(theirs).items() if key != b"roll"}
    # The same from the bucket and the journal alone, and the producers go on.
    broker.kill9()
    broker.restart()
    assert consume(broker, topic) == wanted
    for how in ("java transaction", "librdkafka transaction", "java", "librdkafka"):
        writers[0].write(topic, how, [("k1", how), ("later", None)])
    assert table(consume(broker, topic))[b"k1"] == b"librdkafka"
    for writer in writers:
        writer.close()


def until_cleaned(kafka, topic, writer, count):
    """What a reader finds on a real Kafka when its cleaner has done something: it spares the newest segment, which rolls when
    something is written."""
    found = []

    def is_shorter():
        nonlocal found
        writer.write(topic, "librdkafka", [("roll", "1")])
        found = consume(kafka, topic)
        return len(found) < count / 2

    wait_until(is_shorter, 90, "Kafka's cleaner", every_s=1.5)
    return java_reads(kafka, topic, kafka.directory, len(found))


def metric(broker, name):
    return broker.metrics().get(f"strandline_cleaning_{name}", 0)


def watermark(broker, topic):
    with wire.Connection(broker.port) as connection:
        return connection.list_offsets(topic, -1)[2]


def beginning(broker, topic):
    with wire.Connection(broker.port) as connection:
        return connection.list_offsets(topic, -2)[2]


def alter(broker, topic, name, value):
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    change = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})  # its answers go with it
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(20)


def check_by_offset(broker, topic, records, end):
    """Each offset, also one whose record is gone, leads to the next that is there."""
    with wire.Connection(broker.port) as connection:
        for offset in range(end):
            batches = wire.decode_batches(connection.fetch_one(topic, offset, partition_bytes=1)["data"])
            assert batches and batches[0].last_offset >= offset, f"nothing at {offset}"
            if any(batch.attributes & 0x27 for batch in batches):
                continue  # ends of transactions, and what this decoder can't decompress
            found = [at for batch in batches for at, *_ in batch.records() if at >= offset]
            later = [at for at, *_ in records if at >= offset]
            assert found == later[: len(found)]


@pytest.mark.timeout(240)
def test_readers_and_writers_beside_the_cleaner(launch, topic, tmp_path):
    """Who reads again and again while logs are compacted all the time comes to the table that was written; kills in between."""
    own = {**OWN, "snapshot": {"entries_between": 50, "kept_min": 1, "kept_hours": 0}}
    broker = launch(own=own, settings=SETTINGS)
    prepare(broker, topic, {**CONFIGS, "delete.retention.ms": "60000"})
    writer, wanted, jobs = Writer(broker, tmp_path / "writer"), {}, 0
    for n, (how, records, commit) in enumerate(history(seed=3)):
        writer.write(topic, how, records, commit)
        if commit or "transaction" not in how:
            for key, value in records:
                wanted[key.encode()] = value and value.encode()
        if n % 6 == 5:
            time.sleep(0.8)
            assert table(consume(broker, topic)) == {k: v for k, v in wanted.items() if v is not None}, n
        if n % 20 == 19:
            jobs += metric(broker, 'jobs_total{result="done"}')
            assert metric(broker, 'jobs_total{result="failed"}') == 0
            broker.kill9()
            broker.restart()
    writer.close()
    assert jobs > 0
