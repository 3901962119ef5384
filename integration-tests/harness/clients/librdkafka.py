"""librdkafka in its newest version, by confluent-kafka."""

import time

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    Producer,
    TopicPartition,
)

from ..records import Record
from .base import Client, Failure


class Librdkafka(Client):
    name = "confluent"
    says_timestamp_type = True

    def __init__(self, bootstrap, directory):
        super().__init__(bootstrap, directory)
        self.producers = {}

    def _producer(self, codec, acks, idempotent):
        made = self.producers.get((codec, acks, idempotent))
        if not made:
            config = {
                "bootstrap.servers": self.bootstrap,
                "compression.type": codec,
                "acks": acks,
                "enable.idempotence": idempotent,
                "linger.ms": 5,
                "message.timeout.ms": 40000,
                "log_level": 0,
            }
            made = self.producers[codec, acks, idempotent] = Producer(config)
        return made

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        producer = self._producer(codec, acks, idempotent)
        placed, failed = [None] * len(records), []

        def delivered(index):
            def done(error, message):
                if error:
                    failed.append(error)
                else:
                    placed[index] = (message.partition(), -1 if message.offset() is None else message.offset())

            return done

        for index, record in enumerate(records):
            options = {} if record.partition is None else {"partition": record.partition}
            if record.timestamp is not None:
                options["timestamp"] = record.timestamp
            headers = list(record.headers) or None
            producer.produce(
                topic, value=record.value, key=record.key, headers=headers, on_delivery=delivered(index), **options
            )
        if producer.flush(45):
            raise Failure("librdkafka: not all delivered within 45 s")
        if failed:
            raise Failure(f"librdkafka: {failed[0]}")
        return placed

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0, config=None):
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 200,
            "log_level": 0,
            **(config or {}),
        }
        consumer = Consumer(settings)
        found, deadline = [], time.monotonic() + timeout_s
        try:
            consumer.assign([TopicPartition(topic, partition, offset)])
            while len(found) < count and time.monotonic() < deadline:
                message = consumer.poll(0.2)
                if message is None:
                    continue
                if message.error():
                    if message.error().code() == KafkaError._PARTITION_EOF:
                        continue
                    raise Failure(f"librdkafka: {message.error()}")
                kind, at = message.timestamp()
                types = {TIMESTAMP_CREATE_TIME: "CreateTime", TIMESTAMP_NOT_AVAILABLE: None}
                found.append(
                    Record(
                        key=message.key(),
                        value=message.value(),
                        headers=tuple(message.headers() or ()),
                        timestamp=at,
                        partition=message.partition(),
                        offset=message.offset(),
                        timestamp_type=types.get(kind, "LogAppendTime"),
                    )
                )
        finally:
            consumer.close()
        return found
