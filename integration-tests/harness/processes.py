"""Child processes that never outlive the test session."""

import atexit
import ctypes
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("TEST_CACHE_DIR") or ROOT / ".cache").resolve()

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_children: "set[Child]" = set()


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict:
    """Without the variables of these tests: the broker refuses names of this form that are not its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STRANDLINE_")}


class Child:
    """A process in a session of its own, whose output goes to a file or, if `pipes`, to this process."""

    def __init__(self, argv, *, log: Path, env=None, cwd=None, pipes=False):
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # The kernel ties the death signal to the thread that forks: only the main thread lives long enough.
        main = threading.current_thread() is threading.main_thread()
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else out,
                stderr=out,
                env={**_environment(), **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent if main else None,
            )
        _children.add(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill9(self):
        """Kills the process and everything it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._reap(10)

    def terminate(self, timeout_s=30.0) -> int:
        """SIGTERM, then SIGKILL when it does not end in time; the exit code."""
        if self.alive():
            self.process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s) -> int:
        """The exit code; SIGKILL when it does not end in time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._reap(10)
        return self.process.returncode

    def _reap(self, timeout_s):
        self.process.wait(timeout_s)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        _children.discard(self)

    def log_tail(self, lines=40) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"


def stop_all() -> list[str]:
    """Stops what tests have left behind and says what that was."""
    left = [f"{c.pid} {c.process.args[0]}" for c in list(_children) if c.alive()]
    for child in list(_children):
        child.kill9()
    return left


atexit.register(stop_all)


# The last that were given out: whoever has one may not listen yet, or not at the moment.
_given: deque[int] = deque(maxlen=500)


def free_port() -> int:
    """A port that nobody listens on, below the range from which the kernel takes ports for outgoing connections. Of
    processes that share the tests (gw0, gw1 …), each chooses from ports of its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    first = 20000 + 3000 * worker
    for _ in range(200):
        port = random.randrange(first, first + 2700)
        own = (port, port + 300)  # a real Kafka's controller listens 300 above
        if not any(p in _given for p in own) and all(bindable(p) for p in own):
            _given.append(port)
            return port
    raise RuntimeError("no free port found")


def bindable(port) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(condition, timeout_s=10.0, what="the condition", every_s=0.02):
    """The first true answer of `condition`; its exceptions count as false. Fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    last = None
    while True:
        try:
            answer = condition()
            if answer:
                return answer
        except Exception as error:  # noqa: BLE001 - any failure means "not yet"
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s} s (last: {last!r})")
        time.sleep(every_s)
