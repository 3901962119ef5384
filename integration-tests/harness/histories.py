"""The workload whose history the checker reads (`history/`), in three client libraries, each a process of its own.

Each process gets its configuration as one JSON object (`_config`). It runs an idempotent producer and a plain one, both with
requests in flight, a consumer that has all partitions and now and then jumps back, a member of a group that commits what it
has read, and one that asks for offsets; each is a logical client. They retry as their libraries do, within one operation: Ok
is what the library calls a success, Fail only what can't have happened, and all else Info. At a line or the end on standard
input no new operation begins; the process ends when those under way have ended. With `final` it is a fresh client instead that reads
every partition from its beginning to its end.

The processes write lines as `history/src/json.rs` describes them, with CLOCK_MONOTONIC in microseconds, so that histories of
processes of one machine can be put together.
"""

import bisect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .processes import CACHE, ROOT, Child

DRIVERS = ROOT / "integration-tests/drivers"
CHECKER = Path(os.environ.get("TEST_HISTORY_CHECK") or ROOT / "target/release/history-check")
CLIENTS = {
    "java": [
        "java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={CACHE}/kafka/config/tools-log4j2.properties",
        "-cp", f"{CACHE}/java:{CACHE}/kafka/libs/*", "History",
    ],
    "librdkafka": [sys.executable, DRIVERS / "python/history.py"],
    "franz-go": [CACHE / "bin/franz-driver", "history"],
}  # fmt: skip
# A generation is an order among the members of one group; librdkafka does not tell it and is alone in its own.
GROUPS = {"java": "shared", "franz-go": "shared", "librdkafka": "alone"}
# franz-go 1.22 merges what waits into batches whose header names a later time than their records have, if it compresses.
CODECS = {"java": "lz4", "librdkafka": "zstd", "franz-go": "none"}
# Clients that give up a record take a new epoch and send what was in flight again, which may be there already: then an
# idempotent record stands in the log twice, with Kafka too. So none gives up.
DELIVERY_MS = 900_000
PROCESSES_EACH = 10
PRODUCERS_EACH = 2
# How old an acknowledgement is whose record each reader has to see. It is one broker, but clients read ahead.
POLL_LAG_S = 2


def micros() -> int:
    return time.monotonic_ns() // 1000


class Workload:
    def __init__(
        self, broker, topic, partitions, directory, *, run, records_per_s, window=300, request_timeout_ms=2000,
        metadata_age_ms=300_000,
    ):  # fmt: skip
        self.broker, self.topic, self.partitions, self.directory, self.run = broker, topic, partitions, Path(directory), run
        self.directory.mkdir(parents=True)
        self.records_per_s, self.window, self.request_timeout_ms = records_per_s, window, request_timeout_ms
        self.metadata_age_ms = metadata_age_ms
        self.files, self.children = [self.directory / "notes.history"], {}
        self.notes = self.files[0].open("w")
        self._write(run=run)

    def _config(self, client, final) -> dict:
        name = f"{client}-final" if final else client
        file = self.directory / f"{name}.history"
        self.files.append(file)
        return {
            "bootstrap": self.broker.bootstrap, "file": str(file), "run": self.run, "topic": self.topic, "partitions": self.partitions,
            "process": PROCESSES_EACH * len(self.files), "group": f"{self.topic}-{GROUPS[client]}", "session_ms": 6000,
            "request_timeout_ms": self.request_timeout_ms, "metadata_age_ms": self.metadata_age_ms,
            "records_per_s": self.records_per_s, "open": self.window, "codec": CODECS[client],
            "delivery_ms": DELIVERY_MS, "final": final,
        }  # fmt: skip

    def _begin(self, client, final=False):
        config = self._config(client, final)
        log = Path(config["file"]).with_suffix(".log")
        return Child([*CLIENTS[client], json.dumps(config)], log=log, pipes=True)

    def start(self):
        self.children = {client: self._begin(client) for client in CLIENTS}

    def check_alive(self):
        for client, child in self.children.items():
            assert child.alive(), f"{client} ended with {child.process.returncode}:\n{child.log_tail()}"

    def note(self, text):
        """For people who read the history."""
        now = micros()
        at = {"process": 0, "op": now, "time_us": now}
        self._write(invoke={**at, "kind": "note", "text": text})
        self._write(complete={**at, "end": "ok"})

    def _write(self, **line):
        self.notes.write(json.dumps(line) + "\n")

    def stop(self, timeout_s=300.0):
        """No new operations; those under way end."""
        for child in self.children.values():
            child.process.stdin.close()
        for client, child in self.children.items():
            assert child.wait(timeout_s) == 0, f"{client}:\n{child.log_tail()}"

    def read_back(self, timeout_s=600.0) -> list[str]:
        """The final phase: fresh clients of each library read everything. What those say that could not."""
        time.sleep(POLL_LAG_S)  # so that every acknowledged record is due
        self._write(healed_us=micros())
        readers = [(client, self._begin(client, final=True)) for client in CLIENTS]
        stuck = [f"{client} could not read all:\n{child.log_tail()}" for client, child in readers if child.wait(timeout_s)]
        self.notes.close()
        return stuck

    def verdict(self) -> tuple[bool, str]:
        """Whether the checker finds nothing, and what it says."""
        options = ["--final-reads", "--poll-lag-us", str(POLL_LAG_S * 1_000_000)]
        ran = subprocess.run([CHECKER, *options, *self.files], capture_output=True, text=True, timeout=600)
        assert ran.returncode in (0, 1), ran.stderr
        return ran.returncode == 0, ran.stdout


class Acknowledgements:
    """When each client's sends to each partition were acknowledged, in µs, as its history tells while it grows."""

    def __init__(self, workload):
        self.times = {(client, partition): [] for client in CLIENTS for partition in range(workload.partitions)}
        self.newest, self.failed = {}, []
        self._begun, self._files = {}, {client: open(workload.directory / f"{client}.history") for client in CLIENTS}
        self._cut = dict.fromkeys(CLIENTS, "")

    def read(self) -> "Acknowledgements":
        """What has been written since."""
        for client, file in self._files.items():
            *lines, self._cut[client] = (self._cut[client] + file.read()).split("\n")
            for line in lines:
                self._take(client, line)
        return self

    def _take(self, client, line):
        said = json.loads(line)
        invoked, completed = said.get("invoke"), said.get("complete")
        if invoked and invoked["kind"] == "send":
            self._begun[client, invoked["process"], invoked["op"]] = invoked["partition"], invoked["time_us"]
        elif completed:
            send = self._begun.pop((client, completed["process"], completed["op"]), None)
            if send and completed["end"] == "ok":
                partition, sent_us = send
                self.times[client, partition].append(completed["time_us"])
                self.newest[client, completed["process"], partition] = sent_us
            elif send:
                self.failed.append(f"{client}: {line}")

    def all_since(self, since_us) -> bool:
        """Whether each producer has had one from each partition, for what it has sent since; so that nothing waits."""
        newest = self.read().newest
        return len(newest) == PRODUCERS_EACH * len(self.times) and min(newest.values()) > since_us

    def gaps_s(self, since_us, until_us) -> dict[str, float]:
        """For each client the longest time without one, from any one partition, which ended between these."""
        longest = dict.fromkeys(CLIENTS, 0.0)
        for (client, _), times in self.times.items():
            first, last = bisect.bisect_right(times, since_us), bisect.bisect_right(times, until_us)
            near = times[max(0, first - 1) : last + 1]
            waits = [(b - a) / 1e6 for a, b in zip(near, near[1:])]
            longest[client] = max([longest[client], *waits])
        return longest


def pause(broker, seconds):
    """The broker stands still, as after a long stall of its machine."""
    os.kill(broker.child.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(broker.child.pid, signal.SIGCONT)
