"""A broker under test: Strandline's binary, or a real Kafka to show that a test is right."""

import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from . import wire
from .processes import CACHE, ROOT, Child, bindable, free_port, wait_until

BINARY = Path(os.environ.get("TEST_BINARY") or ROOT / "target/release/strandline")
KAFKA = CACHE / "kafka"


class Broker:
    """Common to both kinds: start, kill, restart on the same data and the same port."""

    kind = ""
    start_timeout_s = 10.0
    host = "127.0.0.1"

    def __init__(self, directory: Path, *, settings=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.settings = dict(settings or {})  # Kafka's own broker settings by their Kafka names
        self.child: Child | None = None
        self.lives = 0

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self, **options) -> wire.Connection:
        return wire.Connection(self.port, host=self.host, **options)

    @property
    def log(self) -> Path:
        return self.directory / "broker.log"

    def argv(self) -> list:
        raise NotImplementedError

    def env(self) -> dict:
        return {}

    def start(self, wait=True) -> "Broker":
        assert self.child is None or not self.child.alive(), "the broker runs already"
        self.lives += 1
        self.child = Child(self.argv(), log=self.log, env=self.env(), cwd=self.directory)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s=None):
        def answers():
            if not self.child.alive():
                return "dead"
            with self.connect(timeout_s=2) as connection:
                return connection.api_versions() and connection.metadata([])["brokers"] and "ready"

        state = wait_until(answers, timeout_s or self.start_timeout_s, "the broker's first answer")
        if state == "dead":
            code = self.child.process.returncode
            raise AssertionError(f"the broker ended with exit code {code}:\n{self.log_tail()}")

    def seen(self) -> int:
        """How many brokers take part, as this one tells clients."""
        with self.connect() as connection:
            return len(connection.metadata([])["brokers"])

    def kill9(self):
        self.child.kill9()

    def stop(self, timeout_s=30.0) -> int | None:
        """SIGTERM; the exit code."""
        return self.child.terminate(timeout_s) if self.child else None

    def restart(self) -> float:
        """Starts again on the same data; the seconds until it answers."""
        started = time.monotonic()
        self.start()
        return time.monotonic() - started

    def alive(self) -> bool:
        return self.child is not None and self.child.alive()

    def log_tail(self, lines=40) -> str:
        return self.child.log_tail(lines) if self.child else "(not started)"

    def rss_bytes(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.child.pid}/status").read_text())[1]) * 1024


class Strandline(Broker):
    """`serve` on a data directory; the bucket is a directory in it unless `bucket` says otherwise."""

    kind = "strandline"

    def __init__(self, directory, *, settings=None, bucket=None, own=None, data=None, binary=BINARY, namespace=None):
        super().__init__(directory, settings=settings)
        self.namespace = namespace
        if namespace:
            self.host = namespace.inside("clients")
        self.binary = binary
        self.data = Path(data) if data else self.directory / "data"
        self.admin_port = free_port()
        self.bucket = bucket  # the `bucket` section
        self.own = own or {}  # further sections of the configuration file
        self.environment = {}

    def argv(self):
        config = self.directory / "broker.yaml"
        config.write_text(self.config_text())
        enter = self.namespace.enter() if self.namespace else []
        return [*enter, self.binary, "serve", "--config", config, "--data", self.data, "--listen", self.bootstrap]

    def env(self):
        return self.environment

    def config_text(self) -> str:
        sections = {"admin": {"address": f"{self.host}:{self.admin_port}"}, **self.own}
        if self.bucket:
            sections["bucket"] = self.bucket
        if self.settings:
            sections["kafka"] = self.settings
        return _yaml(sections)

    def admin(self, path, timeout_s=5.0) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.admin_port}{path}", timeout=timeout_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Each sample of /metrics by its name and labels as they are written."""
        _, text = self.admin("/metrics")
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


class Kafka(Broker):
    """One real Kafka node, KRaft, on fresh storage; alone, or one of a cluster."""

    kind = "kafka"
    start_timeout_s = 60.0

    def __init__(self, directory, *, settings=None, data=None, node=0):
        super().__init__(directory, settings=settings)
        self.data, self.node = data or self.directory / "kafka", node

    @classmethod
    def cluster(cls, directory, count, settings=None) -> list["Kafka"]:
        """Nodes that are all controllers too, and started already."""
        data = Path(directory) / "kafka"
        nodes = [cls(Path(directory) / f"node{n}", settings=settings, data=data, node=n) for n in range(count)]
        while not all(bindable(nodes[0].port + n + above) for n in range(count) for above in (0, 300)):
            nodes[0].port = free_port()
        for node in nodes:
            node.port = nodes[0].port + node.node
        nodes[0]._format(count)
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.start_timeout_s *= count  # as many share the machine
            node.wait_ready()
        return nodes

    def argv(self):
        properties = self.data / f"node{self.node}.properties"
        if not properties.exists():
            self._format(1)
        return [KAFKA / "bin/kafka-server-start", properties]

    def _format(self, count):
        extra = self.directory / "extra.properties"
        extra.write_text("".join(f"{k}={v}\n" for k, v in self.settings.items()))
        script = ROOT / "integration-tests/peers/kafka/cluster.sh"
        run = Child(
            [script, "format", KAFKA, self.data, count, self.port],
            log=self.directory / "format.log",
            env={"EXTRA": str(extra)},
        )
        assert run.process.wait(60) == 0, run.log_tail()
        run._reap(1)


def _yaml(value, depth=0) -> str:
    """Enough YAML for configuration files: nested mappings of scalars, every string quoted."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            lines.append(f"{'  ' * depth}{key}:\n{_yaml(entry, depth + 1)}")
        else:
            shown = (
                str(entry).lower()
                if isinstance(entry, bool)
                else entry
                if isinstance(entry, (int, float))
                else f'"{entry}"'
            )
            lines.append(f"{'  ' * depth}{key}: {shown}\n")
    return "".join(lines)


def available(kind) -> str | None:
    """Why this kind of broker can't be started here, or None."""
    if kind == "kafka" and not (KAFKA / "bin/kafka-server-start").exists():
        return f"no Kafka under {KAFKA}: run integration-tests/setup.sh"
    if kind == "strandline" and not BINARY.exists():
        return f"{BINARY} is not built"
    if kind == "kafka" and not shutil.which("java"):
        return "no java"
    return None
