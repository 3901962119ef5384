"""kcat, which is librdkafka 2.0 as Debian has it."""

import shutil
import subprocess

from ..records import Record
from .base import Client, Failure

# Lengths stand before what they measure, so that any byte may occur.
FORMAT = r"%p %o %T %K %S \n%k%s%h\n"


class Kcat(Client):
    name = "kcat"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    null_headers = False
    empty_values = False  # -Z sends each empty string as null
    timestamps = False
    says_offsets = False

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        runs = []  # kcat gives the same headers to all records of a run
        for record in records:
            if not runs or runs[-1][0] != (record.partition, record.headers):
                runs.append(((record.partition, record.headers), []))
            runs[-1][1].append(record)
        for (partition, headers), part in runs:
            argv = [
                "-P",
                "-t",
                topic,
                "-z",
                codec,
                "-K",
                "\t",
                "-Z",
                "-X",
                f"acks={acks}",
                "-X",
                f"enable.idempotence={str(idempotent).lower()}",
            ]
            argv += ["-p", str(partition)] if partition is not None else []
            for name, value in headers:
                argv += ["-H", f"{name}={value.decode()}"]
            lines = b"".join((r.key or b"") + b"\t" + (r.value or b"") + b"\n" for r in part)
            self._run(argv, lines)
        return None

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0):
        argv = ["-C", "-q", "-t", topic, "-p", str(partition), "-o", str(offset), "-c", str(count), "-f", FORMAT]
        found, rest = [], self._run(argv, None, timeout_s)
        while rest:
            head, _, rest = rest.partition(b" \n")
            index, at, stamp, key_length, value_length = map(int, head.split())
            key, value = max(key_length, 0), max(value_length, 0)
            headers, _, after = rest[key + value :].partition(b"\n")
            pairs = [h.split(b"=", 1) for h in headers.split(b",") if h]
            found.append(
                Record(
                    key=None if key_length < 0 else rest[:key],
                    value=None if value_length < 0 else rest[key : key + value],
                    headers=tuple((name.decode(), None if content == b"NULL" else content) for name, content in pairs),
                    timestamp=stamp,
                    partition=index,
                    offset=at,
                )
            )
            rest = after
        return found

    def _run(self, argv, stdin, timeout_s=30.0) -> bytes:
        kcat = shutil.which("kcat")
        if not kcat:
            raise Failure("kcat is not installed: run integration-tests/setup.sh")
        try:
            run = subprocess.run(
                [kcat, "-b", self.bootstrap, *argv], input=stdin or b"", capture_output=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as late:
            return late.stdout or b""
        if run.returncode != 0:
            raise Failure(f"kcat ended with {run.returncode}: {run.stderr.decode()[-2000:]}")
        return run.stdout
