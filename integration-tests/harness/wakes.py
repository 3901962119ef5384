"""How long after one broker has acknowledged a record a fetch that waits at another has it."""

import threading
import time

from . import wire
from .processes import wait_until


def wakes(one, two, topic, rounds=200, between_s=0.03) -> tuple[float, float]:
    """The median and the 99th percentile, in ms, of so many records with a moment between them."""
    seen, committed = [], []
    with one.connect() as connection:
        connection.make_topic(topic, 1)

    def read():
        with two.connect() as reader:
            while len(seen) < rounds:
                answer = reader.fetch_one(topic, len(seen), max_wait_ms=5000)
                assert answer["error"] == 0
                seen.extend([time.monotonic()] * len([r for b in wire.decode_batches(answer["data"]) for r in b.records()]))

    def knows():
        with two.connect() as connection:
            return connection.metadata([topic])["topics"][topic]["error"] == 0

    wait_until(knows, 10, "the topic at the other broker")
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    with one.connect() as writer:
        for number in range(rounds):
            time.sleep(between_s)
            assert writer.produce(topic, wire.encode_batch([(None, b"%d" % number)]))["error"] == 0
            committed.append(time.monotonic())
    thread.join(20)
    assert len(seen) == rounds
    late = sorted(max(0.0, at - by) * 1000 for at, by in zip(seen, committed))
    p50, p99 = late[rounds // 2], late[rounds * 99 // 100]
    print(f"from the answer to the producer until a reader at the other broker has it: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return p50, p99
