"""kafka-consumer-groups in every mode, word for word as it prints beside a real Kafka: scripts/consumer-groups.txt.

The script is written anew with `TEST_WRITE=1 pytest --broker kafka test_group_tools.py`, read, and committed.
"""

import os
import re
import shlex
import time
from pathlib import Path

import pytest

from harness import wire
from harness.group import SETTINGS, Group

SCRIPT = Path(__file__).parent / "scripts/consumer-groups.txt"
HEAD = re.compile(r"[A-Z]+ |Error: ")  # of a table
YEAR_2024_MS = 1_704_067_200_000


@pytest.fixture
def stage(launch, tmp_path):
    """Topics of ten records a partition, five of 2024, a second apart, and five of now; groups that live and that are left."""
    broker = launch(settings=SETTINGS)
    with wire.Connection(broker.port) as connection:
        now_ms = int(time.time() * 1000)
        at_ms = [YEAR_2024_MS + n * 1000 for n in range(5)] + [now_ms] * 5
        for topic, partitions in [("orders", 3), ("bills", 1)]:
            connection.make_topic(topic, partitions, configs={"retention.ms": "-1"})
            for partition in range(partitions):
                for at in at_ms:
                    batch = wire.encode_batch([(None, b"v")], first_ms=at)
                    assert connection.produce(topic, batch, partition=partition)["error"] == 0
    groups = []
    for protocol in ("classic", "consumer"):
        group = Group(broker, "orders", tmp_path, protocol=protocol, assignor="range", name=f"live-{protocol}")
        group.join("librdkafka", name="eater")
        group.settle(3)
        group.wait_committed({0: 10, 1: 10, 2: 10})
        groups.append(group)
    left = Group(broker, "bills", tmp_path, name="left")
    member = left.join("librdkafka", name="gone")
    left.settle(1)
    left.wait_committed({0: 10})
    member.close()
    yield broker
    for group in groups:
        group.close()


def steps(text):
    """(command, what it printed) of each `$` line."""
    for block in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, printed = block.partition("\n")
        yield command, printed.strip()


def plain(text, broker) -> str:
    """Without what differs from run to run: ids and ports become names, rows are sorted, columns are a blank apart."""
    text = text.replace(str(broker.port), "PORT")
    text = re.sub(r"\b(eater-|gone-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "MEMBER", text)
    text = re.sub(r"(?<=\s)[A-Za-z0-9_/+-]{22}(?=\s)", "MEMBER", text)
    text = re.sub(r"\(\d+\)", "(NODE)", text)
    text = re.sub(r"^(\s+at |Caused by: |java\.util\.concurrent\.ExecutionException|Driver\$|null$|WARN: No action).*$", "", text, flags=re.M)
    tables = [re.sub(r"[ \t]+", " ", table).strip().split("\n") for table in re.split(r"\n\s*\n", text.strip())]
    tables = [sorted((r.strip() for r in rows), key=lambda r: (r != rows[0] or not HEAD.match(r), r)) for rows in tables]
    return "\n".join(r.strip() for rows in sorted(tables) for r in rows if r.strip())


@pytest.mark.timeout(180)
def test_every_mode(stage, client, tmp_path):
    java = client("java", stage)
    export = tmp_path / "export.csv"
    written = ["# What Kafka's tools print of groups; test_group_tools.py runs it. FILE holds what the last --export printed.\n"]
    failed = []
    for command, expected in steps(SCRIPT.read_text()):
        name, *args = shlex.split(command.replace("FILE", str(export)))
        printed = java.tool(name, *args)
        if "--export" in args:
            export.write_text("\n".join(line for line in printed.splitlines() if line.count(",") >= 2) + "\n")
        seen = plain(printed, stage)
        written.append(f"$ {command}\n{seen}\n")
        if seen != expected:
            failed.append(f"$ {command}\n--- expected\n{expected}\n--- printed\n{seen}\n")
    if os.environ.get("TEST_WRITE"):
        SCRIPT.write_text("\n".join(written))
    else:
        assert not failed, "\n" + "\n".join(failed)
