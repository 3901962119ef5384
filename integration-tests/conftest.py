"""Brokers, stores and clients as fixtures. `--broker kafka` runs everything against a real Kafka, to test the tests."""

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

from harness import broker as brokers
from harness import processes
from harness.clients import connect
from harness.minio import Minio
from harness.postgres import Postgres

# Seconds that each suite may take in CI, on two cores.
BUDGETS = {
    "test_clients": 240, "test_topics": 90, "test_admin": 60, "test_fetch": 40, "test_produce": 40, "test_hostile": 40, "test_kill": 90,
    "test_outages": 180,
    "test_memory": 120, "test_readme": 60, "test_demo": 120, "test_power_cut": 210, "test_stores": 120,
    "test_kill_points": 90, "test_group_offsets_topic": 60, "test_groups": 180,
    "test_group_errors": 40, "test_group_tools": 30, "test_histories": 90, "test_journals": 240, "test_cluster": 180,
    "test_journal_bucket": 190, "test_deploy": 60, "test_forks": 90, "test_cluster_cycles": 80,
    "test_transactions": 150, "test_transaction_errors": 20, "test_retention": 120, "test_compaction": 240, "test_audit": 30,
    "test_log_compaction": 120,
}  # fmt: skip


def pytest_addoption(parser):
    parser.addoption(
        "--broker", choices=["strandline", "kafka"], default=os.environ.get("TEST_BROKER", "strandline")
    )
    parser.addoption("--stores", default="local,minio", help="where the bucket lies: local, minio or both")


def pytest_configure(config):
    why = brokers.available(config.getoption("--broker"))
    if why:
        raise pytest.UsageError(why)


def pytest_generate_tests(metafunc):
    if "store" in metafunc.fixturenames:
        kafka = metafunc.config.getoption("--broker") == "kafka"
        stores = ["disk"] if kafka else metafunc.config.getoption("--stores").split(",")
        metafunc.parametrize("store", stores, scope="session")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--broker") == "kafka":
        for item in items:
            if item.get_closest_marker("strandline"):
                item.add_marker(pytest.mark.skip(reason="only Strandline has this"))


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def minio(directory):
    server = Minio(directory / "minio").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def postgres(directory):
    server = Postgres(directory).start()
    yield server
    server.stop()


class Launcher:
    """Starts brokers of the chosen kind and stops them at the end of the test, with their log if it failed."""

    def __init__(self, kind, directory):
        self.kind, self.directory, self.started = kind, directory, []

    def __call__(self, *, start=True, **options):
        place = self.directory / f"broker{len(self.started)}"
        if self.kind == "kafka":
            made = brokers.Kafka(place, settings=options.get("settings"))
        else:
            made = brokers.Strandline(place, **options)
        self.started.append(made)
        return made.start() if start else made

    def stop(self):
        for made in self.started:
            if made.alive():
                made.kill9()


@pytest.fixture
def launch(request, tmp_path):
    """Brokers of this test's own, which it may kill."""
    launcher = Launcher(request.config.getoption("--broker"), tmp_path)
    yield launcher
    if getattr(request.node, "failed", False):
        for made in launcher.started:
            print(f"--- {made.log}\n{made.log_tail()}")
    launcher.stop()


@pytest.fixture(scope="session")
def shared(request, directory):
    """One broker per store, shared by all tests that leave it running."""
    running = {}

    def get(store):
        if store not in running:
            place = directory / f"shared-{store}"
            bucket = request.getfixturevalue("minio").config("clients") if store == "minio" else None
            kind = request.config.getoption("--broker")
            made = brokers.Kafka(place) if kind == "kafka" else brokers.Strandline(place, bucket=bucket)
            running[store] = made.start()
        assert running[store].alive(), f"the shared broker died:\n{running[store].log_tail()}"
        return running[store]

    yield get
    for made in running.values():
        made.kill9()


@pytest.fixture
def broker(shared, request):
    """The shared broker, on the store of a test that names one and else on the cheapest."""
    if "store" in request.fixturenames:
        return shared(request.getfixturevalue("store"))
    return shared("disk" if request.config.getoption("--broker") == "kafka" else "local")


@pytest.fixture(scope="session")
def client(directory):
    """Clients by name and broker, each started once."""
    running = {}

    def get(name, broker):
        here = (name, broker.bootstrap, broker.lives)
        if here not in running:
            running[here] = connect(name, broker.bootstrap, directory / f"client-{len(running)}")
        return running[here]

    yield get
    for made in running.values():
        made.close()


@pytest.fixture
def topic(request) -> str:
    """A name of this test's own."""
    name = re.sub(r"[^a-zA-Z0-9_-]+", "-", request.node.name)[:80]
    return f"{name}-{os.urandom(3).hex()}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.failed = True
    return report


_spent = defaultdict(float)
_left_behind = []


def pytest_runtest_logreport(report):
    _spent[Path(report.nodeid.split("::")[0]).stem] += report.duration


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    left = processes.stop_all()
    # Of two processes that share the tests, each has its own children, and one that starts both tells of them.
    getattr(session.config, "workeroutput", {})["left_behind"] = left
    _left_behind.extend(left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    _left_behind.extend(getattr(node, "workeroutput", {}).get("left_behind", []))


def pytest_terminal_summary(terminalreporter):
    terminalreporter.section("time by suite")
    for name, seconds in sorted(_spent.items()):
        budget = BUDGETS.get(name)
        over = "  OVER BUDGET" if budget and seconds > budget else ""
        terminalreporter.line(f"{name:20} {seconds:7.1f} s of {budget or '-'} s{over}")
    for left in _left_behind:
        terminalreporter.line(f"stopped at the end: {left}")
