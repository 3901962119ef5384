"""Idempotent producers that live through the deaths of their broker, hear what it promises, and check what it kept.

They run in this process and send batches whose bytes are known, so that a check can send one again. What was not answered
is sent again with the same sequences until it is. Record n of a producer in a partition is `name:partition:n`.
"""

import random
import threading
import time
from collections import deque

from . import wire

IN_FLIGHT_MAX = 4
# Of a batch that is sent again after the ones before it failed: for a moment only, as the next attempt has them all.
OUT_OF_ORDER_IN_A_ROW_MAX = 20


class Batch:
    """Of one producer for one partition."""

    def __init__(self, name, producer, partition, first, count):
        self.name, self.producer, self.partition, self.first, self.count = name, producer, partition, first, count
        self.offset = None  # where it was acknowledged

    def values(self):
        return [f"{self.name}:{self.partition}:{n}".encode() for n in range(self.first, self.first + self.count)]

    def encoded(self) -> bytes:
        return wire.encode_batch([(None, value) for value in self.values()], producer=(*self.producer, self.first))

    def told(self) -> str:
        return f"acknowledged {self.name} {self.producer[0]} {self.producer[1]} {self.partition} {self.first} {self.count} {self.offset}"


def heard(text) -> Batch:
    """The batch that a line of `Batch.told` is about."""
    _, name, *numbers = text.split()
    producer, epoch, partition, first, count, offset = map(int, numbers)
    batch = Batch(name, (producer, epoch), partition, first, count)
    batch.offset = offset
    return batch


class Careful:
    """All producers. `say` is given a line for each promise, before the promise counts."""

    def __init__(self, topic, partitions, producers=3, *, pause_s=0.0, say=lambda _: None):
        self.topic, self.partitions, self.pause_s, self.say = topic, partitions, pause_s, say
        self.port, self.sending = None, True
        self.lock = threading.Lock()
        self.going = threading.Event()
        self.promises: list[Batch] = []
        self.problems: list[str] = []
        self.producers = [Producer(self, f"p{i}") for i in range(producers)]
        for producer in self.producers:
            producer.start()

    def go(self, port):
        """There is a broker now."""
        self.port = port
        self.going.set()

    def hold(self):
        """There is none any more. Returns when everything that the last one answered has been taken in."""
        self.going.clear()
        for producer in self.producers:
            assert producer.idle.wait(20), f"{producer.name} hangs"

    def check_alive(self):
        assert not self.problems, self.problems
        assert all(p.is_alive() for p in self.producers), "a producer died"

    def finish(self, timeout_s=30.0):
        """Sends nothing new, and waits until everything is answered."""
        self.sending = False
        for producer in self.producers:
            producer.join(timeout_s)
        assert not self.problems, self.problems
        assert not any(p.is_alive() for p in self.producers), "not everything is acknowledged"

    def abandon(self):
        self.sending, self.problems = False, [*self.problems, "abandoned"]
        self.going.set()

    def promised(self, batch):
        with self.lock:
            self.say(batch.told())
            self.promises.append(batch)


class Producer(threading.Thread):
    def __init__(self, load, name):
        super().__init__(daemon=True, name=name)
        self.load, self.identity = load, None
        self.idle = threading.Event()
        self.chance = random.Random(name)
        self.counters = [0] * load.partitions
        self.waiting: deque[list[Batch]] = deque()
        self.out_of_order = 0

    def run(self):
        while not self.load.problems:
            if not self.load.going.is_set():
                self.idle.set()
                self.load.going.wait(1)
                continue
            self.idle.clear()
            try:
                with wire.Connection(self.load.port, timeout_s=10) as connection:
                    if self.talk(connection):
                        break
            except (OSError, wire.Closed):
                pass
            time.sleep(0.02)
        self.idle.set()

    def talk(self, connection) -> bool:
        """Over one connection, until it breaks or everything is sent and answered; true for the latter."""
        if self.identity is None:
            self.identity = connection.init_producer_id()
        sent = deque(self.send(connection, request) for request in self.waiting)
        while not self.load.problems:
            while len(sent) < IN_FLIGHT_MAX and self.load.sending:
                self.waiting.append(self.request())
                sent.append(self.send(connection, self.waiting[-1]))
                if self.load.pause_s:
                    time.sleep(self.load.pause_s)
            if not sent:
                return True
            if not self.take(self.waiting[0], connection.receive_produce(sent.popleft())):
                return False
            self.waiting.popleft()
        return True

    def request(self) -> list[Batch]:
        batches = []
        for partition in self.chance.sample(range(self.load.partitions), self.chance.randint(1, 3)):
            count = self.chance.randint(1, 4)
            batches.append(Batch(self.name, self.identity, partition, self.counters[partition], count))
            self.counters[partition] += count
        return batches

    def send(self, connection, batches) -> int:
        return connection.send_produce(self.load.topic, {b.partition: b.encoded() for b in batches})

    def take(self, batches, answers) -> bool:
        """True if all batches are acknowledged."""
        done = True
        for batch in batches:
            error, offset = answers[batch.partition]["error"], answers[batch.partition]["base"]
            if error == wire.OUT_OF_ORDER_SEQUENCE_NUMBER:
                self.out_of_order += 1
            if error in (wire.NONE, wire.DUPLICATE_SEQUENCE_NUMBER):
                if batch.offset is None:
                    batch.offset = offset
                    self.load.promised(batch)
                elif offset not in (-1, batch.offset):
                    self.load.problems.append(f"{batch.told()}, and then at {offset}")
                continue
            done = False
            final = error in (wire.INVALID_PRODUCER_EPOCH, wire.UNKNOWN_PRODUCER_ID, wire.CORRUPT_MESSAGE)
            if final or self.out_of_order > OUT_OF_ORDER_IN_A_ROW_MAX:
                self.load.problems.append(f"{batch.values()[0]} was answered with error {error}")
        if done:
            self.out_of_order = 0
        return done


def read(port, topic, partitions) -> list[list[tuple[int, bytes]]]:
    """(offset, value) of every record of each partition."""
    with wire.Connection(port) as connection:
        return [[(r[0], r[3]) for r in connection.read_all(topic, partition=p)] for p in range(partitions)]


def check(records, promises):
    """Every promise is kept: at its offset, once, in its producer's order. What was not acknowledged may be there."""
    for partition, found in enumerate(records):
        assert [offset for offset, _ in found] == list(range(len(found))), f"offsets of partition {partition}"
        due = {}
        for offset, value in found:
            name, at, n = value.decode().split(":")
            assert int(at) == partition, f"{value} is in partition {partition}"
            assert int(n) == due.get(name, 0), f"{value} at {partition}/{offset}, where {due.get(name, 0)} was due"
            due[name] = int(n) + 1
    for batch in promises:
        found = records[batch.partition]
        if batch.offset < 0:  # a duplicate, whose offset the broker does not know any more
            missing = set(batch.values()) - {value for _, value in found}
            assert not missing, f"lost: {batch.told()}"
            continue
        kept = [value for _, value in found[batch.offset : batch.offset + batch.count]]
        assert kept == batch.values(), f"lost: {batch.told()}; found {kept}, the partition ends at {len(found)}"


def check_repeats(port, topic, promises, records):
    """The newest promised batch of each producer and partition, sent again, is known and not written again."""
    newest = {(b.name, b.partition): b for b in promises}
    with wire.Connection(port) as connection:
        # A later batch may have been written without an answer; only the last five of a producer are known.
        for batch in newest.values():
            answer = connection.produce(topic, batch.encoded(), partition=batch.partition)
            known = answer["error"] == wire.NONE and answer["base"] == batch.offset
            assert known or answer["error"] == wire.DUPLICATE_SEQUENCE_NUMBER, f"{batch.told()}, sent again: {answer}"
        for partition, found in enumerate(records):
            end = connection.list_offsets(topic, -1, partition=partition)[2]
            assert end == len(found), f"partition {partition} grew from {len(found)} to {end} by a repeated batch"
