"""The proof of the simulation, on the real binary: clients of three libraries write down what they saw, the checker judges it.

The broker is killed, stops for a while, and has a bucket that is late, refuses, loses its answers and cuts off what it sends.
"""

import os
import random
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from harness import histories, wire
from harness.broker import BINARY
from harness.processes import free_port, wait_until
from harness.proxy import Proxy

pytestmark = pytest.mark.strandline
PARTITIONS = 4
OWN = {
    # Many small objects, several of them on their way at a time.
    "produce": {"flush_interval_ms": 20, "object_bytes_max": "256 KiB"},
    # Readers reach the bucket.
    "fetch": {"cache_bytes_max": "2 MiB", "answer_bytes_max": "2 MiB", "response_bytes_max": "256 KiB"},
    "snapshot": {"entries_between": 100, "kept_min": 1, "kept_hours": 0},
}
GROUPS = {"group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1000}
# Of each kind of question that these clients' histories can answer, how often the checker asked it at least.
EVERY = {
    "A1": 5000, "A2": 3000, "A3": 5000, "A4": 1000, "A5": 3000, "A6": 1000, "A12": 5000, "A13": 500, "A16": 1000, "A20": 100, "A23": 50,
    "A25": 5000, "A26": 5000, "A30": 20,
}  # fmt: skip
STORED = 'strandline_bucket_requests_total{operation="create",purpose="ingest",outcome="done"}'
LOST = ("lost", "reset", "done-503")
STORE = {
    "PUT": {"lost": 0.2, "reset": 0.1, "done-503": 0.05, 503: 0.05, "late": 0.1},
    "GET": {"lost": 0.02, "cut": 0.05, "flipped": 0.05, 503: 0.05, "late": 0.1},
    "DELETE": {"lost": 0.1, 503: 0.1},
}
# More of these than of anything else.
LOSING = {**STORE, "PUT": {"lost": 0.3, "reset": 0.2, "done-503": 0.2}}


@dataclass
class Faults:
    kills: int = 0
    pauses: int = 0
    store: dict = field(default_factory=dict)
    lost_puts: int = 0  # at least
    seconds: float = 0.0  # at least


@pytest.fixture
def observed(launch, minio, topic, tmp_path):
    """Runs the workload under faults; how often each was done and what the checker says."""
    proxy = Proxy(free_port(), minio.port)

    def run(faults, *, records_per_s, binary=BINARY, environment=None):
        seed = int(os.environ.get("TEST_SEED") or random.randrange(1 << 30))
        print(f"TEST_SEED={seed}")
        bucket = minio.config(topic, endpoint=proxy.endpoint)
        broker = launch(start=False, bucket=bucket, own=OWN, settings=GROUPS, binary=binary)
        broker.environment.update(environment or {})
        broker.start()
        with wire.Connection(broker.port) as connection:
            connection.make_topic(topic, PARTITIONS)
        workload = histories.Workload(broker, topic, PARTITIONS, tmp_path / "history", run=seed, records_per_s=records_per_s)
        workload.start()
        done = hurt(broker, proxy, workload, faults, random.Random(seed))
        workload.stop()
        broker.stop()
        broker.own, broker.bucket = {}, minio.config(topic)  # as it is shipped, for everything is read from the bucket
        broker.start()
        stuck = workload.read_back()
        clean, said = workload.verdict()
        clean, said = clean and not stuck, "\n".join([said, *stuck])
        print(said)
        print("faults:", ", ".join(f"{count} {name}" for name, count in sorted(done.items())))
        if clean and not os.environ.get("TEST_KEEP_HISTORY"):
            shutil.rmtree(tmp_path / "history")
        return done, clean, said

    yield run
    proxy.stop()


def lost_puts(proxy) -> int:
    return sum(proxy.done["PUT", mode] for mode in LOST)


def hurt(broker, proxy, workload, faults, chance) -> Counter:
    done = Counter()
    if faults.store:
        proxy.chances(chance.random(), faults.store)
    started = time.monotonic()
    acts = ["kill"] * faults.kills + ["pause"] * faults.pauses
    chance.shuffle(acts)
    time.sleep(3)  # the clients have come up
    for act in acts:
        wait_until(lambda: broker.metrics()[STORED] >= 2, 30, "objects of a broker that has just started")
        time.sleep(chance.uniform(0, 0.7))
        workload.check_alive()
        workload.note(act)
        done[act] += 1
        if act == "pause":
            histories.pause(broker, chance.uniform(0.1, 3))
        else:
            broker.kill9()
            time.sleep(chance.choice([0, 0, 0.3]))
            broker.restart()
        workload.note(f"{act} over")
    while lost_puts(proxy) < faults.lost_puts or time.monotonic() < started + faults.seconds:
        time.sleep(0.5)
        workload.check_alive()
        assert broker.alive(), broker.log_tail()
    proxy.set("pass")
    time.sleep(3)  # without faults, all clients still at work
    workload.check_alive()
    done.update({f"{method} {mode}": count for (method, mode), count in proxy.done.items()})
    done["PUT without its answer"] = lost_puts(proxy)
    return done


def check(ran, **least):
    """No anomaly, of no fewer than `least` of each kind of question."""
    done, clean, said = ran
    assert clean, said
    looked_at = {name: int(count) for name, count in re.findall(r"\b([AK]\d+) (\d+)", said)}
    few = {name: (looked_at.get(name, 0), due) for name, due in least.items() if looked_at.get(name, 0) < due}
    assert not few, f"{few}\n{said}"
    assert f"read whole in the end: {PARTITIONS} of {PARTITIONS} logs" in said, said
    return done


@pytest.mark.timeout(240)
def test_kills_pauses_and_a_bad_store(observed):
    ran = observed(Faults(kills=20, pauses=3, store=STORE, lost_puts=200), records_per_s=50)
    done = check(ran, **EVERY)
    assert all(done[f"GET {mode}"] for mode in STORE["GET"])


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_ten_minutes_without_a_fault(observed):
    check(observed(Faults(seconds=600), records_per_s=50), **{name: 10 * count for name, count in EVERY.items()})


@pytest.mark.nightly
@pytest.mark.timeout(6000)
def test_five_hundred_kills(observed):
    check(observed(Faults(kills=500, pauses=25), records_per_s=30), **{name: 5 * count for name, count in EVERY.items()})


@pytest.mark.nightly
@pytest.mark.timeout(6000)
def test_ten_thousand_lost_answers(observed):
    check(observed(Faults(store=LOSING, lost_puts=10_000), records_per_s=50), **{name: 5 * count for name, count in EVERY.items()})


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.skipif("TEST_PLANTED" not in os.environ, reason="TEST_PLANTED names no binary that was built with the feature `planted`")
@pytest.mark.parametrize("defect, puts", [("ack-before-commit", {}), ("dropped-sync", {503: 0.3})])
def test_a_planted_defect_is_found(observed, defect, puts):
    """By what clients saw: a broker with it passes every assertion of its own."""
    faults = Faults(kills=40, store={"PUT": puts})
    try:
        _, clean, said = observed(faults, records_per_s=50, binary=os.environ["TEST_PLANTED"], environment={"PLANTED": defect})
    except AssertionError as ended:
        # librdkafka itself gives up where what it was promised is missing.
        assert "FATAL" in str(ended), ended
    else:
        assert not clean, said
