"""Kafka's own command-line tools, one JVM per step."""

import subprocess

from ..broker import KAFKA
from ..records import Record
from .base import Client, Failure

NULL = "<null>"


def tool(name, *args, stdin=None, timeout_s=60.0, check=True) -> str:
    """Runs one of Kafka's tools; its standard output."""
    argv = [str(KAFKA / "bin" / name), *map(str, args)]
    run = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout_s)
    out, errors = run.stdout.decode(), run.stderr.decode()
    if check and run.returncode != 0:
        raise Failure(f"{name} ended with {run.returncode}: {out[-2000:]}\n{errors[-2000:]}")
    return out if check else out + errors


class Console(Client):
    name = "console"
    null_headers = False
    duplicate_headers = True
    empty_values = True
    timestamps = False
    says_offsets = False
    says_timestamp_type = True

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        assert all(r.partition in (0, None) for r in records), "the console producer can't choose a partition"
        lines = []
        for record in records:
            headers = ",".join(f"{name}={value.decode()}" for name, value in record.headers)
            fields = (headers or NULL, _shown(record.key), _shown(record.value))
            lines.append("\t".join(fields) + "\n")
        tool(
            "kafka-console-producer", "--bootstrap-server", self.bootstrap, "--topic", topic, "--compression-codec", codec,
            "--command-property", f"enable.idempotence={str(idempotent).lower()}", "--command-property", f"acks={acks}",
            "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true",
            "--reader-property", "headers.delimiter=\t", "--reader-property", "headers.separator=,",
            "--reader-property", "headers.key.separator==", "--reader-property", f"null.marker={NULL}",
            stdin="".join(lines).encode(),
        )  # fmt: skip
        return None

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0):
        shown = ["timestamp", "partition", "offset", "headers", "key", "value"]
        properties = [a for name in shown for a in ("--formatter-property", f"print.{name}=true")]
        out = tool(
            "kafka-console-consumer", "--bootstrap-server", self.bootstrap, "--topic", topic, "--partition", partition,
            "--offset", offset, "--max-messages", count, "--timeout-ms", int(timeout_s * 1000), *properties,
            "--formatter-property", f"null.literal={NULL}",
            timeout_s=timeout_s + 30, check=False,
        )  # fmt: skip
        found = [_parse(line) for line in out.splitlines() if line.count("\t") == len(shown) - 1]
        if len(found) < count and "Error processing message" in out:
            raise Failure(out[-2000:])
        return found


def _shown(data):
    return NULL if data is None else data.decode()


def _bytes(text):
    return None if text == NULL else text.encode()


def _parse(line) -> Record:
    stamp, partition, offset, headers, key, value = line.split("\t")
    kind, _, at = stamp.partition(":")
    pairs = [] if headers in ("NO_HEADERS", "") else [h.split(":", 1) for h in headers.split(",")]
    return Record(
        key=_bytes(key),
        value=_bytes(value),
        headers=tuple((name, _bytes(content)) for name, content in pairs),
        timestamp=int(at),
        partition=int(partition.removeprefix("Partition:")),
        offset=int(offset.removeprefix("Offset:")),
        timestamp_type=kind,
    )
