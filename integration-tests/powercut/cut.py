#!/usr/bin/env python3
"""Cuts the power, again and again, under a program that writes to the bucket and the journal, and checks that everything
it promised is there.

    cut.py --cuts 200              all syncs in place: has to pass
    cut.py --cuts 40 --skip wal    one kind of sync left out: has to find a loss (the exit code says so)
    cut.py --sites                 both, for every kind of sync

A life: start the program on the disk as the last cut left it, kill it after a moment (sometimes start it once more, as
after a crash without a cut, and kill it again), and cut the power at several points of what it did, the last moment among
them. Each cut is checked; the last one is the disk of the next life. A failure prints the seed and keeps its files.
"""

import argparse
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import replay

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What is synced, by the path of the file or (ending in /) the directory. Without any one of these something is lost.
SITES = {
    "wal": r"^meta/journal\.db-wal$",
    "db": r"^meta/journal\.db$",
    "journal-dir": r"^meta/$",
    "object": r"^bucket/#tmp/",
    "object-dir": r"^bucket/l0/../$",
    "bucket-dirs": r"^bucket/(l0/)?$",
    "root-dir": r"^/$",
    # What a killed process wrote and did not sync, its successor reads; it has to sync that before it shows it.
    "settle": r"^start:meta/journal\.db(-wal)?$",
}
# Before anything was promised: SQLite's rollback journal, while it makes a new file.
NO_SITE = r"^meta/journal\.db-journal$"

# Failures that a disk may show for a moment, in the words of powercut.c. 5 is EIO, 28 is ENOSPC.
FAULTS = ("sync -wal 5", "sync journal.db 5", "write -wal 28", "write journal.db 28", "write -wal 5", "write journal.db 5")


class Loss(Exception):
    pass


def memory():
    """A file system in memory with room, as the disks come and go; else None, the temporary directory."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 30 else None


def build(into):
    library = Path(into) / "powercut.so"
    source = HERE / "powercut.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def run_life(args, chance, library, root, log):
    """Runs and kills the program, once or twice."""
    fail = log.with_suffix(".fail")
    env = {
        "POWERCUT_FAIL": str(fail),
        "PATH": os.environ.get("PATH", ""),
        "LD_PRELOAD": str(library),
        "POWERCUT_ROOT": str(root),
        "POWERCUT_LOG": str(log),
        "POWERCUT_STDOUT": "1",
        "POWERCUT_NO_SYNC": "1",
        "POWERCUT_SYNC_DELAY_US": str(chance.choice((0, 200, 3000))),
    }
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
            fault = chance.choice(FAULTS) if chance.random() < args.faults else None
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


def check(args, disk_path, promises):
    """Raises Loss unless everything that was promised is there and the database is sound."""
    result = subprocess.run([args.program, "check", str(disk_path)], capture_output=True, text=True, timeout=120)
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
    with sqlite3.connect(disk_path / "meta" / "journal.db") as db:
        sound = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    if sound != "ok":
        raise Loss(f"integrity_check: {sound}")


def run(args, skip=None, say=print):
    """Makes the cuts; raises Loss at the first one that shows a loss. Gives what was synced, and how often."""
    chance = random.Random(args.seed)
    work = Path(tempfile.mkdtemp(prefix="powercut-", dir=args.work))
    library = build(work)
    root, log, probe = work / "root", work / "log", work / "probe"
    root.mkdir()
    promises, cuts, synced = Promises(), 0, {}
    try:
        while cuts < args.cuts:
            log.unlink(missing_ok=True)
            disk = replay.Disk(root, skip)
            run_life(args, chance, library, root, log)
            records = replay.read_log(log)
            points = {chance.randrange(len(records)) for _ in range(args.per_life - 1)} | {len(records) - 1}
            # Right after a refusal, before its retry.
            points |= set([i for i, record in enumerate(records) if record.data.startswith(b"refused")][:2])
            if not cuts:
                # Before the first promise directories and files are made.
                promised = next(i for i, record in enumerate(records) if record.data.startswith(b"recovered"))
                points |= {chance.randrange(promised) for _ in range(args.per_life)}
            for at, record in enumerate(records):
                disk.feed(record)
                if record.op == replay.MARK:
                    promises.hear(record.data)
                if at not in points:
                    continue
                shutil.rmtree(probe, ignore_errors=True)
                seed = chance.choice((None, chance.randrange(1 << 30)))
                disk.cut(probe, seed)
                cuts += 1
                try:
                    check(args, probe, promises)
                except Loss as loss:
                    raise Loss(f"cut {cuts} (record {at} of {len(records)}, disk seed {seed}): {loss}") from None
            for path, count in disk.synced.items():
                synced[path] = synced.get(path, 0) + count
            # The next life starts from the disk as the cut left it, not as the check did.
            shutil.rmtree(root)
            disk.cut(root, seed)
            promises.refused.clear()
            failed = f"{promises.refusals} refused, {promises.unknowns} unknown"
            say(f"{cuts} cuts, {len(promises.entries)} acknowledged, {failed}")
    except (Loss, AssertionError):
        if not skip:
            print(f"kept: {work}", file=sys.stderr)
            work = None
        raise
    finally:
        if work:
            shutil.rmtree(work)
    return synced


def attempt(args, name, pattern):
    """True if leaving this sync out was noticed."""
    try:
        run(args, pattern, say=lambda _: None)
    except Loss as loss:
        print(f"without {name}: found, {loss}")
        return True
    print(f"without {name}: NOT NOTICED in {args.cuts} cuts")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--per-life", type=int, default=8, help="cuts per life")
    parser.add_argument("--life-ms", type=float, nargs=2, default=(100, 300))
    parser.add_argument("--faults", type=float, default=0.3, help="the share of lives in which the disk fails for 50 ms")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--skip", help=f"a kind of sync to leave out ({', '.join(SITES)}) or a pattern of paths")
    parser.add_argument("--sites", action="store_true", help="first nothing left out, then each kind of sync in turn")
    parser.add_argument("--program", default=str(ROOT / "target" / "debug" / "examples" / "power-load"))
    parser.add_argument("--work", default=memory(), help="where the disks are kept (default: in memory if there is room)")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    if args.skip:
        sys.exit(0 if attempt(args, args.skip, SITES.get(args.skip, args.skip)) else 1)
    try:
        synced = run(args)
    except Loss as loss:
        sys.exit(f"LOST: {loss}")
    print("nothing acknowledged was lost")
    if args.sites:
        missed = [name for name, pattern in SITES.items() if not attempt(args, name, pattern)]
        known = re.compile("|".join((NO_SITE, *SITES.values())))
        strays = {path for path in synced if not known.search(path)}
        if strays:
            print(f"synced, but in no list of sites: {sorted(strays)[:10]}")
        if missed:
            sys.exit(f"not noticed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
