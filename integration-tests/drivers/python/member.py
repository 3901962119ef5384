"""A member of a consumer group in one of the Python clients: member.py CONFIG; see harness/group.py for what it prints."""

import asyncio
import json
import sys
import threading
import time
from zlib import crc32

CONFIG = json.loads(sys.argv[1])
STOP = threading.Event()
LOCK = threading.Lock()


def emit(event, **fields):
    with LOCK:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def commands():
    sys.stdin.readline()  # "close", or the end of the process that reads us
    STOP.set()


def librdkafka():
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    owned = set()
    settings = {
        "bootstrap.servers": CONFIG["bootstrap"],
        "group.id": CONFIG["group"],
        "client.id": CONFIG["name"],
        "group.protocol": CONFIG["protocol"],
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
        "reconnect.backoff.max.ms": 300,
        "log_level": 0,
    }
    if CONFIG["protocol"] == "classic":
        settings["partition.assignment.strategy"] = CONFIG["assignor"]
        settings["session.timeout.ms"] = CONFIG["session_ms"]
        settings["heartbeat.interval.ms"] = CONFIG["heartbeat_ms"]
    elif CONFIG["assignor"]:
        settings["group.remote.assignor"] = CONFIG["assignor"]
    if CONFIG["instance"]:
        settings["group.instance.id"] = CONFIG["instance"]
    consumer = Consumer(settings)

    def changed(partitions, gained):
        here = {p.partition for p in partitions}
        owned.update(here) if gained else owned.difference_update(here)
        emit("owned", partitions=sorted(owned), generation=None)

    consumer.subscribe(
        [CONFIG["topic"]],
        on_assign=lambda _, partitions: changed(partitions, True),
        on_revoke=lambda _, partitions: changed(partitions, False),
        on_lost=lambda _, partitions: changed(partitions, False),
    )
    late = {}  # what could not be committed yet
    while not STOP.is_set():
        messages = [m for m in consumer.consume(100, 0.1) if not m.error()]
        if messages:
            emit("records", records=[[m.partition(), m.offset(), crc32(m.value(), crc32(m.key() or b""))] for m in messages])
            late.update({m.partition(): m.offset() + 1 for m in messages})
        if late:
            offsets = {p: o for p, o in late.items() if p in owned}
            try:
                if offsets:
                    done = consumer.commit(
                        offsets=[TopicPartition(CONFIG["topic"], p, o) for p, o in offsets.items()], asynchronous=False
                    )
                    assert all(p.error is None for p in done), [str(p.error) for p in done]
                    emit("committed", offsets=offsets)
                late.clear()
            except (KafkaException, AssertionError) as error:
                emit("error", text=f"commit: {error}")
    consumer.close()


def arguments():
    """Of kafka-python and aiokafka, which have the same names for them."""
    return {
        "bootstrap_servers": CONFIG["bootstrap"],
        "group_id": CONFIG["group"],
        "client_id": CONFIG["name"],
        "group_instance_id": CONFIG["instance"],
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": 100,
        "session_timeout_ms": CONFIG["session_ms"],
        "heartbeat_interval_ms": CONFIG["heartbeat_ms"],
    }


def kafka_python():
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors import range as ranges
    from kafka.coordinator.assignors import roundrobin
    from kafka.coordinator.assignors.sticky import sticky_assignor
    from kafka.errors import KafkaError

    assignors = {
        "range": ranges.RangePartitionAssignor,
        "roundrobin": roundrobin.RoundRobinPartitionAssignor,
        "sticky": sticky_assignor.StickyPartitionAssignor,
    }
    consumer = KafkaConsumer(
        **arguments(),
        reconnect_backoff_max_ms=300,
        partition_assignment_strategy=[assignors[CONFIG["assignor"]]],
    )

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            emit("owned", partitions=[], generation=None)

        def on_partitions_assigned(self, assigned):
            emit("owned", partitions=sorted(p.partition for p in consumer.assignment()), generation=None)

    consumer.subscribe([CONFIG["topic"]], listener=Listener())
    late = False
    while not STOP.is_set():
        found = consumer.poll(1000, max_records=100)  # one that ends during a join may never end it (3.0.12)
        records = [[r.partition, r.offset, crc32(r.value, crc32(r.key or b""))] for batch in found.values() for r in batch]
        if records:
            emit("records", records=records, generation=consumer._coordinator._generation.generation_id)
        if records or late:
            try:
                consumer.commit()
                emit("committed", offsets={p.partition: consumer.position(p) for p in consumer.assignment()})
                late = False
            except KafkaError as error:
                emit("error", text=f"commit: {error!r}")
                late = True
    consumer.close()


async def aiokafka():
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from aiokafka.errors import KafkaError

    assignors = {
        "range": RangePartitionAssignor,
        "roundrobin": RoundRobinPartitionAssignor,
        "sticky": StickyPartitionAssignor,
    }
    consumer = AIOKafkaConsumer(
        **arguments(),
        partition_assignment_strategy=[assignors[CONFIG["assignor"]]],
    )

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_revoked(self, revoked):
            emit("owned", partitions=[], generation=None)

        async def on_partitions_assigned(self, assigned):
            emit("owned", partitions=sorted(p.partition for p in assigned), generation=None)

    await consumer.start()
    consumer.subscribe([CONFIG["topic"]], listener=Listener())
    late = {}
    while not STOP.is_set():
        found = await consumer.getmany(timeout_ms=100, max_records=100)
        records = [[r.partition, r.offset, crc32(r.value, crc32(r.key or b""))] for batch in found.values() for r in batch]
        if records:
            emit("records", records=records, generation=consumer._coordinator.generation)
            late.update({place: batch[-1].offset + 1 for place, batch in found.items()})
        if late:
            offsets = {p: o for p, o in late.items() if p in consumer.assignment()}
            try:
                if offsets:
                    await consumer.commit(offsets)
                    emit("committed", offsets={p.partition: o for p, o in offsets.items()})
                late.clear()
            except KafkaError as error:
                emit("error", text=f"commit: {error!r}")
                await asyncio.sleep(0.05)
    await consumer.stop()


threading.Thread(target=commands, daemon=True).start()
if CONFIG["client"] == "aiokafka":
    asyncio.run(aiokafka())
else:
    {"librdkafka": librdkafka, "kafka-python": kafka_python}[CONFIG["client"]]()
emit("closed", at=time.time())
