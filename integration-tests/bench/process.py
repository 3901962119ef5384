"""What the kernel knows of a process: its CPU, its memory, and whether it is the one that listens on a port."""

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LISTENING = "0A"


def cpu_seconds(pid):
    """User and system time of all its threads so far."""
    # The name in parentheses may hold spaces; what follows it does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_bytes(pid):
    """Resident now, and the most it ever was."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines if words and words[0] in ("VmRSS:", "VmHWM:")}
    return kib["VmRSS:"] * 1024, kib["VmHWM:"] * 1024


def listens(pid, port):
    """Whether the socket that listens on the port belongs to this process. On a shared machine another broker may have
    the port, and a benchmark would measure that one."""
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(descriptor))
        except FileNotFoundError:
            pass
    return any(f"socket:[{inode}]" in held for inode in _listening_inodes(port))


def _listening_inodes(port):
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
