"""The example program `power-load` under the layer: bucket and journal as a flush uses them, without a broker."""

import os
import subprocess
import time

import layer
from layer import Loss

# What is synced, by the path of the file or (ending in /) the directory. Without any one of these something is lost.
SITES = {
    "wal": r"^meta/journal\.db-wal=",
    "db": r"^meta/journal\.db=",
    "journal-dir": r"^meta/$",
    "object": r"^bucket/#tmp/",
    "object-dir": r"^bucket/l0/../$",
    "bucket-dirs": r"^bucket/(l0/)?$",
    "root-dir": r"^/$",
    # What a killed process wrote and did not sync, its successor reads; it has to sync that before it shows it.
    "settle": r"^start:meta/journal\.db(-wal)?$",
}
# Before anything was promised: SQLite's rollback journal, while it makes a new file.
NO_SITE = r"^meta/journal\.db-journal="


class Promises:
    """What the program has said up to some point."""

    def __init__(self):
        self.entries, self.trimming = {}, 0
        self.refused, self.refusals, self.unknowns = set(), 0, 0

    def hear(self, text):
        for line in text.decode().splitlines():
            word, *rest = line.split()
            if word in ("acknowledged", "recovered") and rest[0] != "0":
                self.entries[int(rest[0])] = rest[1]
            elif word == "trimming":
                self.trimming = max(self.trimming, int(rest[0]))
            elif word == "refused":
                self.refused.add(rest[0])
                self.refusals += 1
            elif word == "unknown":
                self.unknowns += 1
            elif word == "retrying":
                self.refused.discard(rest[0])


class PowerLoad:
    """One disk and what was promised on it. `life` and `check` are what cut.py asks of every program."""

    SITES, NO_SITE = SITES, NO_SITE
    LIVES_PER_DISK = None  # one for all

    def __init__(self, args, chance, library, work):
        self.args, self.chance, self.library = args, chance, library
        self.promises = Promises()

    def life(self, root, log):
        """Runs and kills the program, once or twice."""
        args, chance = self.args, self.chance
        fail = log.with_suffix(".fail")
        env = layer.environment(self.library, root, log, sync_delay_us=chance.choice((0, 200, 3000)))
        env |= {"POWERCUT_FAIL": str(fail), "PATH": os.environ.get("PATH", "")}
        command = [args.program, "load", str(root), "--workers", str(chance.choice((1, 4, 16)))]
        for _ in range(chance.choice((1, 1, 2))):
            process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
            try:
                line = process.stdout.readline()
                if not line.startswith(b"recovered"):
                    raise Loss(f"the program did not start: {line!r}, exit code {process.wait(20)}")
                os.set_blocking(process.stdout.fileno(), False)
                start = time.monotonic()
                end = start + chance.uniform(*args.life_ms) / 1000
                fault = chance.choice(layer.FAULTS) if chance.random() < args.faults else None
                fault_from = chance.uniform(start, end)
                while (now := time.monotonic()) < end:
                    if fault and now >= fault_from:
                        fail.write_text(fault if now < fault_from + 0.05 else "")
                    time.sleep(0.005)
                    process.stdout.read()
                if process.poll() is not None:
                    raise Loss(f"the program ended with {process.returncode}")
            finally:
                process.kill()
                process.wait()
                fail.unlink(missing_ok=True)

    def hear(self, text):
        self.promises.hear(text)

    def points(self, records):
        """Where cuts are of interest beside random ones: right after a refusal, before its retry."""
        return [i for i, record in enumerate(records) if record.data.startswith(b"refused")][:2]

    def promised_from(self, records):
        """Where the first promise is; before it directories and files are made."""
        return next(i for i, record in enumerate(records) if record.data.startswith(b"recovered"))

    def check(self, disk_path):
        """Raises Loss unless everything that was promised is there and the database is sound."""
        promises = self.promises
        result = subprocess.run(
            [self.args.program, "check", str(disk_path)], capture_output=True, text=True, timeout=120
        )
        if result.returncode:
            raise Loss(f"can't be opened: {result.stderr.strip()}")
        first, head, entries = 1, None, {}
        for line in result.stdout.splitlines():
            word, *rest = line.split()
            if word == "first":
                first = int(rest[0])
            elif word == "head":
                head = int(rest[0])
            else:
                entries[int(rest[0])] = rest[1]
                if rest[2] != "whole":
                    raise Loss(f"the object of entry {rest[0]} is {rest[2]}")
        if first > max(promises.trimming, 1):
            raise Loss(f"trimmed up to {first}, though only {promises.trimming} was asked for")
        lost = [p for p, token in promises.entries.items() if p >= first and entries.get(p) != token]
        if lost:
            raise Loss(f"{len(lost)} acknowledged entries lost, from {min(lost)}; head {head}")
        if appeared := promises.refused & set(entries.values()):
            raise Loss(f"{len(appeared)} entries are there that were said not to be")
        layer.check_database(disk_path / "meta/journal.db")

    def taken(self):
        """The next life starts from the cut that was checked last."""
        self.promises.refused.clear()

    def told(self):
        p = self.promises
        return f"{len(p.entries)} acknowledged, {p.refusals} refused, {p.unknowns} unknown"

    def close(self):
        pass
