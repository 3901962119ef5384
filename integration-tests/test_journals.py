"""The journal in PostgreSQL: its contract suite and its failures on real servers, and the broker over one."""

import os
import random
import time

import pytest
from test_kill import PARTITIONS, Load, check_final, follow, read_partitions, run_lives

from harness import wire
from harness.clients import connect
from harness.processes import wait_until
from harness.records import Record
from harness.suites import run_suite

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(600)]


@pytest.fixture
def over_postgres(launch, postgres):
    """As `launch`, with a schema of one server as the journal of each broker."""

    def make(own=None, **options):
        journal = postgres.journal(postgres_schema=f"test_{os.urandom(4).hex()}")
        made = launch(start=False, own={"journal": journal, **(own or {})}, **options)
        made.environment = postgres.environment()
        return made.start()

    return make


def test_contract_and_failures():
    run_suite("journal::postgres::", "--test-threads=2", environment={}, passing=21)


def test_a_client_writes_and_another_reads(over_postgres, postgres, topic, tmp_path):
    broker = over_postgres()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, 1)
    records = [Record(b"k%d" % i, b"value %d" % i) for i in range(200)]
    kcat = connect("kcat", broker.bootstrap, tmp_path / "kcat")
    kcat.produce(topic, records[:100])
    broker.kill9()
    broker.restart()
    kcat.produce(topic, records[100:])
    for reader in ("kcat", "confluent"):
        client = connect(reader, broker.bootstrap, tmp_path / reader)
        seen = client.fetch(topic, 0, 0, len(records))
        assert [(r.offset, r.key, r.value) for r in seen] == [(i, r.key, r.value) for i, r in enumerate(records)], reader
        client.close()
    kcat.close()
    assert broker.metrics()["strandline_journal_unreplicated"] == 1
    assert broker.stop() == 0, broker.log_tail()
    schema = broker.own["journal"]["postgres_schema"]
    assert int(postgres.query(f'SELECT position FROM "{schema}".journal')) > 0
    assert "strandline-test-password" not in broker.log.read_text()


def test_the_broker_is_killed(over_postgres, topic, tmp_path):
    own = {"snapshot": {"entries_between": 50, "kept_min": 1, "kept_hours": 0}}
    run_lives(over_postgres, topic, tmp_path, lives=6, per_life=300, seed=random.randrange(1 << 30), own=own)


def test_the_server_is_killed(over_postgres, postgres, topic, tmp_path):
    """Producers wait, nobody is told a lie, and the broker goes on by itself."""
    broker = over_postgres()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, PARTITIONS)
    load = Load(broker, topic, tmp_path, renewals=(0, 0))
    seen = [[] for _ in range(PARTITIONS)]
    for life in range(5):
        goal = load.acknowledged() + 300
        wait_until(lambda: load.check_alive() or load.acknowledged() >= goal, 60, f"acknowledgements in life {life}")
        postgres.kill9()
        time.sleep(random.random())
        postgres.start()
        follow(broker, topic, seen)
    load.stop()
    assert broker.alive(), broker.log_tail()
    check_final(load, read_partitions(broker, topic))


def test_what_is_wrong_at_start_is_named(launch, postgres):
    broker = launch(start=False, own={"journal": postgres.journal()})
    broker.environment = {"STRANDLINE_JOURNAL__POSTGRES_PASSWORD": "wrong"}
    broker.start(wait=False)
    assert broker.child.wait(20) == 1
    log = broker.log.read_text()
    assert "journal.postgres_url: no server that takes writes" in log and "[28P01]" in log, log
    assert "journal.postgres_password" in log, log
