"""The broker itself under the layer, `strandline serve`, and clients who note in the record what it promises them."""

import os
import sys
import threading
import time
from pathlib import Path

import layer
import replay
from layer import Loss

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import careful, wire  # noqa: E402
from harness.broker import BINARY, Strandline  # noqa: E402

TOPIC, PARTITIONS = "load", 4
# Snapshots as often as they are looked at, once a second; the journal is trimmed below each.
OWN = {"snapshot": {"entries_between": 10, "kept_min": 1, "kept_hours": 0}}


class Promises:
    """What clients have heard up to some point."""

    def __init__(self):
        self.batches, self.seen = [], [0] * PARTITIONS
        self.topics, self.deleted = set(), set()

    def hear(self, text):
        for line in text.decode().splitlines():
            word, *rest = line.split() or [""]
            if word == "acknowledged":
                self.batches.append(careful.heard(line))
            elif word == "seen":
                self.seen = [int(count) for count in rest]
            elif word == "created":
                self.topics.add(rest[0])
            elif word == "deleting":
                self.topics.discard(rest[0])
            elif word == "deleted":
                self.deleted.add(rest[0])


def reason(error, broker) -> str:
    """What the broker said last, if it ended, and else what a client saw."""
    lines = broker.log_tail(40).splitlines()
    if lines and lines[-1].startswith("strandline: "):
        return lines[-1]
    return "\n".join([f"{error!r:.300}", *(line for line in lines if " WARN " in line or " ERROR " in line)])


class Serve:
    """One disk, the broker on it, and what it promised. `life` and `check` are what cut.py asks of every program."""

    # What is synced, see power_load.py. A file in #tmp is told by its first bytes.
    SITES = {
        "wal": r"/journal\.db-wal=",
        "db": r"/journal\.db=",
        "data-dir": r"^new/node/$",
        "data-dir's parent": r"^new/$",
        "data-dir's grandparent": r"^/$",
        "object": r"/#tmp/.*=SLOB",
        "snapshot": r"/#tmp/.*=SLSN",
        "marker": r"/#tmp/.*=SLBU",
        "object-dir": r"/bucket/data/./$",
        "snapshot-dir": r"/bucket/snapshots/$",
        "bucket-dir": r"/bucket/$",
        "data-prefix-dir": r"/bucket/data/$",
        "settle": r"^start:.*/journal\.db(-wal)?$",
    }
    # Before anything is promised: SQLite's rollback journal, while it makes a new file, and the probe of the bucket.
    NO_SITE = r"/journal\.db-journal=|/bucket/probe/$|/#tmp/.*=(Stra|STRA)"
    LIVES_PER_DISK = 3

    def __init__(self, args, chance, library, work):
        self.args, self.chance, self.library, self.work = args, chance, library, work
        self.promises, self.log, self.topics_made = Promises(), None, 0
        self.binary = args.program or BINARY
        self.load = careful.Careful(TOPIC, PARTITIONS, pause_s=0.005, say=self.say)

    def say(self, text):
        replay.mark(self.log, text + "\n")

    def broker(self, name, root) -> Strandline:
        return Strandline(self.work / name, own=OWN, data=root / "new/node", binary=self.binary)

    def life(self, root, log):
        """Runs and kills the broker, once or twice."""
        fail = log.with_suffix(".fail")
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        broker = self.broker("broker", root)
        try:
            for _ in range(self.chance.choice((1, 1, 2))):
                delay = self.chance.choice((0, 200, 3000))
                broker.environment = layer.environment(self.library, root, log, sync_delay_us=delay)
                broker.environment["POWERCUT_FAIL"] = str(fail)
                broker.start()
                self.begin(broker.port)
                self.load.go(broker.port)
                self.work_until(time.monotonic() + self.chance.uniform(*self.args.life_ms) / 1000, broker, fail)
                assert broker.alive(), "the broker ended"
                broker.kill9()
                self.load.hold()
                self.load.check_alive()
        except (AssertionError, OSError, wire.Closed) as error:
            raise Loss(f"in its life: {reason(error, broker)}") from None
        finally:
            if broker.alive():
                broker.kill9()
            self.load.hold()
            os.close(self.log)
            fail.unlink(missing_ok=True)

    def begin(self, port):
        with wire.Connection(port) as connection:
            if TOPIC not in connection.metadata(None)["topics"]:
                connection.make_topic(TOPIC, PARTITIONS)
                self.say(f"created {TOPIC}")
        records = careful.read(port, TOPIC, PARTITIONS)
        self.say("seen " + " ".join(str(len(found)) for found in records))

    def work_until(self, end, broker, fail):
        """Creates and deletes topics beside the load; perhaps the disk fails for a moment."""
        if self.chance.random() < self.args.faults:
            fault = self.chance.choice(layer.FAULTS)
            left = self.chance.uniform(0, end - time.monotonic() - 0.1)
            # Beside, since a topic may wait for the disk.
            threading.Timer(left, fail.write_text, [fault]).start()
            threading.Timer(left + 0.05, fail.write_text, [""]).start()
        made = []
        with wire.Connection(broker.port) as connection:
            while time.monotonic() < end:
                name = f"t{self.topics_made}"
                self.topics_made += 1
                if connection.create_topic(name, 1) == 0:
                    self.say(f"created {name}")
                    made.append(name)
                if len(made) > 3 and self.chance.random() < 0.5:
                    gone = made.pop(self.chance.randrange(len(made)))
                    self.say(f"deleting {gone}")
                    if connection.delete_topic(gone) == 0:
                        self.say(f"deleted {gone}")
                time.sleep(0.03)

    def hear(self, text):
        self.promises.hear(text)

    def points(self, records):
        """Where cuts are of interest beside random ones: while a snapshot is written, recorded, and trimmed behind."""
        snapshots = [i for i, r in enumerate(records) if r.op == replay.WRITE and r.data.startswith(b"SLSN")]
        near = [i + self.chance.randrange(120) for i in self.chance.sample(snapshots, min(2, len(snapshots)))]
        return [i for i in near if i < len(records)]

    def promised_from(self, records):
        """Where the first promise is; before it directories and files are made."""
        return next(i for i, r in enumerate(records) if r.data.startswith(b"created"))

    def check(self, disk_path):
        """Raises Loss unless a broker starts on the disk, has everything that was promised, and goes on."""
        broker = self.broker("probe", disk_path)
        try:
            broker.start()
            if TOPIC in self.promises.topics:
                self.check_running(broker.port)
        except (AssertionError, OSError, wire.Closed) as error:
            raise Loss(reason(error, broker)) from None
        finally:
            if broker.alive():
                broker.kill9()
        layer.check_database(disk_path / "new/node/journal.db")

    def check_running(self, port):
        promises = self.promises
        with wire.Connection(port) as connection:
            topics = set(connection.metadata(None)["topics"])
            assert not promises.topics - topics, f"topics lost: {sorted(promises.topics - topics)}"
            assert not promises.deleted & topics, f"deleted topics came back: {sorted(promises.deleted & topics)}"
            records = careful.read(port, TOPIC, PARTITIONS)
            careful.check(records, promises.batches)
            ends = [len(found) for found in records]
            assert all(end >= seen for end, seen in zip(ends, promises.seen)), f"read: {promises.seen}, now: {ends}"
            careful.check_repeats(port, TOPIC, promises.batches, records)
            identity = connection.init_producer_id()
            assert identity[0] not in {b.producer[0] for b in promises.batches}, f"producer id {identity[0]} again"
            answer = connection.produce(TOPIC, careful.Batch("new", identity, 0, 0, 1).encoded())
            assert (answer["error"], answer["base"]) == (0, ends[0]), f"a new batch at the end {ends[0]}: {answer}"

    def taken(self):
        """The next life starts from the cut that was checked last: nothing has to be forgotten."""

    def told(self):
        return f"{sum(b.count for b in self.promises.batches)} records acknowledged, {len(self.promises.topics)} topics"

    def close(self):
        self.load.abandon()
