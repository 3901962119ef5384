"""What `deploy/` starts. The containers of compose.yaml are not run; what it says to brokers is."""

import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from cluster import COMPOSE, published

from harness import wire
from harness.broker import BINARY
from harness.processes import ROOT, Child, bindable, wait_until
from harness.records import Record

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(180)]


def test_what_the_compose_file_says_to_brokers_is_right(tmp_path):
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    brokers = {name: service for name, service in services.items() if name.startswith("broker-")}
    assert len(brokers) == 3
    (tmp_path / "empty.yaml").write_text("")
    ids, ports = set(), []
    for name, service in brokers.items():
        environment = {key: str(value) for key, value in service["environment"].items()}
        check = subprocess.run(
            [BINARY, "config", "check", tmp_path / "empty.yaml"],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
        )
        assert check.returncode == 0, check.stdout + check.stderr
        ids.add(environment["STRANDLINE_BROKER_ID"])
        ports += [outside for outside, _ in map(published, service["ports"])]
        outside, inside = published(service["ports"][0])
        assert environment["STRANDLINE_LISTENERS__1__ADVERTISED"] == f"127.0.0.1:{outside}"
        assert environment["STRANDLINE_LISTENERS__1__ADDRESS"] == f"0.0.0.0:{inside}"
        assert environment["STRANDLINE_LISTENERS__0__ADVERTISED"] == f"{name}:19092"
        assert set(service["depends_on"]) <= set(services)
    assert len(ids) == 3 and len(set(ports)) == 6
    build = brokers["broker-1"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).exists()


def test_the_same_as_plain_processes(client, topic, tmp_path):
    # Below the ports of all other tests, also of those that run beside this one.
    shift = next(n for n in (random.randrange(1_000, 10_000) for _ in range(50)) if all(map(bindable, taken(n))))
    argv = [sys.executable, ROOT / "integration-tests/cluster.py", "--shift", str(shift)]
    cluster = Child(argv, log=tmp_path / "cluster.log", env={"PYTHONUNBUFFERED": "1"})
    try:
        wait_until(lambda: not cluster.alive() or "To try:" in cluster.log_tail(), 90, "the cluster's greeting")
        assert cluster.alive(), cluster.log_tail()
        first, *_, last = (SimpleNamespace(port=p, bootstrap=f"127.0.0.1:{p}", lives=1) for p in ports(shift))
        listed = subprocess.run(
            [BINARY, "broker", "list", "--server", first.bootstrap], capture_output=True, text=True, check=True
        )
        assert all(f"127.0.0.1:{port}" in listed.stdout for port in ports(shift)), listed.stdout
        with wire.Connection(first.port) as connection:
            connection.make_topic(topic)
        sent = [Record(b"k", str(n).encode()) for n in range(10)]
        client("confluent", first).produce(topic, sent, codec="none")
        seen = client("kafka-python", last).fetch(topic, 0, 0, len(sent))
        assert [r.value for r in seen] == [r.value for r in sent]
        cluster.process.send_signal(signal.SIGINT)
        assert cluster.wait(60) == 0, cluster.log_tail()
        assert "brokers ended with [0, 0, 0]" in cluster.log_tail(), cluster.log_tail()
    finally:
        cluster.kill9()


def ports(shift) -> list[int]:
    return [9092 + shift, 9093 + shift, 9094 + shift]


def taken(shift) -> list[int]:
    """With those for metrics."""
    return ports(shift) + [9644 + shift, 9645 + shift, 9646 + shift]
