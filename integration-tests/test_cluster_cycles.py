"""Three brokers that are killed, stand still and are cut off while their database dies and fails over: what clients of three
libraries see of it, and for how long they are not answered.

Each broker lives in a network namespace of its own. TEST_CYCLES and TEST_KAFKA_CYCLES say how often something happens.
"""

import os
import random
import re
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import histories
from harness.broker import Kafka, Strandline
from harness.minio import Minio
from harness.namespaces import Namespace, missing
from harness.postgres import PASSWORD, Replicated
from harness.processes import CACHE, Child, wait_until

pytestmark = pytest.mark.strandline
PARTITIONS = 4
BROKERS = 3
FENCING_S = 1.0
# A cluster that shall take over soon; false alarms are looked for with the same.
OWN = {
    "insecure": True,
    "cluster": {"fencing_timeout_ms": int(FENCING_S * 1000), "heartbeat_interval_ms": 200, "journal_staleness_max_ms": 800},
    "produce": {"flush_interval_ms": 20},
    "snapshot": {"entries_between": 1000, "kept_min": 3, "kept_hours": 0},
}
GROUPS = {"group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000}
# Clients ask again after this long without an answer: they can't notice sooner that a broker stands still.
REQUEST_TIMEOUT_MS = 750
# And come back this long after a leader did; by default after five minutes.
METADATA_AGE_MS = 1000
TAKEN = "strandline_produce_in_bytes_total"
# A Kafka as it is shipped, and one whose brokers are missed as soon as ours.
KAFKAS = {
    "Kafka, as shipped": {},
    "Kafka, session 1 s": {"broker.session.timeout.ms": 1000, "broker.heartbeat.interval.ms": 200},
}


class Cluster:
    """Brokers, each behind wires of its own, over MinIO and a replicated PostgreSQL."""

    def __init__(self, directory):
        self.database, self.bucket = Replicated(directory), Minio(directory / "minio", everywhere=True)
        self.brokers, self.namespaces, self.directory = [], [], directory

    def start(self, count=BROKERS) -> "Cluster":
        self.database.start(), self.bucket.start()
        for number in range(1, count + 1):
            self.namespaces.append(Namespace(number))
            self.brokers.append(self._broker(number, self.namespaces[-1]).start())
        wait_until(self.is_whole, 30, "all brokers know each other")
        return self

    def _broker(self, number, namespace):
        own = {**OWN, "broker_id": number, "journal": self.database.journal(namespace.outside("database"))}
        bucket = self.bucket.config(endpoint=f"http://{namespace.outside('bucket')}:{self.bucket.port}")
        place = self.directory / f"broker-{number}"
        made = Strandline(place, own=own, bucket=bucket, settings=GROUPS, namespace=namespace)
        made.environment = {"STRANDLINE_JOURNAL__POSTGRES_PASSWORD": PASSWORD}
        return made

    @property
    def bootstrap(self):
        return ",".join(broker.bootstrap for broker in self.brokers)

    def is_whole(self) -> bool:
        return all(broker.seen() == len(self.brokers) for broker in self.brokers) and self.database.is_whole()

    def leaders(self) -> list[Strandline]:
        """Those who are missed: clients have come to them. One that does not lead serves who stays with it, and nobody
        would notice its end, since it is known at once who leads."""
        before = [broker.metrics()[TAKEN] for broker in self.brokers]
        time.sleep(0.5)
        taken = [broker.metrics()[TAKEN] - had for broker, had in zip(self.brokers, before)]
        leaders = {p["leader"] for p in partitions(self.brokers[0], self.topic)}
        busy = [broker for broker, share in zip(self.brokers, taken) if share > 0.2 * sum(taken)]
        return [broker for broker in busy if broker.own["broker_id"] in leaders]

    def make_topic(self, topic):
        self.topic = topic
        with self.brokers[0].connect() as connection:
            connection.make_topic(topic, PARTITIONS)

    def stop(self):
        for broker in self.brokers:
            if broker.alive():
                broker.kill9()
        self.bucket.stop(), self.database.stop()
        while self.namespaces:
            self.namespaces.pop().remove()


class KafkaCluster:
    """The real one, with what the cycles ask of ours."""

    def __init__(self, directory, settings):
        self.topic, self.brokers = None, Kafka.cluster(directory, BROKERS, {**GROUPS, "min.insync.replicas": 2, **settings})

    @property
    def bootstrap(self):
        return ",".join(broker.bootstrap for broker in self.brokers)

    def is_whole(self) -> bool:
        """Also every replica of each partition is in sync."""
        return all(
            broker.seen() == BROKERS and all(len(p["isr"]) == BROKERS for p in partitions(broker, self.topic))
            for broker in self.brokers
        )

    def leaders(self) -> list[Kafka]:
        return [self.brokers[leader - 1] for leader in sorted({p["leader"] for p in partitions(self.brokers[0], self.topic)})]

    def make_topic(self, topic):
        with self.brokers[0].connect() as connection:
            assert connection.create_topic(topic, PARTITIONS, replicas=BROKERS) == 0
        self.topic = topic
        wait_until(self.is_whole, 30, "all replicas of the topic")

    def stop(self):
        for broker in self.brokers:
            broker.kill9()


def partitions(broker, topic) -> list[dict]:
    with broker.connect() as connection:
        return connection.metadata([topic])["topics"][topic]["partitions"]


# What happens. Each returns when it is over, though nobody may have noticed yet.


def kill(cluster, broker, chance):
    broker.kill9()
    time.sleep(chance.uniform(2.5, 3.5))
    broker.restart()


def stand_still(cluster, broker, chance):
    os.killpg(broker.child.pid, signal.SIGSTOP)
    time.sleep(chance.uniform(2.5, 3.5))
    os.killpg(broker.child.pid, signal.SIGCONT)


def cut_from(wire_name):
    def cut(cluster, broker, chance):
        broker.namespace.cut(wire_name)
        time.sleep(chance.uniform(1, 4))
        broker.namespace.heal(wire_name)

    return cut


def database_dies(cluster, broker, chance):
    cluster.database.kill9()
    time.sleep(chance.uniform(0, 1))
    cluster.database.primary.start()


def standby_takes_over(cluster, broker, chance):
    cluster.database.kill9()
    time.sleep(chance.uniform(0, 1))
    cluster.database.promote()


FAULTS = {
    "kill -9": kill,
    "SIGSTOP": stand_still,
    "cut from bucket": cut_from("bucket"),
    "cut from database": cut_from("database"),
    "cut from clients": cut_from("clients"),
    "PostgreSQL kill -9": database_dies,
    "promotion": standby_takes_over,
}


@pytest.fixture
def cluster(tmp_path):
    why = missing()
    if why:
        pytest.skip(why)
    made = Cluster(tmp_path)
    try:
        yield made.start()
    finally:
        made.stop()


class Observed:
    """The workload on a cluster, what was done to it, and what came of that."""

    def __init__(self, cluster, topic, directory, records_per_s=30):
        self.seed = int(os.environ.get("TEST_SEED") or random.randrange(1 << 30))
        print(f"TEST_SEED={self.seed}")
        self.chance, self.cluster, self.events = random.Random(self.seed), cluster, []
        cluster.make_topic(topic)
        self.workload = histories.Workload(
            cluster, topic, PARTITIONS, directory / "history", run=self.seed, records_per_s=records_per_s,
            request_timeout_ms=REQUEST_TIMEOUT_MS, metadata_age_ms=METADATA_AGE_MS,
        )  # fmt: skip
        self.workload.start()
        wait_until(lambda: all(f.exists() for f in self.workload.files), 60, "clients that write")
        self.acks = histories.Acknowledgements(self.workload)

    def settle(self):
        """All take part and all clients are answered again."""
        wait_until(lambda: not self._alive() or self.cluster.is_whole(), 90, "the cluster is whole", every_s=0.1)
        since = histories.micros()
        wait_until(lambda: not self._alive() or self.acks.all_since(since), 90, "all clients are answered", every_s=0.1)
        self.workload.check_alive()
        for broker in self.cluster.brokers:
            assert broker.alive(), broker.log_tail()

    def _alive(self):
        everybody = [*self.cluster.brokers, *self.workload.children.values()]
        return all(each.alive() for each in everybody)

    def hurt(self, faults):
        """Each of these in turn, after the one before has healed."""
        for number, fault in enumerate(faults):
            self.settle()
            broker = self.chance.choice(wait_until(self.cluster.leaders, 60, "clients come to the leaders"))
            self.workload.note(f"{fault}, broker {1 + self.cluster.brokers.index(broker)}")
            since = histories.micros()
            FAULTS[fault](self.cluster, broker, self.chance)
            self.workload.note(f"{fault} over")
            self.settle()
            gaps = self.acks.gaps_s(since, histories.micros())
            self.events.append((fault, gaps))
            told = ", ".join(f"{client} {gap:.2f}" for client, gap in gaps.items())
            print(f"{number + 1:4} {fault:18} {since} broker {1 + self.cluster.brokers.index(broker)}  {told}", flush=True)

    def gaps(self, fault) -> list[float]:
        """Of each time that this happened, how long the most unlucky client waited."""
        return [max(gaps.values()) for kind, gaps in self.events if kind == fault]

    def rows(self, name=None):
        for fault in dict.fromkeys(kind for kind, _ in self.events):
            of_clients = [[gaps[c] for kind, gaps in self.events if kind == fault] for c in histories.CLIENTS]
            yield name or fault, self.gaps(fault), of_clients

    def verdict(self):
        """Stops, reads all with fresh clients, and asks the checker."""
        self.settle()
        self.workload.stop()
        stuck = self.workload.read_back()
        clean, said = self.workload.verdict()
        print(said)
        assert clean and not stuck, "\n".join([said, *stuck])
        if not os.environ.get("TEST_KEEP_HISTORY"):
            shutil.rmtree(self.workload.directory)


def tell(rows):
    """Seconds between acknowledgements of one client from one partition: for the most unlucky one, and by library."""
    print(f"{'':20} {'times':>5} {'median':>7} {'worst':>7}   median / worst of " + ", ".join(histories.CLIENTS))
    for name, gaps, of_clients in rows:
        by_client = "   ".join(f"{statistics.median(g):5.2f} / {max(g):5.2f}" for g in of_clients)
        print(f"{name:20} {len(gaps):5} {statistics.median(gaps):7.2f} {max(gaps):7.2f}   {by_client}", flush=True)


def of_kafka(topic, directory, settings, cycles):
    """The same workload on a real cluster whose brokers are killed."""
    cluster = KafkaCluster(directory, settings)
    try:
        observed = Observed(cluster, topic, directory)
        observed.hurt(["kill -9"] * cycles)
        observed.workload.stop()
        return observed
    finally:
        cluster.stop()


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_three_hundred_cycles(cluster, topic, tmp_path):
    """Nothing is lost, twice or out of order, and clients hardly wait."""
    cycles = int(os.environ.get("TEST_CYCLES", "300"))
    kinds = os.environ.get("TEST_FAULTS", ",".join(FAULTS)).split(",")
    faults = (kinds * cycles)[:cycles]
    observed = Observed(cluster, topic, tmp_path)
    observed.chance.shuffle(faults)
    observed.hurt(faults)
    rows = list(observed.rows())
    tell(rows)
    observed.verdict()
    cluster.stop()
    count = int(os.environ.get("TEST_KAFKA_CYCLES", "10"))
    for number, (name, settings) in enumerate(KAFKAS.items()):
        rows += of_kafka(topic, tmp_path / f"kafka{number}", settings, count).rows(name)
    tell(rows)
    assert not observed.acks.failed, observed.acks.failed[:10]
    killed, stopped = observed.gaps("kill -9"), observed.gaps("SIGSTOP")
    assert not killed or (statistics.median(killed) <= 1.5 and max(killed) <= 3), sorted(killed)
    assert not stopped or max(stopped) <= FENCING_S + 1, sorted(stopped)


@pytest.mark.timeout(180)
def test_a_broker_is_cut_off_and_the_standby_takes_over(cluster, topic, tmp_path):
    """What `test_cluster.py` leaves out."""
    observed = Observed(cluster, topic, tmp_path)
    observed.hurt(["cut from database", "cut from bucket", "cut from clients", "promotion"])
    tell(observed.rows())
    observed.verdict()
    assert not observed.acks.failed, observed.acks.failed[:10]


@pytest.mark.nightly
@pytest.mark.timeout(3 * 3600)
def test_nobody_is_fenced_where_the_processors_are_busy(cluster, topic, tmp_path):
    """With the short fencing time of the cycles; TEST_BUSY_MINUTES says how long."""
    observed = Observed(cluster, topic, tmp_path, records_per_s=10)
    observed.settle()
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [Child(burn, log=tmp_path / f"burner{n}.log") for n in range(os.cpu_count())]
    until = time.monotonic() + 60 * float(os.environ.get("TEST_BUSY_MINUTES", "30"))
    while time.monotonic() < until:
        time.sleep(1)
        observed.workload.check_alive()
        for broker in cluster.brokers:
            metrics = broker.metrics()
            assert metrics["strandline_cluster_fenced_brokers"] == 0 and metrics["strandline_cluster_members"] == BROKERS
    for burner in burners:
        burner.kill9()
    fencings = [line for b in cluster.brokers for line in b.log.read_text().splitlines() if "was fenced" in line]
    assert not fencings, fencings
    observed.verdict()
    assert not observed.acks.failed, observed.acks.failed[:10]


@pytest.fixture
def remote(launch, postgres, tmp_path):
    """Three brokers as they are shipped, over a bucket that is as slow as S3."""
    journal = postgres.journal(postgres_schema=f"test_{os.urandom(4).hex()}")
    brokers = []
    for number in range(1, BROKERS + 1):
        made = launch(start=False, own={"broker_id": number, "journal": journal}, bucket={"url": f"{tmp_path}/bucket?model=s3"})
        made.environment = postgres.environment()
        brokers.append(made.start())
    wait_until(lambda: all(broker.seen() == BROKERS for broker in brokers), 30, "all brokers know each other")
    return brokers


RECORD_BYTES = 1024


class Perf:
    """Kafka's own load, from one process; what does not arrive it prints."""

    def __init__(self, brokers, topic, records, log: Path, rate=-1):
        words = {
            "topic": topic, "num-records": int(records), "record-size": RECORD_BYTES, "throughput": int(rate),
            "bootstrap-server": ",".join(broker.bootstrap for broker in brokers), "command-property": "acks=all",
        }  # fmt: skip
        argv = [CACHE / "kafka/bin/kafka-producer-perf-test", *(w for k, v in words.items() for w in (f"--{k}", str(v)))]
        self.child = Child(argv, log=log)

    def result(self) -> tuple[float, float]:
        """Records per second, and the 99th percentile in ms."""
        assert self.child.wait(600) == 0, self.child.log_tail()
        said = self.child.log.read_text()
        assert not re.search(r"^(\S+Exception|\tat )", said, re.M), said[-3000:]
        last = said.strip().splitlines()[-1]
        return float(re.search(r"([\d.]+) records/sec", last)[1]), float(re.search(r"([\d.]+) ms 99th", last)[1])


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_rolling_restart_at_a_third_of_the_load(remote, topic, tmp_path):
    """No application hears of it, and few records wait for longer than on a calm day."""
    with remote[0].connect() as connection:
        connection.make_topic(topic, 12)
        connection.make_topic(f"{topic}-load", 12)
    first, _ = Perf(remote, f"{topic}-load", 50_000, tmp_path / "warm.log").result()
    most, _ = Perf(remote, f"{topic}-load", 10 * first, tmp_path / "most.log").result()
    rate = 0.3 * most
    together = SimpleNamespace(bootstrap=",".join(broker.bootstrap for broker in remote))
    workload = histories.Workload(together, topic, 12, tmp_path / "history", run=random.randrange(1 << 30), records_per_s=10)
    workload.start()
    _, calm_ms = Perf(remote, f"{topic}-load", 60 * rate, tmp_path / "calm.log", rate).result()
    perf = Perf(remote, f"{topic}-load", 60 * rate, tmp_path / "rolling.log", rate)
    for broker in remote:
        time.sleep(3)
        assert broker.stop() == 0, broker.log_tail()
        broker.restart()
        wait_until(lambda: all(other.seen() == BROKERS for other in remote), 10, "it is back")
    assert perf.child.alive(), "the load ended before the restarts"
    _, rolling_ms = perf.result()
    print(f"at {rate:.0f} of {most:.0f} KiB/s: p99 {calm_ms:.0f} ms, while all restart in turn {rolling_ms:.0f} ms")
    acks = histories.Acknowledgements(workload)
    workload.stop()
    stuck = workload.read_back()
    clean, said = workload.verdict()
    assert clean and not stuck, "\n".join([said, *stuck])
    assert not acks.read().failed, acks.failed[:10]
    assert rolling_ms <= 2 * calm_ms
