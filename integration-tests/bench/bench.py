#!/usr/bin/env python3
"""`make bench`: Strandline beside Apache Kafka, in one run, on one machine, under one load generator.

    bench.py [--quick] [--rounds N] [--only kafka,local,s3] [--out DIR]

A round starts each broker in turn on an empty directory, measures every row, stops it and removes its data; so the arms
alternate: A-B-C-A-B-C. With --quick (nine minutes) the brokers start once and live through all rounds. Both Kafka arms are
one process and differ by the topic's flush.messages alone. Kafka is warmed with 2 GiB that are discarded, Strandline with
256 MiB. The table goes to standard output and to DIR, with the raw numbers as JSON beside it. The exit code is 0 also when
a bar is missed, unless --strict is given.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import process
import table
from brokers import Kafka, Strandline

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("TEST_CACHE_DIR") or ROOT / ".cache")
# The store's latency model keeps everything in memory, and the journal has to lie where the bucket lies.
S3_SETTINGS = {
    "STRANDLINE_BUCKET__URL": "memory:?model=s3",
    "STRANDLINE_JOURNAL__KIND": "memory",
    "STRANDLINE_PRODUCE__FLUSH_INTERVAL_MS": "250",
}
# Looked at once a second; single records alone are more entries than this in that time.
MANY_SNAPSHOTS = {"STRANDLINE_SNAPSHOT__ENTRIES_BETWEEN": "10"}
NO_SNAPSHOTS = {
    "STRANDLINE_SNAPSHOT__ENTRIES_BETWEEN": "1000000000",
    "STRANDLINE_SNAPSHOT__BYTES_BETWEEN": "1000000000000",
    "STRANDLINE_SNAPSHOT__AGE_MS_MAX": "86400000",
}
FLUSHED = ("--config", "flush.messages=1")
MIB = 1 << 20

SHAPES = {
    # 126 records of 1 KiB fill 128 KiB; eight such batches make a request of 1 MiB, as the Java client sends it.
    "big": ["--record-bytes", "1KiB", "--batch-records", "126", "--request-batches", "8"],
    "small": ["--record-bytes", "100", "--batch-records", "16", "--request-batches", "16"],
}


@dataclass
class Sizes:
    """How much each row moves. A produce row ends at its bytes or its seconds, whichever comes first."""

    rounds: int
    big_bytes: int
    small_bytes: int
    produce_seconds: float
    consume_seconds: float
    trips: int
    fill_bytes: int  # record bytes of the runs that a snapshot holds
    idle_seconds: float
    consumers: tuple
    commit_seconds: int
    long_lived: bool  # brokers live through all rounds


QUICK = Sizes(3, 384 * MIB, 48 * MIB, 2.0, 0.7, 150, 32 * MIB, 1.0, (1,), 5, True)
FULL = Sizes(5, 2048 * MIB, 384 * MIB, 15.0, 5.0, 1500, 256 * MIB, 10.0, (1, 8), 20, False)


@dataclass
class Run:
    """One invocation: what it measures with, and what it found."""

    load: Path
    sizes: Sizes
    measurements: list = field(default_factory=list)
    round: int = 0

    def note(self, arm, row, **numbers):
        self.measurements.append({"arm": arm, "round": self.round, "row": row, **numbers})
        shown = {key: round(value, 3) for key, value in numbers.items() if isinstance(value, float | int)}
        print(f"  {self.round} {arm}: {row} {shown}", file=sys.stderr, flush=True)

    def tool(self, broker, command, *words, check=True):
        """Runs the load generator against a broker that is proved to be ours."""
        if check:
            broker.prove()
        argv = [self.load, command, "--bootstrap", broker.address, *words]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, argv))}:\n{done.stderr}\n{broker.log_tail()}")
        return json.loads(done.stdout)

    def timed(self, broker, command, *words):
        """The same, with the CPU that the broker used meanwhile."""
        before = process.cpu_seconds(broker.pid)
        result = self.tool(broker, command, *words)
        time.sleep(0.2)
        return {**result, "broker_cpu_s": process.cpu_seconds(broker.pid) - before}

    def start(self, arm, broker):
        began = broker.start()
        acked = self.tool(broker, "first", "--topic", "first", "--partitions", "1", check=False)["acked_at_monotonic_s"]
        broker.prove()
        self.note(arm, "start", start_s=acked - began)
        time.sleep(self.sizes.idle_seconds)
        self.note(arm, "idle", rss=process.memory_bytes(broker.pid)[0])

    def warm(self, broker, total):
        """Load whose numbers are discarded: nine tenths large batches, one tenth small ones, all read back."""
        for shape, share in (("big", 0.9), ("small", 0.1)):
            for producers in (1, 8):
                words = ["--bytes", int(total * share / 2), "--producers", producers, *SHAPES[shape]]
                self.tool(broker, "produce", "--topic", f"warm-{shape}", "--create", *words)
            self.tool(broker, "consume", "--topic", f"warm-{shape}")
            self.tool(broker, "delete", "--topic", f"warm-{shape}")

    def latency(self, arm, broker, configs=()):
        settle()
        self.note(arm, "trip", **self.tool(broker, "trip", "--topic", "trip", *self.trip_words(), *configs))
        self.tool(broker, "delete", "--topic", "trip")

    def latency_while_creating(self, arm, broker, other):
        """Latency of others while somebody creates topics of 10,000 partitions, one after another, and deletes them: on the
        same broker, and on another one, which shows how much of it is the machine's and not the broker's."""

        def disturb(at):
            def one(number):
                self.tool(at, "create", "--topic", f"wide{number}", "--partitions", "10000")
                self.tool(at, "delete", "--topic", f"wide{number}")

            return one

        calm = self.trip(broker, "calm")
        during = self.trip(broker, "busy", disturb(broker))
        other.start()
        try:
            elsewhere = self.trip(broker, "elsewhere", disturb(other))
        finally:
            other.stop()
        results = {"calm": calm["ack"], "during": during["ack"], "elsewhere": elsewhere["ack"]}
        self.note(arm, "trip_create", **results, created=during["disturbed"], created_elsewhere=elsewhere["disturbed"])

    def latency_while_snapshots_are_written(self, arm, calm, busy):
        """Latency on a broker that writes a snapshot each second, and on one that writes none. Both hold many runs."""
        measured = {}
        for name, broker in (("calm", calm), ("during", busy)):
            broker.start()
            try:
                self.tool(broker, "first", "--topic", "first", "--partitions", "1", check=False)
                fill = ["--partitions", "10000", "--bytes", self.sizes.fill_bytes, "--producers", "8", *SHAPES["small"]]
                self.tool(broker, "produce", "--topic", "runs", "--create", *fill)
                before = broker.metric("strandline_snapshot_written_total")
                measured[name] = self.trip(broker, "trip")["ack"]
                written = broker.metric("strandline_snapshot_written_total") - before
                size = broker.metric("strandline_snapshot_newest_bytes")
            finally:
                broker.stop()
            if (written > 0) != (name == "during"):
                raise RuntimeError(f"{written} snapshots were written on the {name} broker")
        self.note(arm, "trip_snapshot", **measured, written=written, snapshot_bytes=size)

    def groups(self, arm, broker):
        """A large group that forms, changes and is restarted; and many consumers that commit all the time. The delay before
        a new group's first assignment is the default on both sides, 3 s. Short runs measure it once."""
        if self.sizes.long_lived and self.round > 1:
            return
        for protocol in ("classic", "consumer"):
            topic = ["--topic", "crowded", "--partitions", "1000", "--create"]
            words = ["--protocol", protocol, "--members", "300", "--group", f"{protocol}-{self.round}"]
            self.note(arm, f"group_{protocol}", **self.tool(broker, "group-rebalance", *topic, *words))
        settle()
        words = ["--topic", "committed", "--create", "--consumers", "500", "--every-ms", "100"]
        before = broker.journal_appends()
        result = self.timed(broker, "group-commit", *words, "--seconds", self.sizes.commit_seconds)
        appends = (broker.journal_appends() - before) / result["seconds"]
        self.note(arm, "group_commit", **result, appends_per_s=appends)
        for name in ("crowded", "committed"):
            self.tool(broker, "delete", "--topic", name)

    def trip(self, broker, topic, disturb=None):
        """Single records on an otherwise idle broker, while `disturb` is called again and again."""
        settle()
        argv = [self.load, "trip", "--bootstrap", broker.address, "--topic", topic, *self.trip_words()]
        trip = subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, text=True)
        disturbed = 0
        try:
            time.sleep(0.5)
            while disturb and trip.poll() is None:
                disturb(disturbed)
                disturbed += 1
            output, _ = trip.communicate(timeout=120)
        finally:
            trip.kill()
            trip.wait()
        self.tool(broker, "delete", "--topic", topic)
        return {**json.loads(output), "disturbed": disturbed}

    def trip_words(self):
        return ["--partitions", "1", "--create", "--records", self.sizes.trips, "--every-ms", "10"]

    def produce_and_consume(self, arm, broker, configs=(), consumers=None):
        sizes = self.sizes
        for shape, total in (("big", sizes.big_bytes), ("small", sizes.small_bytes)):
            self.tool(broker, "create", "--topic", shape, *configs)
            for count in (1, 8):
                settle()
                limits = ["--bytes", total, "--seconds", sizes.produce_seconds, "--producers", count]
                result = self.timed(broker, "produce", "--topic", shape, *limits, *SHAPES[shape])
                self.note(arm, f"produce_{shape}_{count}", **result)
            for count in sizes.consumers if consumers is None else consumers:
                settle()
                limits = ["--repeat", "1000000", "--seconds", sizes.consume_seconds, "--consumers", count]
                result = self.timed(broker, "consume", "--topic", shape, *limits)
                self.note(arm, f"consume_{shape}_{count}", **result)
            self.tool(broker, "delete", "--topic", shape)

    def loaded(self, arm, broker):
        rss, peak = process.memory_bytes(broker.pid)
        self.note(arm, "loaded", rss=rss, peak=peak)


def spread(directory):
    """Lets ext4 place what is made below `directory` anywhere on the disk. It would otherwise make the files of an arm
    where those of the one before it were removed, and for five minutes it looks at each removed one before it makes a
    file, which more than doubled the CPU of an arm that makes many."""
    subprocess.run(["chattr", "+T", directory], check=False, capture_output=True)


def settle():
    """Lets what the row before left behind reach the disk, so that no row pays for another."""
    os.sync()
    time.sleep(0.2)


class KafkaArms:
    """Both Kafka arms: one process, measured with and without a flush of every append."""

    def __init__(self, run, directory, home):
        self.run, self.broker = run, Kafka(directory, home)

    def start(self):
        self.run.start(table.KAFKA, self.broker)
        self.run.warm(self.broker, 2048 * MIB)

    def measure(self):
        self.run.latency(table.KAFKA, self.broker)
        self.run.produce_and_consume(table.KAFKA, self.broker)
        self.run.loaded(table.KAFKA, self.broker)
        self.run.groups(table.KAFKA, self.broker)
        # Reading does not flush, so this arm only writes.
        self.run.latency(table.FLUSH, self.broker, FLUSHED)
        self.run.produce_and_consume(table.FLUSH, self.broker, FLUSHED, consumers=())


class StrandlineArm:
    def __init__(self, run, directory, binary, name, settings):
        self.run, self.name, self.broker = run, name, Strandline(directory, binary, settings)
        self.calm = Strandline(directory.with_name(f"{directory.name}-calm"), binary, {**settings, **NO_SNAPSHOTS})
        self.busy = Strandline(directory.with_name(f"{directory.name}-busy"), binary, {**settings, **MANY_SNAPSHOTS})

    def start(self):
        self.run.start(self.name, self.broker)
        self.run.warm(self.broker, 256 * MIB)

    def measure(self):
        self.run.latency(self.name, self.broker)
        self.run.produce_and_consume(self.name, self.broker)
        self.run.loaded(self.name, self.broker)
        if self.name == table.LOCAL:
            self.run.groups(self.name, self.broker)
        self.run.latency_while_creating(self.name, self.broker, self.calm)
        self.run.latency_while_snapshots_are_written(self.name, self.calm, self.busy)


def measure_all(run, arms, rounds):
    """Alternates the arms. Short runs start each broker once, long ones for every round."""
    try:
        if run.sizes.long_lived:
            for arm in arms:
                arm.start()
        for run.round in range(1, rounds + 1):
            for arm in arms:
                if not run.sizes.long_lived:
                    arm.start()
                arm.measure()
                if not run.sizes.long_lived:
                    arm.broker.stop()
    finally:
        for arm in arms:
            arm.broker.stop()


def machine():
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / table.GIB
    return f"{os.cpu_count()} × {cpu}, {memory_gib:.0f} GiB, Linux {platform.release()}"


def first_line(file):
    return file.read_text().splitlines()[0] if file.exists() else "none"


def version(binary):
    asked = subprocess.run([binary, "version"], capture_output=True, text=True) if binary.exists() else None
    return asked.stdout.strip() if asked and asked.returncode == 0 else "none"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nine minutes: short rows, for a look")
    parser.add_argument("--rounds", type=int, help="how often each arm is measured")
    parser.add_argument("--only", default="kafka,local,s3", help="arms: kafka, local, s3")
    parser.add_argument("--kafka", type=Path, default=CACHE / "kafka", help="where setup.sh installed Kafka")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/strandline")
    parser.add_argument("--load", type=Path, default=ROOT / "target/release/strandline-load")
    parser.add_argument("--work", type=Path, default=ROOT / "target/bench-data", help="data of the brokers; removed")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", help="where the table and the numbers go")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar is missed")
    args = parser.parse_args()
    # An ordinary exit runs the `finally` clauses, which stop the brokers and remove their data.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    run = Run(args.load, QUICK if args.quick else FULL)
    makers = {
        "kafka": lambda: KafkaArms(run, args.work / "kafka", args.kafka),
        "local": lambda: StrandlineArm(run, args.work / "local", args.binary, table.LOCAL, {}),
        "s3": lambda: StrandlineArm(run, args.work / "s3", args.binary, table.S3, S3_SETTINGS),
    }
    arms = [makers[name]() for name in args.only.split(",")]
    args.work.mkdir(parents=True, exist_ok=True)
    spread(args.work)
    needed = 8 * table.GIB if args.quick else 24 * table.GIB
    if shutil.disk_usage(args.work).free < needed:
        sys.exit(f"{args.work} needs {needed / table.GIB:.0f} GiB free")

    began, load_before = time.time(), os.getloadavg()
    try:
        measure_all(run, arms, args.rounds or run.sizes.rounds)
    finally:
        shutil.rmtree(args.work, ignore_errors=True)
        verdicts = report(args, run, began, load_before)
    sys.exit(1 if args.strict and any(verdict == "**miss**" for _, verdict in verdicts) else 0)


def report(args, run, began, load_before):
    text, verdicts = table.render(run.measurements)
    about = {
        "machine": machine(),
        "kafka": first_line(args.kafka / "VERSION"),
        "strandline": version(args.binary),
        "rounds": run.round,
        "mode": "quick" if args.quick else "full",
        "seconds": round(time.time() - began),
        "load_average_before": load_before[0],
        "sizes": vars(run.sizes),
    }
    passed = sum(verdict == "pass" for _, verdict in verdicts)
    missed = sum(verdict == "**miss**" for _, verdict in verdicts)
    head = (
        f"{about['machine']}; Kafka {about['kafka']}, Strandline {about['strandline']}; {about['mode']}, {about['rounds']} rounds, {about['seconds']} s; "
        f"load average before: {load_before[0]:.1f}. Cells: median (lowest–highest). 16 partitions, acks=all, idempotent, "
        f"5 requests in flight; MB/s and GiB are those of record batches on the wire.\n\n"
    )
    text = f"{head}{text}\n\nBars: {passed} passed, {missed} missed.\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "bench.md").write_text(text)
    (args.out / "bench.json").write_text(json.dumps({"about": about, "measurements": run.measurements}, indent=1))
    print(text)
    return verdicts


if __name__ == "__main__":
    main()
