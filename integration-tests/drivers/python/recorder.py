"""What a client of librdkafka writes down of a history, and the values that it sends."""

import json
import threading
import time
from zlib import crc32

from confluent_kafka import KafkaException


def micros():
    return time.monotonic_ns() // 1000


def text(why):
    error = why.args[0] if isinstance(why, KafkaException) else why
    return f"{error.name()}: {error}"


class Recorder:
    """This client's part of a history: a line when an operation begins, one when it ends; history/src/json.rs describes them."""

    def __init__(self, path):
        self.file, self.lock, self.operations = open(path, "w"), threading.Lock(), 0

    def begin(self, process, kind, start=None, **asked):
        """The operation, for its end."""
        start = start or micros()
        with self.lock:
            self.operations += 1
            operation = {"process": process, "op": self.operations}
            self._write("invoke", {**operation, "time_us": start, "kind": kind, **asked})
        return operation

    def ok(self, operation, **answered):
        self._end(operation, {"end": "ok", **answered})

    def fail(self, operation, why):
        """It certainly did not happen."""
        self._end(operation, {"end": "fail", "error": text(why)})

    def info(self, operation, why):
        """It may have happened, or may happen later."""
        self._end(operation, {"end": "info", "error": text(why)})

    def _end(self, operation, answered):
        at = micros()
        with self.lock:
            self._write("complete", {**operation, "time_us": at, **answered})

    def _write(self, half, fields):
        self.file.write(json.dumps({half: fields}) + "\n")


# Values; history/src/payload.rs describes them.


def encoded(run, process, counter, topic, partition, timestamp, padding):
    text = f"{run}|{process}|{counter}|{topic}|{partition}|{timestamp}|{padding}"
    return f"{text}|{crc32(text.encode()):08x}"


def seen(message):
    headers = message.headers() or []
    header = headers[0][1].decode(errors="replace") if [name for name, _ in headers] == ["counter"] else str(headers)
    value, key = (str(data) if data is None else data.decode(errors="replace") for data in (message.value(), message.key()))
    return [message.offset(), message.timestamp()[1], value, key, header]
