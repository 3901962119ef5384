"""The workload of histories in librdkafka: history.py CONFIG; harness/histories.py says what is in it."""

import json
import random
import sys
import threading
import time

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from recorder import Recorder, encoded, micros, seen
from works import guarded, until_told

CONFIG = json.loads(sys.argv[1])
RUN, TOPIC, PROCESS = CONFIG["run"], CONFIG["topic"], CONFIG["process"]
PARTITIONS = range(CONFIG["partitions"])
STOP = threading.Event()
PATIENCE_S = 30.0  # without a record that is due
COMMON = {
    "bootstrap.servers": CONFIG["bootstrap"],
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,  # also between questions where a leader went
    "topic.metadata.refresh.interval.ms": CONFIG["metadata_age_ms"],
    "log_level": 0,
}
FAILED = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED}


def of(partition):
    return {"topic": TOPIC, "partition": partition}


RECORDER = Recorder(CONFIG["file"])


# Producers.


def produce(process, idempotent):
    chance = random.Random(process)
    producer = Producer(
        {
            **COMMON,
            "acks": "all",
            "enable.idempotence": idempotent,
            "linger.ms": 2,
            "compression.type": CONFIG["codec"],
            "request.timeout.ms": CONFIG["request_timeout_ms"],
            # The one before is only told to the broker; the client's own is looked at once a second.
            "socket.timeout.ms": CONFIG["request_timeout_ms"] // 2,
            "message.timeout.ms": CONFIG["delivery_ms"],
            "batch.num.messages": 10,
        }
    )
    room = threading.Semaphore(CONFIG["open"])
    counter = 0

    def send():
        partition = chance.choice(PARTITIONS)
        padding = 5000 if chance.randrange(200) == 0 else chance.randrange(100)
        now = time.time_ns() // 1_000_000
        value = encoded(RUN, process, counter, TOPIC, partition, now, "x" * padding)
        operation = RECORDER.begin(process, "send", **of(partition), once=idempotent, acked=True, values=[value])

        def delivered(error, message):
            if error is None:
                RECORDER.ok(operation, offset=message.offset() if message.offset() >= 0 else None)
            elif error.code() in FAILED:
                RECORDER.fail(operation, error)
            else:
                RECORDER.info(operation, error)
            room.release()

        producer.produce(
            TOPIC,
            value.encode(),
            key=f"{process}-{counter % 7}",
            partition=partition,
            timestamp=now,
            headers=[("counter", str(counter))],
            on_delivery=delivered,
        )

    due = time.monotonic()
    while not STOP.is_set():
        burst = chance.randint(1, 10)
        for _ in range(burst):
            while not room.acquire(blocking=False):
                producer.poll(0.05)
            send()
            counter += 1
        due = max(due, time.monotonic() - 1) + burst / CONFIG["records_per_s"]
        producer.poll(max(0.0, due - time.monotonic()))
    producer.flush(CONFIG["delivery_ms"] / 1000)


# Readers.


class Reader:
    """A consumer and where it is; each jump begins a new row of polls that follow each other."""

    def __init__(self, process, **settings):
        self.process, self.next, self.row, self.rows = process, {}, {}, 0
        self.consumer = Consumer(
            {
                **COMMON,
                "group.id": f"none-{process}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                **settings,
            }
        )

    def at(self, partition, offset):
        self.next[partition], self.row[partition] = offset, self.rows
        self.rows += 1

    def assign(self, partitions):
        for partition in partitions:
            self.at(partition, 0)
        self.consumer.assign([TopicPartition(TOPIC, p, 0) for p in partitions])

    def seek(self, partition, offset):
        # A seek drops what was fetched before it only later; a new assignment does at once.
        self.consumer.incremental_unassign([TopicPartition(TOPIC, partition)])
        self.consumer.incremental_assign([TopicPartition(TOPIC, partition, offset)])
        self.at(partition, offset)

    def poll(self):
        start, found = micros(), {}
        message = self.consumer.poll(0.1)
        while message is not None:
            if message.error():
                self.failed(message)
            else:
                found.setdefault(message.partition(), []).append(message)
            message = self.consumer.poll(0) if sum(map(len, found.values())) < 200 else None
        for partition, messages in found.items():
            end = messages[-1].offset() + 1
            # The client does not tell what a fetch said of the log's ends; ListOffsets does.
            poll = RECORDER.begin(
                self.process, "poll", start, **of(partition), position_of=self.row[partition], **{"from": self.next[partition]}
            )
            RECORDER.ok(poll, next=end, records=[seen(message) for message in messages])
            self.next[partition] = end
        return bool(found)

    def failed(self, message):
        if message.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise KafkaException(message.error())


def read(process):
    reader, chance, polls = Reader(process), random.Random(process), 0
    reader.assign(PARTITIONS)
    while not STOP.is_set():
        reader.poll()
        polls += 1
        if polls % 50 == 0:  # back to what may not be cached any more
            partition = chance.choice(PARTITIONS)
            reader.seek(partition, max(0, reader.next[partition] - chance.randrange(1000)))
    reader.consumer.close()


def read_all():
    """A fresh client reads everything, up to the end that it is told before it begins."""
    reader, admin = Reader(PROCESS), AdminClient(COMMON)
    reader.assign(PARTITIONS)
    for partition in PARTITIONS:
        deadline = time.monotonic() + PATIENCE_S
        end = None
        while end is None and time.monotonic() < deadline:
            end = offset(admin, PROCESS + 1, partition, -1)
        offset(admin, PROCESS + 1, partition, -2)
        while reader.next[partition] < end:
            if reader.poll():
                deadline = time.monotonic() + PATIENCE_S
            elif time.monotonic() > deadline:
                raise TimeoutError(f"partition {partition} ends at {end}, read up to {reader.next}")
    reader.consumer.close()


class Member(Reader):
    def __init__(self, process):
        super().__init__(
            process,
            **{
                "group.id": CONFIG["group"],
                "auto.offset.reset": "earliest",
                "session.timeout.ms": CONFIG["session_ms"],
                "heartbeat.interval.ms": 500,
                "partition.assignment.strategy": "range",
            },
        )
        # The client does not tell its generation. It is alone in its group, so counting its assignments orders them as well.
        self.generation = 0

    def run(self):
        self.consumer.subscribe([TOPIC], on_assign=self.gained, on_revoke=self.lost, on_lost=self.lost)
        while not STOP.is_set():
            if self.poll():
                self.commit()
                self.committed(self.owned())
        who = self.who()
        self.consumer.close()
        RECORDER.ok(RECORDER.begin(self.process, "left", **who))

    def owned(self):
        return [p.partition for p in self.consumer.assignment()]

    def who(self):
        return {"group": CONFIG["group"], "member": self.consumer.memberid() or ""}

    def gained(self, consumer, partitions):
        self.generation += 1
        positions = self.committed([p.partition for p in partitions])
        while positions is None:
            STOP.wait(0.05)  # some errors come at once
            positions = self.committed([p.partition for p in partitions])
        for place in partitions:
            place.offset = positions[place.partition] or 0
            self.at(place.partition, place.offset)
        self.assigned([p.partition for p in partitions])
        consumer.assign(partitions)

    def lost(self, consumer, _):
        self.assigned([])
        consumer.unassign()

    def assigned(self, partitions):
        operation = RECORDER.begin(self.process, "assigned", **self.who())
        RECORDER.ok(operation, generation=self.generation, logs=[[TOPIC, p] for p in partitions])

    def commit(self):
        offsets = {p: self.next[p] for p in self.owned()}
        operation = RECORDER.begin(
            self.process, "commit", **self.who(), generation=self.generation, offsets=commits(offsets)
        )
        try:
            places = [TopicPartition(TOPIC, p, o) for p, o in offsets.items()]
            done = self.consumer.commit(offsets=places, asynchronous=False)
            wrong = [p.error for p in done if p.error]
            if wrong:
                RECORDER.info(operation, wrong[0])
            else:
                RECORDER.ok(operation)
        except KafkaException as error:  # an attempt before the last may have been done
            RECORDER.info(operation, error)

    def committed(self, partitions):
        """The committed offset of each partition, None without one; None in all if nobody answers."""
        operation = RECORDER.begin(self.process, "committed", group=CONFIG["group"])
        try:
            found = self.consumer.committed([TopicPartition(TOPIC, p) for p in partitions], timeout=10)
            wrong = [p.error for p in found if p.error]
            if wrong:
                raise KafkaException(wrong[0])
            offsets = {p.partition: p.offset if p.offset >= 0 else None for p in found}
            RECORDER.ok(operation, offsets=commits(offsets))
            return offsets
        except KafkaException as error:
            RECORDER.info(operation, error)
            return None


def commits(offsets):
    return [[TOPIC, p, o] for p, o in offsets.items()]


# Questions.


def ask(process):
    admin, chance = AdminClient(COMMON), random.Random(process)
    while not STOP.is_set():
        at = chance.choice([-1, -1, -2, -3, time.time_ns() // 1_000_000 - chance.randrange(30_000)])
        offset(admin, process, chance.choice(PARTITIONS), at)
        time.sleep(0.1)


def offset(admin, process, partition, timestamp):
    names = {-1: OffsetSpec.latest, -2: OffsetSpec.earliest, -3: OffsetSpec.max_timestamp}
    spec = names[timestamp]() if timestamp in names else OffsetSpec.for_timestamp(timestamp)
    operation = RECORDER.begin(process, "list_offsets", **of(partition), timestamp=timestamp)
    place = TopicPartition(TOPIC, partition)
    try:
        asked = admin.list_offsets({place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=20)
        found = asked[place].result()
        if found.offset < -1:  # the connection broke, and nothing says so (librdkafka 2.16)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        RECORDER.ok(operation, offset=found.offset, found_timestamp=found.timestamp)
        return found.offset
    except KafkaException as error:  # after a restart also without asking: "no leaders found" (librdkafka 2.16, of Kafka too)
        RECORDER.info(operation, error)
        return None


def load():
    works = [
        lambda: produce(PROCESS, True),
        lambda: produce(PROCESS + 1, False),
        lambda: read(PROCESS + 2),
        lambda: Member(PROCESS + 3).run(),
        lambda: ask(PROCESS + 4),
    ]
    until_told(works, STOP)


guarded(read_all if CONFIG["final"] else load)
RECORDER.file.close()
