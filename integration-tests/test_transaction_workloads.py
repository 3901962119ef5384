"""Transactions of real clients under faults: money is kept, a chain does each record once, and the checker finds nothing.

The broker is killed and stands still, its bucket is late and loses answers, clients die, sleep through their time-outs and have twins.
"""

import os
import random
import re
import shutil
import time
from collections import Counter

import pytest

from harness import histories, transactional, wire
from harness.processes import free_port
from harness.proxy import Proxy

pytestmark = pytest.mark.strandline
PARTITIONS = 2
OWN = {"produce": {"flush_interval_ms": 20}, "snapshot": {"entries_between": 100, "kept_min": 1, "kept_hours": 0}}
STORE = {"PUT": {"lost": 0.05, "done-503": 0.05, "late": 0.2}, "GET": {"late": 0.1, "cut": 0.02}}
# Of each rule, how often the checker looked at something at least.
EVERY = {"A7": 200, "A8": 200, "A11": 200, "A21": 5, "A4": 200, "K13": 100}


@pytest.fixture
def observed(launch, minio, topic, tmp_path):
    """Runs the workload under faults; how often each was done."""
    proxy = Proxy(free_port(), minio.port)

    def run(acts, *, transactions_per_s, records=0):
        seed = int(os.environ.get("TEST_SEED") or random.randrange(1 << 30))
        print(f"TEST_SEED={seed}")
        broker = launch(bucket=minio.config(topic, endpoint=proxy.endpoint), own=OWN)
        options = {"run": seed, "transactions_per_s": transactions_per_s}
        workload = transactional.Workload(broker, topic, PARTITIONS, tmp_path / "history", **options)
        with wire.Connection(broker.port) as connection:
            for name in workload.topics.values():
                connection.make_topic(name, PARTITIONS)
        workload.start()
        chance = random.Random(seed)
        proxy.chances(chance.random(), STORE)
        acts = [name for name, count in acts.items() for _ in range(count)]
        chance.shuffle(acts)
        time.sleep(2)  # the clients have come up
        for act in acts:
            hurt(broker, workload, act, chance)
            balances = workload.balances()
            assert not any(balances), f"after {act}: {balances}"
        while records and count(broker) < records:
            time.sleep(5)
            workload.check_alive()
        proxy.set("pass")
        time.sleep(1)
        workload.check_alive()
        workload.stop()
        workload.read_back()
        balances = workload.balances()
        clean, said = workload.verdict()
        print(said)
        assert clean and not any(balances), f"{balances}\n{said}"
        looked_at = {name: int(count) for name, count in re.findall(r"\b([AK]\d+) (\d+)", said)}
        if not os.environ.get("TEST_KEEP_HISTORY"):
            shutil.rmtree(tmp_path / "history")
        return Counter(acts), looked_at

    yield run
    proxy.stop()


def count(broker) -> float:
    return broker.metrics()["strandline_produce_in_records_total"]


def hurt(broker, workload, act, chance):
    time.sleep(chance.uniform(0, 0.7))
    workload.check_alive()
    client = chance.choice(list(transactional.PROCESSES))
    match act:
        case "kill":
            broker.kill9()
            broker.restart()
        case "pause":
            histories.pause(broker, chance.uniform(0.1, 3))
        case "zombie":
            workload.sleep(client, chance.uniform(0.5, 1.5) * transactional.TIMEOUT_MS / 1000)
        case "twin":
            workload.twin(client, chance.uniform(3, 6))
        case "death":
            workload.kill(client)


def check(ran, least):
    _, looked_at = ran
    few = {name: (looked_at.get(name, 0), due) for name, due in least.items() if looked_at.get(name, 0) < due}
    assert not few, few


@pytest.mark.nightly
@pytest.mark.timeout(120)
def test_kills_and_zombies(observed):
    check(observed({"kill": 3, "zombie": 1}, transactions_per_s=20), EVERY)


@pytest.mark.nightly
@pytest.mark.timeout(6000)
def test_two_hundred_kills_and_a_million_records(observed):
    acts = {"kill": 200, "pause": 20, "zombie": 20, "twin": 10, "death": 20}
    check(observed(acts, transactions_per_s=100, records=1_000_000), {name: 20 * count for name, count in EVERY.items()})
