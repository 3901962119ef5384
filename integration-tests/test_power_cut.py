"""What was acknowledged survives a power cut, and every sync is there for a reason. See powercut/README.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.broker import BINARY

pytestmark = pytest.mark.strandline
ROOT = Path(__file__).resolve().parent.parent


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


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_thousand_cuts(program):
    cut(program, "--cuts", "1000", "--faults", "0.5")


@pytest.mark.timeout(600)
def test_a_broker_keeps_what_it_promised_and_needs_each_sync():
    cut(BINARY, "--subject", "serve", "--cuts", "40", "--sites")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_five_hundred_cuts_under_a_broker():
    cut(BINARY, "--subject", "serve", "--cuts", "500", "--faults", "0.5")
