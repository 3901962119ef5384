"""Transactions in librdkafka, for the checker: transactional.py CONFIG; harness/transactional.py says what is in it."""

import itertools
import json
import random
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from recorder import Recorder, encoded, micros, seen
from works import guarded, until_told

CONFIG = json.loads(sys.argv[1])
RUN, BANK, INPUT, OUTPUT, GROUP = (CONFIG[name] for name in ("run", "bank", "input", "output", "group"))
PARTITIONS = CONFIG["partitions"]
ALL = [(topic, partition) for topic in (BANK, INPUT, OUTPUT) for partition in range(PARTITIONS)]
STOP = threading.Event()
PATIENCE_S = 60.0  # without anything that is due
NUMBERS = itertools.count(CONFIG["process"])  # each instance of a producer is a logical client of its own
RECORDER = Recorder(CONFIG["file"])
COMMON = {
    "bootstrap.servers": CONFIG["bootstrap"],
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    # When every broker is away, librdkafka (2.16.0) else forgets them all, also the coordinators, and sending offsets can
    # hang for ever, whatever its time-out (its issue 5511).
    "metadata.recovery.strategy": "none",
    "log_level": 0,
}


class Closed(Exception):
    """The instance is fenced, or does not know what became of its transaction."""


class Transactional:
    """One instance of a producer; each operation of a transaction is written down."""

    def __init__(self, id):
        self.process, self.number, self.counter, self.wrong = next(NUMBERS), 0, itertools.count(), False
        settings = {"transactional.id": id, "transaction.timeout.ms": CONFIG["timeout_ms"], "linger.ms": 2}
        self.producer = Producer({**COMMON, **settings, "request.timeout.ms": CONFIG["request_timeout_ms"]})
        asked = {"transactional_id": id, "timeout_ms": CONFIG["timeout_ms"]}
        self._settle("init_producer", asked, self.producer.init_transactions)

    def begin(self):
        self.number, self.wrong = self.number + 1, False
        try:
            self.producer.begin_transaction()
        except KafkaException as failure:
            raise Closed(str(failure)) from None

    def send(self, topic, partition, source=None, padding=""):
        now, counter = time.time_ns() // 1_000_000, next(self.counter)
        of = f"of={source[0]}/{source[1]};" if source else ""
        value = encoded(RUN, self.process, counter, topic, partition, now, of + padding)
        asked = {"topic": topic, "partition": partition, "once": True, "acked": True, "values": [value], "transaction": self.number}
        operation = RECORDER.begin(self.process, "send", **asked)

        def delivered(error, message):
            if error is None:
                RECORDER.ok(operation, offset=message.offset() if message.offset() >= 0 else None)
            elif error.code() == KafkaError._PURGE_QUEUE:
                RECORDER.fail(operation, error)
            else:
                RECORDER.info(operation, error)
            self.wrong = self.wrong or error is not None

        headers = [("counter", str(counter))]
        key = f"{self.process}-{counter % 7}"
        told = {"headers": headers, "on_delivery": delivered}
        try:
            self.producer.produce(topic, value.encode(), key=key, partition=partition, timestamp=now, **told)
        except KafkaException as failure:  # the transaction is to be aborted already
            RECORDER.fail(operation, failure)
            self.wrong = True

    def send_offsets(self, consumer, positions):
        """Whether they are part of the transaction."""
        offsets = [[topic, partition, offset] for (topic, partition), offset in positions.items()]
        asked = {"transaction": self.number, "group": GROUP, "member": "", "generation": -1, "offsets": offsets}
        places = [TopicPartition(*place) for place in offsets]
        metadata = consumer.consumer_group_metadata()
        return self._settle("send_offsets", asked, lambda s: self.producer.send_offsets_to_transaction(places, metadata, s))

    def end(self, commit):
        """Commits it, if all is well and that is wanted; says whether it is committed."""
        self.producer.flush(CONFIG["timeout_ms"] / 1000)
        commit = commit and not self.wrong and len(self.producer) == 0
        end = self.producer.commit_transaction if commit else self.producer.abort_transaction
        done = self._settle("end_transaction", {"transaction": self.number, "commit": commit}, end)
        if commit and not done:
            self._settle("end_transaction", {"transaction": self.number, "commit": False}, self.producer.abort_transaction)
        return commit and done

    def _settle(self, kind, asked, call):
        """Calls until it is known how it ends: False where the transaction has to be aborted."""
        operation, deadline = RECORDER.begin(self.process, kind, **asked), time.monotonic() + PATIENCE_S
        while True:
            try:
                call(10)
                RECORDER.ok(operation)
                return True
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable() and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                RECORDER.info(operation, failure)
                if error.txn_requires_abort() and kind != "init_producer":
                    return False
                raise Closed(error.str()) from None


def instances(id, work):
    """One instance after the other, each until it is of no more use."""
    while not STOP.is_set():
        try:
            work(Transactional(id))
        except Closed:
            STOP.wait(0.2)


def transfer(producer):
    """Moves money in a partition that is this process' own: each transaction's amounts add up to 0."""
    chance = random.Random(producer.process)
    while not STOP.is_set():
        producer.begin()
        amounts = [chance.randrange(-50, 50) for _ in range(chance.randint(1, 5))]
        for amount in [*amounts, -sum(amounts)]:
            producer.send(BANK, CONFIG["own"], padding=f"amount={amount};")
            if chance.random() < 0.1:
                producer.producer.poll(0.01)  # in several batches
        for _ in range(chance.randint(0, 4)):
            producer.send(INPUT, chance.randrange(PARTITIONS), padding="x" * chance.randrange(100))
        if chance.random() < 0.02:
            STOP.wait(CONFIG["timeout_ms"] / 1000 * chance.uniform(0.5, 1.5))
        producer.end(chance.random() < 0.8)
        STOP.wait(chance.expovariate(CONFIG["transactions_per_s"]))


def chain(producer):
    """Takes what is in the input to the output; its partitions go with its transactional id."""
    own = [(INPUT, partition) for partition in range(PARTITIONS) if partition % CONFIG["shares"] == CONFIG["share"]]
    consumer = Consumer({**COMMON, "group.id": GROUP, "isolation.level": "read_committed", "enable.auto.commit": False})
    positions = None
    while not STOP.is_set():
        if positions is None and (positions := go_back(producer.process, consumer, own)) is None:
            continue
        taken = [message for message in consumer.consume(200, 0.1) if not message.error()]
        if not taken:
            continue
        producer.begin()
        for message in taken:
            process, counter = message.value().decode().split("|")[1:3]
            producer.send(OUTPUT, message.partition(), source=(process, counter))
            positions[message.topic(), message.partition()] = message.offset() + 1
        if not producer.end(producer.send_offsets(consumer, positions)):
            positions = None
    consumer.close()


def go_back(process, consumer, own):
    """Where the group has committed, from where it reads now; None where nobody says."""
    offsets = committed(process, consumer, own)
    if offsets is not None:
        offsets = {place: offset or 0 for place, offset in offsets.items()}
        consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
    return offsets


def committed(process, consumer, places):
    operation = RECORDER.begin(process, "committed", group=GROUP)
    try:
        found = consumer.committed([TopicPartition(*place) for place in places], timeout=10)
        wrong = [p.error for p in found if p.error]
        if wrong:
            raise KafkaException(wrong[0])
    except KafkaException as failure:
        RECORDER.info(operation, failure)
        return None
    offsets = {(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}
    RECORDER.ok(operation, offsets=[[*place, offset] for place, offset in offsets.items()])
    return offsets


class Reader:
    """Reads everything with one isolation."""

    def __init__(self, read_committed):
        self.process, self.read_committed = next(NUMBERS), read_committed
        self.next = dict.fromkeys(ALL, 0)
        isolation = "read_committed" if read_committed else "read_uncommitted"
        settings = {"group.id": f"none-{self.process}", "isolation.level": isolation, "enable.auto.commit": False}
        self.consumer = Consumer({**COMMON, **settings, "enable.partition.eof": True, "auto.offset.reset": "error"})
        self.consumer.assign([TopicPartition(*place, 0) for place in ALL])

    def poll(self):
        """Reads for a moment; the places whose end it has come to."""
        start, found, ends = micros(), {}, {}
        for message in self.consumer.consume(300, 0.1):
            place = message.topic(), message.partition()
            if not message.error():
                found.setdefault(place, []).append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ends[place] = message.offset()
            elif message.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise KafkaException(message.error())
        for place in {*found, *ends}:
            messages = found.get(place, [])
            end = max([ends.get(place, 0), self.next[place], *(message.offset() + 1 for message in messages)])
            asked = {"topic": place[0], "partition": place[1], "position_of": 0, "from": self.next[place]}
            operation = RECORDER.begin(self.process, "poll", start, **asked, read_committed=self.read_committed)
            RECORDER.ok(operation, next=end, records=[seen(message) for message in messages])
            self.next[place] = end
        return set(ends)

    def run(self):
        while not STOP.is_set():
            self.poll()
        self.consumer.close()

    def read_all(self):
        """From the beginning to the end of everything."""
        left, deadline = set(ALL), time.monotonic() + PATIENCE_S
        while left:
            left -= self.poll()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} not read to the end")
        self.consumer.close()


def final():
    Reader(False).read_all()
    Reader(True).read_all()
    consumer = Consumer({**COMMON, "group.id": GROUP, "isolation.level": "read_committed", "enable.auto.commit": False})
    deadline = time.monotonic() + PATIENCE_S
    places = [(INPUT, partition) for partition in range(PARTITIONS)]
    while committed(next(NUMBERS), consumer, places) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody says what is committed")


def load():
    works = [
        lambda: instances(CONFIG["bank_id"], transfer),
        lambda: instances(CONFIG["chain_id"], chain),
        Reader(True).run,
        Reader(False).run,
    ]
    until_told(works, STOP)


guarded(final if CONFIG["final"] else load)
RECORDER.file.close()
