"""The brokers that are compared. Each lives in a directory of its own, which is removed when it stops."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import process


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A child process that serves Kafka's protocol on a port of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.child = None

    def prepare(self):
        """What has to happen once before the start and is no part of it."""

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {}

    def journal_appends(self):
        """Appends so far; none where there is no journal."""
        return 0

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.child.pid

    def start(self):
        """Starts it without waiting for anything; gives the monotonic time just before."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.prepare()
        self.log = self.directory / "broker.log"
        with open(self.log, "wb") as log:
            before = time.monotonic()
            self.child = subprocess.Popen(
                [str(word) for word in self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, **self.environment()},
            )
        return before

    def prove(self):
        """Refuses to go on when it is not this child that answers on the port."""
        if self.child.poll() is not None:
            raise RuntimeError(f"the broker ended with {self.child.returncode}:\n{self.log_tail()}")
        if not process.listens(self.pid, self.port):
            raise RuntimeError(f"port {self.port} is not served by process {self.pid}")

    def log_tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self):
        """Ends the process, by force if it does not go, and removes its data."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Kafka(Broker):
    """One Apache Kafka node that is broker and controller, with Kafka's own defaults, its own heap (1 GiB, as its start
    script has it) and no authorizer. Deleted topics leave the disk at once, so that many rounds fit."""

    def __init__(self, directory, home):
        super().__init__(directory)
        self.home = home
        self.controller_port = free_port()

    def prepare(self):
        self.properties = self.directory / "server.properties"
        self.properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self.controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={self.directory}/logs
offsets.topic.replication.factor=1
file.delete.delay.ms=1000
"""
        )
        storage = self.home / "bin/kafka-storage"
        cluster = subprocess.run([storage, "random-uuid"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([storage, "format", "-t", cluster, "-c", self.properties], check=True, capture_output=True)

    def command(self):
        return [self.home / "bin/kafka-server-start", self.properties]

    def environment(self):
        return {"KAFKA_HEAP_OPTS": "-Xms1G -Xmx1G"}


class Strandline(Broker):
    """The binary as it is shipped, on a fresh data directory."""

    def __init__(self, directory, binary, settings=None):
        super().__init__(directory)
        self.binary = binary
        self.settings = settings or {}
        self.admin_port = free_port()

    def command(self):
        return [self.binary, "serve", "--data", self.directory / "data", "--listen", self.address]

    def environment(self):
        return {"STRANDLINE_ADMIN__ADDRESS": f"127.0.0.1:{self.admin_port}", **self.settings}

    def journal_appends(self):
        return self.metric("strandline_journal_append_seconds_count")

    def metric(self, name):
        """The value of a metric that has no labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            lines = (line.split() for line in answer.read().decode().splitlines())
        return next(float(words[1]) for words in lines if words and words[0] == name)
