"""The clients in Java, Node and Go."""

from pathlib import Path

from ..processes import CACHE, ROOT
from .base import LineDriver, from_json, to_json

DRIVERS = ROOT / "integration-tests/drivers"


class _Common(LineDriver):
    def settings(self, codec, acks, idempotent) -> dict:
        return {"codec": codec, "acks": acks, "idempotent": idempotent}

    def produce(self, topic, records, *, codec="none", acks=-1, idempotent=False):
        request = self.settings(codec, acks, idempotent)
        return [tuple(p) for p in self.ask("produce", topic=topic, records=[to_json(r) for r in records], **request)]

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0):
        found = self.ask(
            "fetch",
            topic=topic,
            partition=partition,
            offset=offset,
            count=count,
            timeout_ms=int(timeout_s * 1000),
            config={},
        )
        return [from_json(r) for r in found]


class Java(_Common):
    name = "java"
    says_timestamp_type = True

    def argv(self):
        classes = f"{CACHE}/java:{CACHE}/kafka/libs/*"
        log = f"-Dlog4j2.configurationFile={CACHE}/kafka/config/tools-log4j2.properties"
        return ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", log, "-cp", classes, "Driver", self.bootstrap]

    def settings(self, codec, acks, idempotent):
        config = {
            "compression.type": codec,
            "acks": str(acks),
            "enable.idempotence": str(idempotent).lower(),
            "linger.ms": "5",
        }
        return {"config": config}

    def fetch(self, topic, partition, offset, count, *, timeout_s=20.0, config=None):
        config = {
            "enable.auto.commit": "false",
            "auto.offset.reset": "none",
            "fetch.max.wait.ms": "200",
            **(config or {}),
        }
        found = self.ask(
            "fetch",
            topic=topic,
            partition=partition,
            offset=offset,
            count=count,
            timeout_ms=int(timeout_s * 1000),
            config=config,
        )
        return [from_json(r) for r in found]


class KafkaJs(_Common):
    name = "kafkajs"
    null_headers = False
    interleaves_headers = False  # headers are an object of lists

    def argv(self):
        return ["node", "--no-warnings", DRIVERS / "node/driver.js", self.bootstrap, Path(CACHE) / "node"]


class Franz(_Common):
    name = "franz-go"
    says_timestamp_type = True

    def argv(self):
        return [CACHE / "bin/franz-driver", self.bootstrap]
