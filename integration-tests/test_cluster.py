"""Several brokers over one journal in PostgreSQL and one bucket: as clients, tools and operators see them."""

import os
import re
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from test_kill import PARTITIONS, Load, check_final, read_partitions

from harness import wire
from harness.broker import BINARY
from harness.clients import connect
from harness.clients.console import tool
from harness.group import SETTINGS, Group
from harness.processes import CACHE, wait_until
from harness.wakes import wakes

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(300)]

# The last version that knows feature level 1 only (setup.sh previous).
PREVIOUS = CACHE / "previous/strandline"
# What new clusters begin at.
LEVEL = 7

FENCING_S = 2.0
TIMES = {"fencing_timeout_ms": int(FENCING_S * 1000), "heartbeat_interval_ms": 300, "journal_staleness_max_ms": 1000}
GROUPS = ("kafka-consumer-groups", "--bootstrap-server")
NOT_LEADER_OR_FOLLOWER = 6
# From a broker's silence to the others' new answer: the fencing time, its jitter, and a look.
GONE_S = FENCING_S * 1.1 + 1.0


@pytest.fixture
def cluster(launch, postgres, tmp_path):
    """Brokers 1 to `count`; `zones` says where they are, `previous` which run the version before."""

    def make(count=3, zones=None, previous=(), bucket=None, times=None, more=None):
        journal = postgres.journal(postgres_schema=f"test_{os.urandom(4).hex()}")
        times = times or TIMES
        brokers = []
        for id in range(1, count + 1):
            binary = PREVIOUS if id in previous else BINARY
            own = {"broker_id": id, "journal": journal, **(more or {})}
            if binary is BINARY:
                own["cluster"] = times
            if zones:
                own["zone"] = zones[id - 1]
            bucket = bucket or {"url": str(tmp_path / "bucket")}
            made = launch(start=False, own=own, bucket=bucket, settings=SETTINGS, binary=binary)
            made.environment = postgres.environment()
            brokers.append(made.start())
        return brokers

    return make


def together(brokers):
    """All of them, as clients are given them."""
    return SimpleNamespace(bootstrap=",".join(b.bootstrap for b in brokers))


def metadata(broker, topic):
    """The ids of the brokers, and the leaders of the topic's partitions, as `broker` tells them."""
    with wire.Connection(broker.port) as connection:
        told = connection.metadata([topic])
    leaders = {p["partition"]: p["leader"] for p in told["topics"].get(topic, {"partitions": []})["partitions"]}
    return sorted(broker[0] for broker in told["brokers"]), leaders


def write(broker, topic, partitions, first, count):
    """Numbered records, to each partition the same."""
    with wire.Connection(broker.port) as connection:
        for partition in partitions:
            batch = wire.encode_batch([(None, b"%d" % n) for n in range(first, first + count)])
            assert connection.produce(topic, batch, partition=partition)["error"] == 0


def make_topic(broker, topic, partitions):
    with wire.Connection(broker.port) as connection:
        connection.make_topic(topic, partitions)


def cli(*args) -> str:
    done = subprocess.run([str(BINARY), *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_are_one_cluster(cluster, topic, tmp_path):
    brokers = cluster()
    make_topic(brokers[0], topic, 30)
    wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 5, "three brokers everywhere")
    told = [metadata(b, topic)[1] for b in brokers]
    assert told[0] == told[1] == told[2]
    share = [list(told[0].values()).count(id) for id in (1, 2, 3)]
    assert min(share) >= 4, share
    # Whoever is asked takes it, whatever clients are told.
    for at, broker in enumerate(brokers):
        write(broker, topic, range(3), 100 * at, 100)
    for broker, name in zip(brokers, ("kcat", "confluent", "java")):
        reader = connect(name, broker.bootstrap, tmp_path / name)
        for partition in range(3):
            seen = reader.fetch(topic, partition, 0, 300)
            assert [(r.offset, r.value) for r in seen] == [(n, b"%d" % n) for n in range(300)], name
        reader.close()
    for broker in brokers:
        with wire.Connection(broker.port) as connection:
            assert [r[3] for r in connection.read_all(topic, partition=0)] == [b"%d" % n for n in range(300)]
    described = tool("kafka-topics", "--bootstrap-server", brokers[2].bootstrap, "--describe", "--topic", topic)
    assert all(f"Partition: {p}\tLeader: {leader}\t" in described for p, leader in told[0].items()), described
    listed = cli("broker", "list", "--server", brokers[1].bootstrap).split("\n")[1:4]
    assert [line.split()[:2] for line in listed] == [[str(i + 1), b.bootstrap] for i, b in enumerate(brokers)]


def gap(load, since) -> float:
    """Seconds until each producer has an acknowledgement that it did not have at `since`."""
    had = {name: path.stat().st_size for name, path in load.files.items()}
    begun = time.monotonic()
    wait_until(lambda: all(p.stat().st_size > had[n] for n, p in load.files.items()), 30, "acknowledgements")
    return begun - since + (time.monotonic() - begun)


def test_brokers_are_killed_and_stand_still(cluster, topic, tmp_path):
    """What was acknowledged is there once, in its order; the others take over what the dead led, and it comes back."""
    brokers = cluster()
    make_topic(brokers[0], topic, PARTITIONS)
    load = Load(together(brokers), topic, tmp_path, renewals=(0, 0, 500))
    wait_until(lambda: load.check_alive() or load.acknowledged() >= 500, 30, "acknowledgements")
    gone = []
    for turn in range(4):
        victim, others = brokers[turn % 3], [b for b in brokers if b is not brokers[turn % 3]]
        at = time.monotonic()
        if turn % 2:
            os.killpg(victim.child.pid, signal.SIGSTOP)
        else:
            victim.kill9()
        left = [i + 1 for i, b in enumerate(brokers) if b is not victim]
        wait_until(lambda: all(metadata(b, topic)[0] == left for b in others), GONE_S + 3, "the others take over")
        gone.append(time.monotonic() - at)
        goal = load.acknowledged() + 300
        wait_until(lambda: load.check_alive() or load.acknowledged() >= goal, 30, "the others serve")
        if turn % 2:
            os.killpg(victim.child.pid, signal.SIGCONT)
        else:
            victim.restart()
        wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 10, "it is back")
        assert all(b.alive() for b in brokers)
    load.stop()
    print(f"taken over after {statistics.median(gone):.2f} s, at most {max(gone):.2f} s")
    assert max(gone) <= GONE_S, gone
    finals = [read_partitions(b, topic) for b in brokers]
    assert finals[0] == finals[1] == finals[2]
    check_final(load, finals[0])


def takes(broker, topic):
    """Whether it takes a record; one that is still cut off from the journal says that it does not lead."""
    with wire.Connection(broker.port) as connection:
        error = connection.produce(topic, wire.encode_batch([(None, b"one")]), partition=0)["error"]
    assert error in (0, NOT_LEADER_OR_FOLLOWER), error
    return error == 0


def test_nobody_is_fenced_for_an_outage_of_the_database(cluster, postgres, topic):
    """With a fencing time that is shorter than what brokers once waited between two attempts to connect."""
    times = {"fencing_timeout_ms": 1000, "heartbeat_interval_ms": 200, "journal_staleness_max_ms": 800}
    brokers = cluster(times=times)
    make_topic(brokers[0], topic, 1)
    wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 5, "three brokers everywhere")
    for round, away_s in enumerate((0.0, 0.4, 1.0, 2.5, 4.0)):
        postgres.kill9()
        time.sleep(away_s)
        postgres.start()
        for broker in brokers:
            wait_until(lambda broker=broker: takes(broker, topic), 5, "a record is taken after the outage")
        time.sleep(2 * times["fencing_timeout_ms"] / 1000)
        for broker in brokers:
            fenced = [line for line in broker.log.read_text().splitlines() if "was fenced" in line or "gave this one up" in line]
            assert not fenced, f"outage {round}, of {away_s} s: {fenced}"
    assert all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers)


def test_a_broker_that_slept_through_a_trim_goes_on(cluster, topic):
    """From a snapshot, without an end of its process; who was connected before connects anew."""
    brokers = cluster(more={"snapshot": {"entries_between": 20, "kept_min": 1, "kept_hours": 0}})
    awake, sleeper = brokers[0], brokers[2]
    make_topic(awake, topic, 2)
    wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 5, "three brokers everywhere")
    write(sleeper, topic, [0], 0, 10)
    before, pid = wire.Connection(sleeper.port), sleeper.child.pid
    assert before.metadata([topic])["topics"][topic]["error"] == 0
    applied = sleeper.metrics()["strandline_journal_head_position"]
    os.killpg(pid, signal.SIGSTOP)
    count = 10

    def trimmed():
        nonlocal count
        for _ in range(10):
            write(awake, topic, [0], count, 1)
            count += 1
        return max(b.metrics()["strandline_journal_trimmed_position"] for b in brokers[:2]) > applied + 1

    wait_until(trimmed, 60, "the journal is trimmed beyond what the sleeper has applied")
    wait_until(lambda: metadata(awake, topic)[0] == [1, 2], GONE_S + 3, "the others take over")
    os.killpg(pid, signal.SIGCONT)
    wait_until(lambda: sleeper.metrics()["strandline_journal_reloads_total"] == 1, 10, "it has loaded a snapshot")
    wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 10, "it is back")
    wait_until(lambda: sleeper.admin("/readyz")[0] == 200, 5, "it is ready")
    assert sleeper.child.pid == pid and sleeper.alive()
    with pytest.raises(wire.Closed):
        before.metadata([topic])
    with wire.Connection(sleeper.port) as connection:
        assert [r[3] for r in connection.read_all(topic, partition=0)] == [b"%d" % n for n in range(count)]
    write(sleeper, topic, [1], 0, 10)
    with wire.Connection(awake.port) as connection:
        assert len(connection.read_all(topic, partition=1)) == 10


def test_what_one_broker_commits_wakes_fetches_at_another(cluster, topic):
    """By the server's notification, long before the poll that makes up for a lost one."""
    one, two = cluster(count=2)
    _, p99 = wakes(one, two, topic)
    assert p99 < 200, f"{p99} ms"


def test_all_are_restarted_in_turn(cluster, topic, tmp_path):
    """SIGTERM hands over first: producers go on without an error and nearly without a pause."""
    brokers = cluster()
    make_topic(brokers[0], topic, PARTITIONS)
    load = Load(together(brokers), topic, tmp_path, renewals=(0, 0))
    wait_until(lambda: load.check_alive() or load.acknowledged() >= 500, 30, "acknowledgements")
    pauses = []
    for broker in brokers:
        at = time.monotonic()
        broker.child.process.terminate()
        while broker.child.process.poll() is None:
            pauses.append(gap(load, time.monotonic()))
            assert time.monotonic() - at < 20
        assert broker.stop() == 0, broker.log_tail()
        broker.restart()
        wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 10, "it is back")
    load.stop()
    print(f"longest pause {max(pauses):.2f} s")
    assert max(pauses) < FENCING_S, "nobody had to wait until a broker was missed"
    check_final(load, read_partitions(brokers[0], topic))


def test_groups_survive_their_coordinator(cluster, topic, tmp_path):
    """Members find the next coordinator, nothing is skipped, and what was committed stays committed."""
    brokers = cluster()
    make_topic(brokers[0], topic, 4)
    group = Group(together(brokers), topic, tmp_path, session_ms=6000)
    for client in ("librdkafka", "franz-go"):
        group.join(client)
    group.settle(4)
    count = 0

    def write_and_read(broker):
        nonlocal count
        write(broker, topic, range(4), count, 50)
        count += 50
        wanted = {(p, o) for p in range(4) for o in range(count)}
        wait_until(lambda: wanted <= set(group.read), 60, "all is read")

    write_and_read(brokers[0])
    for _ in range(2):
        state = tool(*GROUPS, together(brokers).bootstrap, "--describe", "--group", group.name, "--state")
        victim = brokers[int(re.search(r"\((\d)\)", state)[1]) - 1]
        victim.kill9()
        write_and_read(next(b for b in brokers if b is not victim))
        victim.restart()
        wait_until(lambda: metadata(brokers[0], topic)[0] == [1, 2, 3], 10, "it is back")
    group.settle(4)
    write_and_read(brokers[0])  # a commit that a coordinator took along is made good by the next
    for member in group.members:
        member.close()
    described = tool(*GROUPS, brokers[1].bootstrap, "--describe", "--group", group.name)
    rows = [line.split() for line in described.splitlines() if topic in line]
    assert {(row[2], row[3], row[5]) for row in rows} == {(str(p), str(count), "0") for p in range(4)}, described


def test_an_operator_drains_a_broker(cluster, topic):
    brokers = cluster()
    make_topic(brokers[0], topic, 12)
    wait_until(lambda: metadata(brokers[0], topic)[0] == [1, 2, 3], 5, "three brokers")
    before = metadata(brokers[0], topic)[1]
    assert "hands over" in cli("broker", "drain", 2, "--server", brokers[0].bootstrap)
    assert brokers[1].child.wait(20) == 0, brokers[1].log_tail()
    ids, after = metadata(brokers[0], topic)
    assert ids == [1, 3]
    moved = {p for p in before if before[p] != after[p]}
    assert moved == {p for p in before if before[p] == 2}, "only its own partitions have moved"


def test_tools_see_the_feature_level(cluster):
    broker = cluster(count=1)[0]
    server = ("--bootstrap-server", broker.bootstrap)
    line = next(l for l in tool("kafka-features", *server, "describe").splitlines() if "strandline.version" in l)
    assert f"SupportedMaxVersion: {LEVEL}" in line and f"FinalizedVersionLevel: {LEVEL}" in line, line
    refused = tool("kafka-features", *server, "downgrade", "--feature", "strandline.version=1", check=False)
    assert "Could not downgrade strandline.version" in refused, refused


def test_clients_stay_in_their_zone(cluster, topic):
    brokers = cluster(count=4, zones=["a", "a", "b", "b"])
    make_topic(brokers[0], topic, 24)
    wait_until(lambda: metadata(brokers[0], topic)[0] == [1, 2, 3, 4], 5, "four brokers")
    for zone, ids in (("a", {1, 2}), ("b", {3, 4})):
        for broker in brokers:
            with wire.Connection(broker.port, client_id=f"orders,zone={zone}") as connection:
                told = connection.metadata([topic])
            leaders = {p["leader"] for p in told["topics"][topic]["partitions"]}
            assert leaders == ids, f"{zone} is sent to {leaders}"
    brokers[2].kill9()
    brokers[3].kill9()

    def leaders_of_b():
        with wire.Connection(brokers[0].port, client_id="orders,zone=b") as connection:
            told = connection.metadata([topic])
        return {p["leader"] for p in told["topics"][topic]["partitions"]}

    wait_until(lambda: leaders_of_b() == {1, 2}, 4 * GONE_S, "a zone without brokers is served by another")


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_members_with_a_rack_read_in_their_zone(cluster, topic, tmp_path, assignor):
    """Java's assignors, which know racks (KIP-881), see that each partition can be read in each zone, and whatever a member gets it
    reads there (KIP-392)."""
    partitions, zones = 12, ("a", "b", "c")
    brokers = cluster(zones=zones)
    make_topic(brokers[0], topic, partitions)
    wait_until(lambda: metadata(brokers[0], topic)[0] == [1, 2, 3], 5, "three brokers")
    with wire.Connection(brokers[0].port) as connection:
        told = connection.metadata([topic])["topics"][topic]["partitions"]
    assert all(sorted(p["replicas"]) == [1, 2, 3] for p in told), told
    group = Group(together(brokers), topic, tmp_path, assignor=assignor)
    members = {zone: group.join("java", rack=zone) for zone in zones}
    group.settle(partitions)
    served = lambda: [b.metrics()["strandline_fetch_out_bytes_total"] for b in brokers]  # noqa: E731
    count, size, total = 0, 100, 0
    for at, zone in enumerate(zones):
        for _ in range(2):  # with the first each learns where it is to read
            before = served()
            write(brokers[0], topic, members[zone].owned, count, size)
            count += size
            total += size * len(members[zone].owned)
            wait_until(lambda: sum(len(set(m.records)) for m in members.values()) >= total, 20, "all is read")
        share = [now - had for now, had in zip(served(), before)]
        print(f"the member in zone {zone} has {members[zone].owned}, and read {share} bytes from the brokers")
        assert share[at] > 0 and sum(share) == share[at], f"zone {zone}: {share}"
    group.close()


def test_a_zone_reads_each_object_once(cluster, topic, minio):
    """Records that zone a takes, for ten consumers of zone b, whose three brokers lead a third of the partitions each."""
    brokers = cluster(count=4, zones=["a", "b", "b", "b"], bucket=minio.config(f"zone-{topic}"))
    partitions, rounds = 24, 20  # each round is an object
    make_topic(brokers[0], topic, partitions)
    wait_until(lambda: metadata(brokers[0], topic)[0] == [1, 2, 3, 4], 5, "four brokers")
    with wire.Connection(brokers[0].port, client_id="readers,zone=b") as connection:
        told = connection.metadata([topic])
    leaders = {p["partition"]: p["leader"] for p in told["topics"][topic]["partitions"]}
    assert set(leaders.values()) == {2, 3, 4}, leaders

    def consume(_):
        for id, broker in enumerate(brokers[1:], start=2):
            wanted = {p: 0 for p, leader in leaders.items() if leader == id}
            with wire.Connection(broker.port, client_id="readers,zone=b") as connection:
                while any(offset < rounds for offset in wanted.values()):
                    for partition, found in connection.fetch({topic: wanted}, max_wait_ms=500)["topics"][topic].items():
                        wanted[partition] += sum(b.count for b in wire.decode_batches(found["data"]))

    with ThreadPoolExecutor(10) as pool:
        readers = [pool.submit(consume, n) for n in range(10)]
        for n in range(rounds):
            with wire.Connection(brokers[0].port) as connection:
                sent = connection.send_produce(topic, {p: wire.encode_batch([(None, b"%d" % n)]) for p in range(partitions)})
                assert all(done["error"] == 0 for done in connection.receive_produce(sent).values())
        for reader in readers:
            reader.result(timeout=30)
    counted = [broker.metrics() for broker in brokers]
    reads = sum(metrics["strandline_fetch_cold_reads_total"] for metrics in counted[1:])
    given = sum(metrics["strandline_cache_given_total"] for metrics in counted[1:])
    print(f"{rounds} objects, read {reads:.0f} times by a zone of three brokers with ten consumers, given {given:.0f} times")
    assert reads <= 1.1 * rounds, (reads, given)


@pytest.mark.nightly
def test_two_versions_side_by_side(cluster, topic, tmp_path):
    """A cluster that the version before has founded goes to this one broker by broker, under load, and can go back until the
    level is raised."""
    brokers = cluster(count=3, previous=(1, 2, 3))
    make_topic(brokers[0], topic, PARTITIONS)
    load = Load(together(brokers), topic, tmp_path, renewals=(0, 0, 500))

    def acknowledged_more():
        load.check_alive()
        goal = load.acknowledged() + 300
        wait_until(lambda: load.check_alive() or load.acknowledged() >= goal, 30, "acknowledgements")

    def features(action, check=True) -> str:
        server = brokers[2].bootstrap
        which = [] if action == "describe" else ["--feature", f"strandline.version={LEVEL}"]
        return tool("kafka-features", "--bootstrap-server", server, action, *which, check=check)

    def change(broker, binary):
        assert broker.stop() == 0, broker.log_tail()
        broker.binary = binary
        broker.restart()
        acknowledged_more()

    acknowledged_more()
    change(brokers[2], BINARY)
    assert "FinalizedVersionLevel: 1" in next(l for l in features("describe").splitlines() if "strandline" in l)
    change(brokers[2], PREVIOUS)  # back again
    for broker in reversed(brokers[1:]):
        change(broker, BINARY)
    assert "Could not upgrade strandline.version" in features("upgrade", check=False), f"broker 1 can't read level {LEVEL}"
    change(brokers[0], BINARY)
    assert "was upgraded" in features("upgrade")
    wait_until(lambda: all(metadata(b, topic)[0] == [1, 2, 3] for b in brokers), 10, "they know each other now")
    acknowledged_more()
    assert brokers[1].stop() == 0
    brokers[1].binary = PREVIOUS
    brokers[1].start(wait=False)
    assert brokers[1].child.wait(20) == 1
    assert "feature level" in brokers[1].log_tail(), brokers[1].log_tail()
    brokers[1].binary = BINARY
    brokers[1].restart()
    acknowledged_more()
    load.stop()
    finals = [read_partitions(b, topic) for b in brokers]
    assert finals[0] == finals[1] == finals[2]
    check_final(load, finals[0])
