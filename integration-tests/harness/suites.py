"""Suites of unit tests that need a server: they lie beside the code, and are built already where the unit tests ran before."""

import os
import subprocess

from .processes import ROOT


def run_suite(name: str, *options: str, environment: dict[str, str], passing: int):
    """Runs the ignored tests of this name; exactly so many have to pass."""
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
    assert done.returncode == 0 and f" {passing} passed" in done.stdout, done.stdout[-6000:]
