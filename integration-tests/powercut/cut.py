#!/usr/bin/env python3
"""Cuts the power, again and again, under a program that writes to the bucket and the journal, and checks that everything
it promised is there.

    cut.py --cuts 200              all syncs in place: has to pass
    cut.py --cuts 40 --skip wal    one kind of sync left out: has to find a loss (the exit code says so)
    cut.py --sites                 both, for every kind of sync
    cut.py --subject serve …       the broker instead of an example program

A life: start the program on the disk as the last cut left it, kill it after a moment (sometimes start it once more, as
after a crash without a cut, and kill it again), and cut the power at several points of what it did, the last moment among
them. Each cut is checked; the last one is the disk of the next life. A failure prints the seed and keeps its files.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

import layer
import replay
from layer import Loss
from power_load import PowerLoad
from serve import Serve

ROOT = Path(__file__).resolve().parent.parent.parent
SUBJECTS = {"power-load": PowerLoad, "serve": Serve}


def run(args, skip=None, say=print):
    """Makes the cuts; raises Loss at the first one that shows a loss. Gives what was synced, and how often."""
    chance = random.Random(args.seed)
    work = Path(tempfile.mkdtemp(prefix="powercut-", dir=args.work))
    library = layer.build(work)
    root, log, probe = work / "root", work / "log", work / "probe"
    subject, cuts, lives, synced = None, 0, 0, {}
    try:
        while cuts < args.cuts:
            if subject is None or subject.LIVES_PER_DISK and lives % subject.LIVES_PER_DISK == 0:
                if subject:
                    subject.close()
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir()
                subject, first = SUBJECTS[args.subject](args, chance, library, work), True
            lives += 1
            log.unlink(missing_ok=True)
            disk = replay.Disk(root, skip)
            subject.life(root, log)
            records = replay.read_log(log)
            points = {chance.randrange(len(records)) for _ in range(args.per_life - 1)} | {len(records) - 1}
            points |= set(subject.points(records))
            if first:
                promised = subject.promised_from(records)
                points |= {chance.randrange(promised) for _ in range(args.per_life // 2)}
                first = False
            for at, record in enumerate(records):
                disk.feed(record)
                if record.op == replay.MARK:
                    subject.hear(record.data)
                if at not in points:
                    continue
                shutil.rmtree(probe, ignore_errors=True)
                seed = chance.choice((None, chance.randrange(1 << 30)))
                disk.cut(probe, seed)
                cuts += 1
                try:
                    subject.check(probe)
                except Loss as loss:
                    raise Loss(f"cut {cuts} (record {at} of {len(records)}, disk seed {seed}): {loss}") from None
            for path, count in disk.synced.items():
                synced[path] = synced.get(path, 0) + count
            # The next life starts from the disk as the cut left it, not as the check did.
            shutil.rmtree(root)
            disk.cut(root, seed)
            subject.taken()
            say(f"{cuts} cuts, {subject.told()}")
    except (Loss, AssertionError):
        if not skip:
            print(f"kept: {work}", file=sys.stderr)
            work = None
        raise
    finally:
        if subject:
            subject.close()
        if work:
            shutil.rmtree(work)
    return synced


def attempt(args, name, pattern):
    """True if leaving this sync out was noticed."""
    try:
        run(args, pattern, say=lambda _: None)
    except Loss as loss:
        print(f"without {name}: found, {loss!s:.300}")
        return True
    print(f"without {name}: NOT NOTICED in {args.cuts} cuts")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--per-life", type=int, default=8, help="cuts per life")
    parser.add_argument("--life-ms", type=float, nargs=2, help="default: 100 300, for serve 1100 2500")
    parser.add_argument(
        "--faults", type=float, default=0.3, help="the share of lives in which the disk fails for 50 ms"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--skip", help="a kind of sync to leave out, by its name in the subject's SITES, or a pattern")
    parser.add_argument("--sites", action="store_true", help="first nothing left out, then each kind of sync in turn")
    parser.add_argument("--subject", choices=SUBJECTS, default="power-load")
    parser.add_argument("--program", help="default: as built, target/debug/examples/power-load or the broker")
    parser.add_argument(
        "--work", default=layer.memory(), help="where the disks are kept (default: in memory if there is room)"
    )
    args = parser.parse_args()
    if args.subject == "power-load":
        args.program = args.program or str(ROOT / "target/debug/examples/power-load")
    # A broker looks once a second whether a snapshot is due.
    args.life_ms = args.life_ms or {"power-load": (100, 300), "serve": (1100, 2500)}[args.subject]
    sites, no_site = SUBJECTS[args.subject].SITES, SUBJECTS[args.subject].NO_SITE
    print(f"seed {args.seed}")
    if args.skip:
        sys.exit(0 if attempt(args, args.skip, sites.get(args.skip, args.skip)) else 1)
    try:
        synced = run(args)
    except Loss as loss:
        sys.exit(f"LOST: {loss}")
    print("nothing acknowledged was lost")
    if args.sites:
        missed = [name for name, pattern in sites.items() if not attempt(args, name, pattern)]
        known = re.compile("|".join((no_site, *sites.values())))
        strays = {path for path in synced if not known.search(path)}
        if strays:
            print(f"synced, but in no list of sites: {sorted(strays)[:10]}")
        if missed:
            sys.exit(f"not noticed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
