"""kafka-python."""

import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from ..records import Record
from .base import Client, Failure


class KafkaPython(Client):
    name = "kafka-python"
    null_headers = False
    null_records = False
    says_timestamp_type = True

    def __init__(self, bootstrap, directory):
        super().__init__(bootstrap, directory)
        self.producers = {}
        self.consumer = None

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        settings = (codec, acks, idempotent)
        producer = self.producers.get(settings)
        if not producer:
            producer = self.producers[settings] = KafkaProducer(
                bootstrap_servers=self.bootstrap,
                compression_type=None if codec == "none" else codec,
                acks="all" if acks == -1 else acks,
                enable_idempotence=idempotent,
                linger_ms=5,
            )
        try:
            futures = [producer.send(topic, r.value, r.key, list(r.headers), r.partition, r.timestamp) for r in records]
            producer.flush(40)
            return [(f.get(40).partition, f.get(40).offset) for f in futures]
        except KafkaError as error:
            raise Failure(f"kafka-python: {error!r}") from error

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0):
        if not self.consumer:
            self.consumer = KafkaConsumer(
                bootstrap_servers=self.bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=200,
            )
        here = TopicPartition(topic, partition)
        self.consumer.assign([here])
        self.consumer.seek(here, offset)
        found, deadline = [], time.monotonic() + timeout_s
        while len(found) < count and time.monotonic() < deadline:
            for message in self.consumer.poll(200).get(here, []):
                if len(found) < count:
                    found.append(
                        Record(
                            key=message.key,
                            value=message.value,
                            headers=tuple(message.headers),
                            timestamp=message.timestamp,
                            partition=message.partition,
                            offset=message.offset,
                            timestamp_type={0: "CreateTime", 1: "LogAppendTime"}.get(message.timestamp_type),
                        )
                    )
        return found

    def close(self):
        for producer in self.producers.values():
            producer.close(timeout=2)
        if self.consumer:
            self.consumer.close(timeout_ms=2000)
