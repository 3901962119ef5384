"""Groups of real consumers: each member a process of its own, which can be killed.

A member gets its configuration as one JSON object (`Member.config`), commits after each batch that it has shown, leaves its group
when a line or the end comes on its standard input, and prints one JSON object per line:

    {"event": "owned", "partitions": [0, 2], "generation": 3}               after each call back of an assignment: all it has now
    {"event": "records", "records": [[partition, offset, sum], …], "generation": 3}
    {"event": "committed", "offsets": {"0": 17}}                             acknowledged by the broker; sarama can't say it
    {"event": "error", "text": …}                                            its client's own words; it goes on
    {"event": "closed"}                                                      it has left

The sum is the CRC-32 of key and value. The generation, or member epoch, is there where a client tells it.
"""

import json
import sys
import threading
import time

from . import wire
from .processes import CACHE, ROOT, Child, wait_until

DRIVERS = ROOT / "integration-tests/drivers"
JAVA = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
PYTHON = ("librdkafka", "kafka-python", "aiokafka")
GO = ("franz-go", "sarama")

# A broker that does not wait for further members and lets them go soon.
SETTINGS = {
    "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000,
    "group.consumer.heartbeat.interval.ms": 500, "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.session.timeout.ms": 10000, "group.consumer.min.session.timeout.ms": 3000,
}  # fmt: skip


def argv(client, config) -> list:
    text = json.dumps(config)
    if client in PYTHON:
        return [sys.executable, DRIVERS / "python/member.py", text]
    if client in GO:
        return [CACHE / "bin/franz-driver", "member", text]
    if client == "kafkajs":
        return ["node", "--no-warnings", DRIVERS / "node/member.js", text, CACHE / "node"]
    log = f"-Dlog4j2.configurationFile={CACHE}/kafka/config/tools-log4j2.properties"
    return [*JAVA, log, "-cp", f"{CACHE}/java:{CACHE}/kafka/libs/*", "Member", text]


class Member:
    def __init__(self, client, config, log):
        self.client, self.config = client, {"client": client, **config}
        self.events: list[dict] = []
        self.child = Child(argv(client, self.config), log=log, pipes=True)
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()

    def _listen(self):
        for line in self.child.process.stdout:
            if not line.endswith(b"\n"):
                break  # killed in the middle of it
            self.events.append({"at": time.monotonic(), **json.loads(line)})

    def __repr__(self):
        return f"{self.config['name']} {self.owned}"

    def of(self, kind) -> list[dict]:
        return [e for e in list(self.events) if e["event"] == kind]

    @property
    def owned(self) -> list[int]:
        seen = self.of("owned")
        return seen[-1]["partitions"] if seen else []

    @property
    def records(self) -> list[tuple[int, int]]:
        """(partition, offset) of each record in the order in which it was read."""
        return [(partition, offset) for partition, offset, _ in self.sums]

    @property
    def sums(self) -> list[tuple[int, int, int]]:
        """(partition, offset, CRC-32 of key and value), likewise."""
        return [tuple(r) for e in self.of("records") for r in e["records"]]

    @property
    def generations(self) -> set[int]:
        return {e["generation"] for e in self.of("records") if e.get("generation") is not None}

    def ask_to_close(self):
        if not self.child.process.stdin.closed:
            self.child.process.stdin.close()

    def close(self, timeout_s=20.0):
        """Leaves the group; true after it: its last commit is done and the group knows that it is gone."""
        self.ask_to_close()
        code = self.child.wait(timeout_s)
        self.listening.join(5)
        assert code == 0 and self.of("closed"), f"{self}: exit code {code}, {self.of('error')}\n{self.child.log_tail()}"

    def kill9(self):
        self.child.kill9()
        self.listening.join(5)


class Group:
    """A group on one topic, with what its members have read."""

    def __init__(self, broker, topic, directory, *, protocol="classic", assignor="range", session_ms=10_000, name=None):
        self.broker, self.topic, self.directory = broker, topic, directory
        self.name = name or f"group-{topic}"
        self.protocol, self.assignor, self.session_ms = protocol, assignor, session_ms
        self.members: list[Member] = []  # also those that are gone

    def join(self, client, *, instance=None, **changes) -> Member:
        config = {
            "name": f"{client}-{len(self.members)}", "bootstrap": self.broker.bootstrap, "topic": self.topic, "group": self.name,
            "protocol": self.protocol, "assignor": self.assignor, "instance": instance, "session_ms": self.session_ms,
            "heartbeat_ms": min(500, self.session_ms // 4), **changes,
        }  # fmt: skip
        made = Member(client, config, self.directory / f"{config['name']}.log")
        self.members.append(made)
        return made

    @property
    def present(self) -> list[Member]:
        return [m for m in self.members if m.child.alive()]

    @property
    def read(self) -> list[tuple[int, int]]:
        return [place for member in self.members for place in member.records]

    def settle(self, partitions, timeout_s=30.0):
        """Waits until each member has part and together they have every partition, each once."""

        expected = self.present

        def settled():
            dead = [m for m in expected if not m.child.alive()]
            if dead:
                return f"{dead[0]} ended: {dead[0].of('error')}\n{dead[0].child.log_tail()}"
            shares = [m.owned for m in expected]
            return all(shares) and sorted(p for share in shares for p in share) == list(range(partitions)) and "settled"

        outcome = self._wait(settled, timeout_s, f"share {partitions} partitions")
        assert outcome == "settled", outcome

    def wait_read(self, count, timeout_s=30.0):
        self._wait(lambda: len(set(self.read)) >= count, timeout_s, f"read {count} records")

    def _wait(self, condition, timeout_s, what):
        try:
            return wait_until(condition, timeout_s, f"{self.name} to {what}", every_s=0.05)
        except AssertionError as error:
            errors = [(m, m.of("error")[-3:]) for m in self.members if m.of("error")]
            raise AssertionError(f"{error}: {self.members}, {len(set(self.read))} read; {errors}") from None

    def committed(self, partitions) -> dict[int, int]:
        """The committed offset of each partition, once the coordinator has loaded the group."""

        def ask():
            with wire.Connection(self.broker.port) as connection:
                return committed(connection, self.name, self.topic, partitions)

        return wait_until(ask, 10, f"the offsets of {self.name}")

    def wait_committed(self, counts: dict[int, int], timeout_s=10.0):
        wait_until(lambda: self.committed(len(counts)) == counts, timeout_s, f"{self.name} to commit {counts}")

    def close(self):
        for member in self.present:
            member.kill9()


def committed(connection, group, topic, partitions) -> dict[int, int]:
    """OffsetFetch, version 5: the offset of each partition, -1 without one."""
    body = wire.string(group) + wire.array([wire.string(topic) + wire.array(range(partitions), lambda p: wire.pack("i", p))])
    reader = connection.call(wire.OFFSET_FETCH, 5, body)
    reader.unpack("i")

    def partition():
        index, offset, _ = reader.unpack("iqi")
        reader.string()
        assert reader.unpack("h") == 0
        return index, offset

    found = reader.array(lambda: (reader.string(), reader.array(partition))[1])
    error = reader.unpack("h")
    assert error == 0, f"OffsetFetch: error {error}"
    return dict(found[0])
