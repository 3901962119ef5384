"""Every command of the README, in its order, from a fresh data directory.

A block fenced as `sh` is run and must succeed; one fenced as `sh background` is left running until the end, and the next block
waits until 127.0.0.1:9092 answers. A block fenced as `text` right after one that was run holds lines that its output must have.
Kafka's tools and Python with the clients are on the PATH, as the README says that its reader has them.
"""

import os
import re
import subprocess

import pytest

from harness import wire
from harness.processes import CACHE, ROOT, Child, bindable, wait_until

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(1200)]
PORT = 9092
FENCE = re.compile(r"^```(\w+)[ \t]*(\w*)\n(.*?)^```$", re.S | re.M)


def blocks(text) -> list[tuple[str, str, str]]:
    return [match.groups() for match in FENCE.finditer(text)]


def test_commands(tmp_path):
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README yet")
    if not bindable(PORT):
        pytest.fail(f"port {PORT} is taken: the README's commands need it")
    path = os.pathsep.join([str(CACHE / "kafka/bin"), str(CACHE / "venv/bin"), os.environ["PATH"]])
    env = {"PATH": path, "STRANDLINE_DATA_DIR": str(tmp_path / "data"), "CI": "true"}
    background, output, ran = [], None, 0
    try:
        for language, word, code in blocks(readme.read_text()):
            if language == "sh" and word == "background":
                background.append(
                    Child(["bash", "-ec", code], log=tmp_path / f"background{len(background)}.log", env=env, cwd=ROOT)
                )
                wait_until(lambda: answers(background[-1]), 900, "the broker of the README", every_s=0.2)
                output = None
            elif language == "sh":
                output = run(code, env)
                ran += 1
            elif language == "text" and output is not None:
                for line in code.splitlines():
                    assert line.strip() in output, f"{line!r} is not in the output:\n{output}"
                output = None
    finally:
        for child in background:
            child.kill9()
    assert background and ran >= 2


def answers(child):
    assert child.alive(), child.log_tail()
    with wire.Connection(PORT, timeout_s=1) as connection:
        return connection.api_versions()


def run(code, env) -> str:
    print(code)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRANDLINE_")}
    done = subprocess.run(
        ["bash", "-ec", code],
        env={**kept, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    print(done.stdout)
    assert done.returncode == 0, f"exit code {done.returncode} of:\n{code}\n{done.stdout}"
    return done.stdout
