"""aiokafka, which asks for old versions without looking."""

import asyncio
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from ..records import Record
from .base import Client, Failure


class AioKafka(Client):
    name = "aiokafka"
    null_headers = True
    null_records = False
    says_timestamp_type = True

    def __init__(self, bootstrap, directory):
        super().__init__(bootstrap, directory)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.producers = {}

    def _run(self, work, timeout_s=60.0):
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout_s)
        except KafkaError as error:
            raise Failure(f"aiokafka: {error!r}") from error
        except TimeoutError as error:
            future.cancel()
            raise Failure(f"aiokafka: nothing within {timeout_s} s") from error

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        return self._run(self._produce(topic, records, codec, acks, idempotent))

    async def _produce(self, topic, records, codec, acks, idempotent):
        producer = self.producers.get((codec, acks, idempotent))
        if not producer:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap,
                compression_type=None if codec == "none" else codec,
                acks="all" if acks == -1 else acks,
                enable_idempotence=idempotent,
            )
            await producer.start()
            self.producers[codec, acks, idempotent] = producer
        sent = [
            await producer.send(topic, r.value, r.key, r.partition, r.timestamp, list(r.headers) or None)
            for r in records
        ]
        done = await asyncio.gather(*sent)
        return [(d.partition, d.offset) for d in done]

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0):
        return self._run(self._fetch(topic, partition, offset, count, timeout_s), timeout_s + 20)

    async def _fetch(self, topic, partition, offset, count, timeout_s):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=200
        )
        await consumer.start()
        found = []
        try:
            here = TopicPartition(topic, partition)
            consumer.assign([here])
            consumer.seek(here, offset)
            deadline = self.loop.time() + timeout_s
            while len(found) < count and self.loop.time() < deadline:
                answer = await consumer.getmany(here, timeout_ms=200, max_records=count - len(found))
                for message in answer.get(here, []):
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
        finally:
            await consumer.stop()
        return found

    def close(self):
        async def stop():
            for producer in self.producers.values():
                await asyncio.wait_for(producer.stop(), 5)

        try:
            asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        except Exception:  # noqa: BLE001 - the broker may be gone already
            pass
        self.loop.call_soon_threadsafe(self.loop.stop)
