"""powercut.c: how it is built and put under a program; what a cut may not do."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Failures that a disk may show for a moment, in the words of powercut.c. 5 is EIO, 28 is ENOSPC.
FAULTS = (
    "sync -wal 5",
    "sync journal.db 5",
    "write -wal 28",
    "write journal.db 28",
    "write -wal 5",
    "write journal.db 5",
)


class Loss(Exception):
    """Something that was promised is not there."""


def check_database(path):
    """Raises Loss unless SQLite finds its file sound. One that is damaged enough it does not even look through."""
    try:
        with closing(sqlite3.connect(path)) as db:
            sound = db.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.DatabaseError as error:
        sound = error
    if sound != "ok":
        raise Loss(f"integrity_check: {sound}")


def memory():
    """A file system in memory with room, as the disks come and go; else None, the temporary directory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 30 else None


def build(into) -> Path:
    library = Path(into) / "powercut.so"
    source = HERE / "powercut.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def environment(library, root, log, *, sync_delay_us=None) -> dict[str, str]:
    """Of a program below whose `root` everything is recorded in `log`. With a delay its syncs take that long and are
    not real; without, they are."""
    found = {"LD_PRELOAD": str(library), "POWERCUT_ROOT": str(root), "POWERCUT_LOG": str(log)}
    if sync_delay_us is not None:
        found |= {"POWERCUT_STDOUT": "1", "POWERCUT_NO_SYNC": "1", "POWERCUT_SYNC_DELAY_US": str(sync_delay_us)}
    return found
