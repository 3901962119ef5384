"""Suites of unit tests that need a server: they lie beside the code, and are built already where the unit tests ran before."""

import os
import re
import subprocess

from .processes import ROOT


def run_suite(name: str, *options: str, environment: dict[str, str], at_least: int):
    """Runs the ignored tests of this name; all have to pass, and there are so many or more."""
    done = subprocess.run(
        ["cargo", "test", "--config", "integration-tests/unit-tests.toml", "--locked", "--release", "--lib", "--"]
        + ["--ignored", *options, name],
        cwd=ROOT,
        env={**os.environ, "RUST_BACKTRACE": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=580,
    )
    passed = re.search(r"test result: ok\. (\d+) passed", done.stdout)
    assert done.returncode == 0 and passed and int(passed[1]) >= at_least, done.stdout[-6000:]
