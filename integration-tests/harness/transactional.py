"""Transactions whose history the checker reads: Java with version 2 and librdkafka with version 1, each a process of its own.

Each process runs a producer that moves money in a partition of its own (the amounts of a transaction add up to 0) and writes to the
input beside it; a chain that takes its share of the input to the output, with its offsets in the transaction; and two readers,
one of committed records. Producers commit and abort, and are silent for too long now and then. A twin of a process has the same
transactional ids, so that each instance of the one fences one of the other. With `final` it is a fresh client instead that reads
everything with both isolations, and what the chains' group has committed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, TopicPartition

from .histories import CHECKER, CLIENTS, DRIVERS, POLL_LAG_S, micros
from .processes import Child

PROCESSES = {
    "java": [*CLIENTS["java"][:-1], "TransactionHistory"],
    "librdkafka": [sys.executable, DRIVERS / "python/transactional.py"],
}
# An instance of a producer is a logical client.
NUMBERS_EACH = 1_000_000
TIMEOUT_MS = 5000


class Workload:
    def __init__(self, broker, topic, partitions, directory, *, run, transactions_per_s):
        self.broker, self.partitions, self.directory, self.run = broker, partitions, Path(directory), run
        self.topics = {name: f"{topic}-{name}" for name in ("bank", "input", "output")}
        self.group, self.transactions_per_s = f"{topic}-chain", transactions_per_s
        self.directory.mkdir(parents=True)
        self.files, self.children = [self.directory / "notes.history"], {}
        self._write(run=run)

    def _begin(self, client, name, final=False):
        number = list(PROCESSES).index(client)
        file = self.directory / f"{name}.history"
        self.files.append(file)
        config = {
            "bootstrap": self.broker.bootstrap, "file": str(file), "run": self.run, "partitions": self.partitions, **self.topics,
            "group": self.group, "process": NUMBERS_EACH * len(self.files), "bank_id": f"bank-{number}", "own": number,
            "chain_id": f"chain-{number}", "shares": len(PROCESSES), "share": number, "timeout_ms": TIMEOUT_MS,
            "request_timeout_ms": 2000, "transactions_per_s": self.transactions_per_s, "final": final,
        }  # fmt: skip
        return Child([*PROCESSES[client], json.dumps(config)], log=file.with_suffix(".log"), pipes=True)

    def start(self):
        self.children = {client: self._begin(client, client) for client in PROCESSES}

    def twin(self, client, seconds):
        """Another process with the same transactional ids, for a while."""
        name = f"{client}-{len(self.files)}"
        self.children[name] = self._begin(client, name)
        time.sleep(seconds)
        self._end(name)

    def sleep(self, client, seconds):
        """The process stands still, and then goes on as if nothing had been."""
        os.kill(self.children[client].pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.children[client].pid, signal.SIGCONT)

    def kill(self, client):
        """The process dies in the middle, and another follows it."""
        self.children.pop(client).kill9()
        self.children[client] = self._begin(client, f"{client}-{len(self.files)}")

    def check_alive(self):
        for client, child in self.children.items():
            assert child.alive(), f"{client} ended with {child.process.returncode}:\n{child.log_tail()}"

    def _end(self, name):
        child = self.children.pop(name)
        child.process.stdin.close()
        assert child.wait(300) == 0, f"{name}:\n{child.log_tail()}"

    def _write(self, **line):
        with self.files[0].open("a") as notes:
            notes.write(json.dumps(line) + "\n")

    def stop(self):
        for name in list(self.children):
            self._end(name)

    def read_back(self):
        time.sleep(POLL_LAG_S)
        self._write(healed_us=micros())
        readers = [(client, self._begin(client, f"{client}-final", final=True)) for client in PROCESSES]
        for client, child in readers:
            assert child.wait(300) == 0, f"{client} could not read all:\n{child.log_tail()}"

    def verdict(self) -> tuple[bool, str]:
        """Whether the checker finds nothing, and what it says."""
        options = ["--final-reads", "--poll-lag-us", str(POLL_LAG_S * 1_000_000)]
        ran = subprocess.run([CHECKER, *options, *self.files], capture_output=True, text=True, timeout=600)
        assert ran.returncode in (0, 1), ran.stderr
        return ran.returncode == 0, ran.stdout

    def balances(self) -> list[int]:
        """What the money of each partition of the bank adds up to, by committed records up to the end of now."""
        settings = {"bootstrap.servers": self.broker.bootstrap, "group.id": "none", "isolation.level": "read_committed"}
        consumer = Consumer({**settings, "enable.partition.eof": True, "enable.auto.commit": False})
        consumer.assign([TopicPartition(self.topics["bank"], p, 0) for p in range(self.partitions)])
        sums, left = [0] * self.partitions, set(range(self.partitions))
        deadline = time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, f"the bank is not read to its end in {left}"
            for message in consumer.consume(1000, 0.2):
                partition = message.partition()
                if not message.error() and partition in left:
                    amount = re.search(rb"amount=(-?\d+);", message.value())
                    sums[partition] += int(amount[1]) if amount else 0
                elif message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
        consumer.close()
        return sums
