"""The one shape in which records travel between tests and clients."""

import random
import time
from dataclasses import dataclass, field, replace

# An hour ago: a real Kafka deletes what is older than its retention within seconds of its start.
HOUR_AGO_MS = int(time.time() * 1000) - 3_600_000

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    headers: tuple = ()  # of (name, bytes or None), in order
    timestamp: int | None = None  # milliseconds; None lets the client choose
    partition: int | None = 0
    offset: int | None = field(default=None, compare=False)
    timestamp_type: str | None = field(default=None, compare=False)

    def content(self):
        """What must come back unchanged, apart from the timestamp."""
        return (self.key, self.value, self.headers)

    def at(self, offset) -> "Record":
        return replace(self, offset=offset)


def sample(count, *, seed=1, partition=0, timestamps=True, duplicates=True, first_ms=HOUR_AGO_MS) -> list[Record]:
    """`count` records of all shapes: null and empty keys and values, several headers, names used twice, text beyond ASCII."""
    chance = random.Random(seed)
    made = []
    for i in range(count):
        key = f"key-{i}-ü".encode()
        value = f"value {i} ".encode() + b"x" * chance.randrange(0, 200)
        attached = []
        if i % 3 == 1:
            attached = [("trace", f"t{i}".encode()), ("content-type", b"text/plain")]
            if duplicates and i % 2:
                attached.append(("trace", f"again{i}".encode()))
        if i % 5 == 2:
            key = None
        if i % 7 == 3:
            value = None
        if i % 11 == 5:
            value = b""
        at = first_ms + i * 1000 + chance.randrange(0, 500) if timestamps else None
        made.append(Record(key, value, tuple(attached), at, partition))
    return made
