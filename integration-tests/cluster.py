#!/usr/bin/env python3
"""`make cluster`: the brokers, PostgreSQL and MinIO of deploy/compose.yaml as plain processes, until Ctrl-C. Nothing is kept.

    cluster.py [--shift N]        N is added to the ports that the file publishes
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import minio, postgres  # noqa: E402
from harness.broker import Strandline  # noqa: E402
from harness.processes import ROOT, bindable, wait_until  # noqa: E402

COMPOSE = ROOT / "deploy" / "compose.yaml"


# What is of the containers' network, and of this machine here.
OF_CONTAINERS = ("LISTENERS__", "ADMIN__", "BUCKET__", "JOURNAL__POSTGRES_")


def broker_of(service, shift, directory, database, bucket) -> Strandline:
    """One of the file's brokers, with what is of this machine in place of the containers' names and paths."""
    given = {key: str(value) for key, value in service["environment"].items()}
    place = directory / f"broker-{given['STRANDLINE_BROKER_ID']}"
    made = Strandline(place, own={"journal": database.journal()}, bucket=bucket.config())
    made.port, made.admin_port = (published(mapping)[0] + shift for mapping in service["ports"])
    taken = [port for port in (made.port, made.admin_port) if not bindable(port)]
    if taken:
        raise SystemExit(f"port {taken[0]} is taken (--shift N moves all of them)")
    kept = {k: v for k, v in given.items() if not k.removeprefix("STRANDLINE_").startswith(OF_CONTAINERS)}
    made.environment = {**kept, **database.environment()}
    return made


def published(mapping) -> tuple[int, int]:
    """The ports on this machine and in the container."""
    _, outside, inside = mapping.split(":")
    return int(outside), int(inside)


def services() -> list[dict]:
    """The brokers of the file."""
    found = yaml.safe_load(COMPOSE.read_text())["services"]
    return [service for name, service in sorted(found.items()) if name.startswith("broker-")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shift", type=int, default=0)
    arguments = parser.parse_args()
    # Also where it was started with SIGINT ignored, as shells do in the background.
    for stops in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stops, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="strandline-cluster-"))
    database, bucket, brokers = postgres.Postgres(directory), minio.Minio(directory / "minio"), []
    try:
        database.start(), bucket.start()
        brokers = [broker_of(service, arguments.shift, directory, database, bucket) for service in services()]
        for broker in brokers:
            broker.start()
        for broker in brokers:
            wait_until(lambda: broker.seen() == len(brokers), 30, "all brokers to know each other")
        tell(brokers, directory)
        while any(broker.child.alive() for broker in brokers):
            time.sleep(0.2)
        print("all brokers have ended", flush=True)
    except KeyboardInterrupt:
        print()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for broker in brokers:
            if broker.child and broker.child.alive():
                broker.child.process.terminate()
        codes = [broker.child.wait(60) for broker in brokers if broker.child]
        print(f"brokers ended with {codes}", flush=True)
        bucket.stop(), database.stop()
        shutil.rmtree(directory, ignore_errors=True)


def tell(brokers, directory):
    servers = ",".join(f"127.0.0.1:{broker.port}" for broker in brokers)
    for number, broker in enumerate(brokers, 1):
        print(f"broker {number}: 127.0.0.1:{broker.port}, metrics at 127.0.0.1:{broker.admin_port}, process {broker.child.pid}")
    print(f"logs are in {directory}; Ctrl-C stops all of it, and nothing is kept. To try:")
    print(f"  target/release/strandline broker list --server 127.0.0.1:{brokers[0].port}")
    print(f"  kafka-topics.sh --bootstrap-server {servers} --create --topic tour --partitions 6")
    print(f"  kill -9 {brokers[0].child.pid}", flush=True)


if __name__ == "__main__":
    main()
