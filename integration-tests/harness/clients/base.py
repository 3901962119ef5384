"""What every client can do, and what it can't."""

import base64
import json
import queue
import threading
from pathlib import Path

from ..processes import Child
from ..records import Record


class Failure(Exception):
    """A client reported an error; the text is its own."""


class Client:
    name = ""
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    headers = True  # writes headers
    duplicate_headers = True  # … several of one name
    null_headers = True  # … with a null value
    null_records = True  # writes records whose key and value are both null
    empty_values = True  # tells an empty value from a null one when it reads and writes
    timestamps = True  # sets a record's timestamp
    interleaves_headers = True  # keeps the order of headers of different names
    says_offsets = True  # knows the offsets of what it wrote
    says_timestamp_type = False

    def __init__(self, bootstrap: str, directory: Path):
        self.bootstrap = bootstrap
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False) -> list:
        """Writes `records` in order and waits for all; (partition, offset) of each, or None where the client can't say."""
        raise NotImplementedError

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0) -> list[Record]:
        """Up to `count` records from `offset` on, fewer only when the time is over."""
        raise NotImplementedError

    def close(self):
        pass


class LineDriver(Client):
    """A client in another language: one JSON request and one JSON answer per line."""

    def argv(self) -> list:
        raise NotImplementedError

    def env(self) -> dict:
        return {}

    def __init__(self, bootstrap, directory):
        super().__init__(bootstrap, directory)
        self.child = Child(self.argv(), log=self.directory / f"{self.name}.log", env=self.env(), pipes=True)
        self.answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.child.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, op, *, patience_s=70.0, **request):
        line = json.dumps({"op": op, **request}) + "\n"
        self.child.process.stdin.write(line.encode())
        self.child.process.stdin.flush()
        try:
            answer = self.answers.get(timeout=patience_s)
        except queue.Empty:
            self.child.kill9()
            raise Failure(f"{self.name}: no answer to {op} within {patience_s} s") from None
        if answer is None:
            raise Failure(f"{self.name} ended:\n{self.child.log_tail()}")
        answer = json.loads(answer)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer["result"]

    def close(self):
        self.child.kill9()


def to_json(record: Record) -> dict:
    return {
        "partition": record.partition,
        "timestamp": record.timestamp,
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [[name, _base64(value)] for name, value in record.headers],
    }


def from_json(entry: dict) -> Record:
    return Record(
        key=_bytes(entry["key"]),
        value=_bytes(entry["value"]),
        headers=tuple((name, _bytes(value)) for name, value in entry["headers"]),
        timestamp=entry["timestamp"],
        partition=entry["partition"],
        offset=entry["offset"],
        timestamp_type=entry.get("timestamp_type") or None,
    )


def _base64(data):
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text):
    return None if text is None else base64.b64decode(text)
