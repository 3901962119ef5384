"""kill -9 at named points of the way of a record, of a snapshot and of a trim, with load running; each several times.

The layer of powercut/ kills the process in the very call. After each kill the broker starts again on the same data, and the
same producers go on with what was not answered.
"""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import careful, wire
from harness.processes import ROOT

sys.path.insert(0, str(ROOT / "integration-tests/powercut"))
import layer  # noqa: E402

pytestmark = pytest.mark.strandline
PARTITIONS = 4
# Snapshots as often as they are looked at, once a second; the journal is trimmed below each.
OWN = {"snapshot": {"entries_between": 10, "kept_min": 1, "kept_hours": 0}}
SNAPSHOT = "*/bucket/snapshots/*-*"
WAL = "*/journal.db-wal"


@dataclass
class Point:
    steps: str  # POWERCUT_KILL, see powercut.c; {n} is a random number of calls
    most: int = 1  # of those at most
    starting: bool = False  # the broker dies before it is ready
    rows_left: bool = False  # only a kill counts that left rows which a trim had given up


PLAIN = "entry written, not synced"
POINTS = {
    "object named, its directory not synced": Point("after link */bucket/data/* {n}", 60),
    "object durable, entry not written": Point("after sync */bucket/data/? {n}", 60),
    "entry half written to the log": Point(f"after write {WAL}=* {{n}}", 200),
    PLAIN: Point(f"before sync {WAL} {{n}}", 60),
    "entry synced, client not answered": Point(f"after sync {WAL} {{n}}", 60),
    "snapshot half written": Point("after write */bucket/#tmp/*=SLSN 1"),
    "snapshot written, not named": Point(f"before link {SNAPSHOT} 1"),
    "snapshot named, not verified": Point(f"after link {SNAPSHOT} 1"),
    "snapshot being verified": Point(f"after link {SNAPSHOT} 1 ; after open {SNAPSHOT} 1"),
    "snapshot recorded, its predecessor not deleted": Point(f"before unlink {SNAPSHOT} 1"),
    "rows being deleted": Point(f"after unlink {SNAPSHOT} 1 ; before write {WAL}=* {{n}}", 20, rows_left=True),
    "start: log being settled": Point("after sync */journal.db 1", starting=True),
    "start: snapshot being loaded": Point(f"after open {SNAPSHOT} 1", starting=True),
}


def rows_given_up(database: Path, scratch: Path) -> int:
    """Entries that are there still below the trimmed boundary; seen in a copy, since a look could change the file."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in (database.name, database.name + "-wal"):
        if (database.parent / name).exists():
            shutil.copy(database.parent / name, scratch)
    with sqlite3.connect(scratch / database.name) as db:
        [(rows,)] = db.execute("SELECT count(*) FROM entries WHERE position < (SELECT first FROM journal)")
    db.close()
    return rows


def choose(chance, hits, settled, snapshots):
    """The next point: one that is not hit often enough, and can be hit now."""
    left = [name for name, point in POINTS.items() if hits[name] > 0]
    possible = [name for name in left if not POINTS[name].starting or not settled and snapshots]
    if left and not possible:
        return PLAIN  # so that the next start has something to settle
    return chance.choice(possible) if left else None


def run(launch, tmp_path, topic, times, seed):
    print(f"seed {seed}")
    chance, library = random.Random(seed), layer.build(tmp_path)
    broker = launch(own=OWN, start=False, data=tmp_path / "data")
    broker.start()
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, PARTITIONS)
    broker.kill9()
    load = careful.Careful(topic, PARTITIONS, pause_s=0.003)
    hits, settled = dict.fromkeys(POINTS, times), False
    seen, kills = [[]] * PARTITIONS, 0
    try:
        while name := choose(chance, hits, settled, any((broker.data / "bucket/snapshots").glob("*-*"))):
            die_at(broker, load, library, name, POINTS[name].steps.format(n=chance.randint(1, POINTS[name].most)))
            settled = POINTS[name].starting
            kills += 1
            assert kills < 5 * times * len(POINTS), f"{name} is hardly ever hit"
            if not POINTS[name].rows_left or rows_given_up(broker.data / "journal.db", tmp_path / "copy"):
                hits[name] -= 1
            if kills % 10 == 0:
                seen = look(broker, topic, seen)
        broker.environment = {}
        broker.start()
        load.go(broker.port)
        load.finish()
        records = careful.read(broker.port, topic, PARTITIONS)
        careful.check(records, load.promises)
        count = sum(b.count for b in load.promises)
        assert count == sum(map(len, records)), "in the end everything was acknowledged, and nothing else is there"
        print(f"{kills} kills, {count} records")
    finally:
        load.abandon()


def die_at(broker, load, library, name, steps):
    """One life of the broker, which ends at the point."""
    broker.environment = {**layer.environment(library, broker.data, "/dev/null"), "POWERCUT_KILL": steps}
    broker.start(wait=False)
    load.go(broker.port)
    try:
        code = broker.child.process.wait(20)
    except subprocess.TimeoutExpired:
        pytest.fail(f"never came to {name} ({steps}); {load.problems}")
    assert code == -signal.SIGKILL, f"{name}: exit code {code}\n{broker.log_tail()}"
    broker.kill9()
    load.hold()
    load.check_alive()


def look(broker, topic, seen):
    """What consumers have seen stays where it was."""
    broker.environment = {}
    broker.start()
    now = careful.read(broker.port, topic, PARTITIONS)
    for old, new in zip(seen, now):
        assert new[: len(old)] == old, "what was read before has changed"
    broker.kill9()
    return now


def test_each_kind_of_damage_is_told():
    batches = [
        careful.Batch("a", (1, 0), 0, 0, 2),
        careful.Batch("b", (2, 0), 0, 0, 1),
        careful.Batch("a", (1, 0), 0, 2, 1),
    ]
    for batch, offset in zip(batches, (0, 2, 3)):
        batch.offset = offset
    a0, a1, b0, a2 = b"a:0:0", b"a:0:1", b"b:0:0", b"a:0:2"
    careful.check([list(enumerate((a0, a1, b0, a2, b"b:0:1")))], batches)
    for damaged in (
        (a0, a1, b0),
        (a0, a1, b0, a2, a2),
        (a0, a1, a2, b0),
        (a1, a0, b0, a2),
        (a0, b0, a2),
        (b0, a0, a1, a2),
    ):
        with pytest.raises(AssertionError):
            careful.check([list(enumerate(damaged))], batches)
    with pytest.raises(AssertionError):
        careful.check([[(0, a0), (1, a1), (3, b0), (4, a2)]], batches)


@pytest.mark.timeout(400)
def test_each_point_five_times(launch, topic, tmp_path):
    run(launch, tmp_path, topic, times=5, seed=random.randrange(1 << 30))


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_each_point_twenty_times(launch, topic, tmp_path):
    run(launch, tmp_path, topic, times=20, seed=random.randrange(1 << 30))
