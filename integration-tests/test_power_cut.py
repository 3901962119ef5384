"""What was acknowledged survives a power cut, and every sync is there for a reason. See powercut/README.md."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from harness.broker import BINARY

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "integration-tests/powercut"))
import layer  # noqa: E402
import replay  # noqa: E402
from power_load import Promises  # noqa: E402

pytestmark = pytest.mark.strandline


@pytest.fixture(scope="module")
def program():
    given = os.environ.get("TEST_POWER_LOAD")
    if given:
        return given
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "power-load"], cwd=ROOT, check=True)
    return str(ROOT / "target" / "release" / "examples" / "power-load")


def cut(program, *options):
    script = ROOT / "integration-tests" / "powercut" / "cut.py"
    command = [sys.executable, script, "--program", program, *options]
    result = subprocess.run(command, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_no_sync_is_for_nothing(program):
    cut(program, "--cuts", "200", "--sites")


@pytest.fixture
def place():
    """In memory where possible: other file systems give the number of a deleted file to the next one."""
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=layer.memory()) as made:
        yield Path(made)


@pytest.mark.parametrize("unsynced", ["*", "/a", "/a/b", "/x", "/x/y", "/x/y/z"])
def test_directories_whose_maker_was_killed(program, place, unsynced):
    """They are there, and their names perhaps not on the disk; whoever starts next has to see to that."""
    library, root, log = layer.build(place), place / "root", place / "log"
    root.mkdir()
    disk = replay.Disk(root)
    where = ["--bucket", "a/b/bucket", "--journal", "x/y/z/journal.db"]
    command = [program, "load", root, *where]
    environment = layer.environment(library, root, log, sync_delay_us=0)
    killed = environment | {"POWERCUT_KILL": f"before sync {unsynced} 1"}
    assert subprocess.run(command, env=killed, stdout=subprocess.DEVNULL, timeout=20).returncode == -signal.SIGKILL
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as again:
        while not again.stdout.readline().startswith(b"acknowledged"):
            assert again.poll() is None
        time.sleep(0.1)
        again.kill()
    promises = Promises()
    for record in replay.read_log(log):
        disk.feed(record)
        if record.op == replay.MARK:
            promises.hear(record.data)
    disk.cut(place / "cut")
    command = [program, "check", place / "cut", *where]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    whole = {line.split()[2] for line in found if line.startswith("entry") and line.endswith("whole")}
    first = next(int(line.split()[1]) for line in found if line.startswith("first"))
    assert first <= max(promises.trimming, 1)
    kept = {token for position, token in promises.entries.items() if position >= first}
    assert kept and kept <= whole


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_thousand_cuts(program):
    cut(program, "--cuts", "1000", "--faults", "0.5")


@pytest.mark.timeout(600)
def test_a_broker_keeps_what_it_promised():
    cut(BINARY, "--subject", "serve", "--cuts", "20")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_broker_needs_each_sync():
    cut(BINARY, "--subject", "serve", "--cuts", "40", "--sites")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_thousand_cuts_under_a_broker():
    cut(BINARY, "--subject", "serve", "--cuts", "1000", "--faults", "0.5")
