"""Transactional producers of real clients behind one interface, and readers with both isolations.

A producer is known by a name of the test's choice; two with one transactional id fence each other. Records are texts.
"""

import confluent_kafka as ck
from confluent_kafka import Consumer, Producer, TopicPartition

from .clients.base import Failure, LineDriver
from .processes import CACHE


class Java(LineDriver):
    """The Java client: version 2 of transactions where the broker has it."""

    name = "java-transactions"

    def argv(self):
        log = f"-Dlog4j2.configurationFile={CACHE}/kafka/config/tools-log4j2.properties"
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", log]
        return ["java", *options, "-cp", self.classpath(), "Transactions", self.bootstrap]

    def classpath(self) -> str:
        return f"{CACHE}/java:{CACHE}/kafka/libs/*"

    def init(self, producer, id, timeout_ms=60_000):
        self.ask("init", producer=producer, id=id, timeout_ms=timeout_ms)

    def begin(self, producer):
        self.ask("begin", producer=producer)

    def send(self, producer, topic, partition, *values) -> list[int]:
        return self.ask("send", producer=producer, topic=topic, partition=partition, values=values)

    def offsets(self, producer, group, topic, offsets: dict[int, int]):
        self.ask("offsets", producer=producer, group=group, topic=topic, offsets=offsets)

    def commit(self, producer):
        self.ask("commit", producer=producer)

    def abort(self, producer):
        self.ask("abort", producer=producer)

    def read(self, topic, partition=0, *, committed=True, offset=0, bytes=1 << 20) -> list[tuple[int, str]]:
        isolation = "read_committed" if committed else "read_uncommitted"
        request = {"topic": topic, "partition": partition, "isolation": isolation, "from": offset, "bytes": bytes}
        found = self.ask("read", **request)
        assert found["position"] >= found["end"], f"{isolation} stopped at {found}"
        return [tuple(record) for record in found["records"]]

    def committed(self, group, topic, partition=0, *, timeout_s=10.0) -> int:
        timeout_ms = int(timeout_s * 1000)
        return self.ask("committed", group=group, topic=topic, partition=partition, timeout_ms=timeout_ms)


class OldJava(Java):
    """The Java client 3.9: version 1 of transactions, whatever the broker has."""

    name = "java-3.9-transactions"

    def classpath(self):
        return f"{next((CACHE / 'java-old').glob('*.jar'))}:{super().classpath()}"


class Librdkafka:
    """librdkafka: version 1 of transactions, whatever the broker has."""

    def __init__(self, bootstrap, _directory):
        self.bootstrap, self.producers = bootstrap, {}

    def init(self, producer, id, timeout_ms=60_000):
        config = {"bootstrap.servers": self.bootstrap, "transactional.id": id, "transaction.timeout.ms": timeout_ms}
        self.producers[producer] = made = Producer(config)
        self._try(made.init_transactions, 30)

    def begin(self, producer):
        self._try(self.producers[producer].begin_transaction)

    def send(self, producer, topic, partition, *values) -> list[int]:
        placed, made = [], self.producers[producer]
        for value in values:
            told = lambda error, message: placed.append((error, message.offset()))  # noqa: E731
            self._try(lambda text: made.produce(topic, text, partition=partition, on_delivery=told), value.encode())
        self._try(made.flush, 30)
        errors = [error for error, _ in placed if error]
        if errors:
            raise Failure(errors[0].str())
        return [offset for _, offset in placed]

    def offsets(self, producer, group, topic, offsets: dict[int, int]):
        # The group's metadata of a consumer that is no member.
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        metadata = consumer.consumer_group_metadata()
        self._try(self.producers[producer].send_offsets_to_transaction, positions, metadata, 30)
        consumer.close()

    def commit(self, producer):
        self._try(self.producers[producer].commit_transaction, 30)

    def abort(self, producer):
        self._try(self.producers[producer].abort_transaction, 30)

    def close(self):
        self.producers.clear()

    @staticmethod
    def _try(call, *arguments):
        try:
            call(*arguments)
        except ck.KafkaException as error:
            raise Failure(f"{error.args[0].name()}: {error.args[0].str()}") from None


class FranzGo(LineDriver):
    """franz-go: version 2 of transactions where the broker has it. Its offsets go with a member's session only."""

    name = "franz-go-transactions"

    def argv(self):
        return [CACHE / "bin/franz-driver", "transactions", self.bootstrap]

    init, begin, send, commit, abort = Java.init, Java.begin, Java.send, Java.commit, Java.abort

    def offsets(self, *_):
        raise NotImplementedError


class Sarama(LineDriver):
    """sarama: version 1 of transactions, whatever the broker has. It sends offsets when it commits."""

    name = "sarama-transactions"

    def argv(self):
        return [CACHE / "bin/franz-driver", "sarama-transactions", self.bootstrap]

    init, begin, send, commit, abort, offsets = Java.init, Java.begin, Java.send, Java.commit, Java.abort, Java.offsets


CLIENTS = {"java": Java, "java-3.9": OldJava, "librdkafka": Librdkafka, "franz-go": FranzGo, "sarama": Sarama}
