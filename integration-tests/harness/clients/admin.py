"""What only an admin client does; spoken by the Java client."""

from .driver import Java


class JavaAdmin(Java):
    def create(self, topic, partitions=None, replicas=None, configs=None, validate_only=False) -> dict:
        request = {"topic": topic, "configs": configs or {}, "validate_only": validate_only}
        if partitions is not None:
            request["partitions"] = partitions
        if replicas is not None:
            request["replicas"] = replicas
        return self.ask("create", **request)

    def grow(self, topic, partitions):
        self.ask("grow", topic=topic, partitions=partitions)

    def delete(self, topic):
        self.ask("delete", topic=topic)

    def topics(self) -> list[str]:
        return self.ask("list")

    def describe(self, topic) -> dict:
        return self.ask("describe", topic=topic)

    def cluster(self) -> dict:
        return self.ask("cluster")

    def configs(self, name, type="TOPIC") -> dict[str, dict]:
        return self.ask("configs", name=name, type=type)

    def alter(self, name, *changes, type="TOPIC"):
        """Changes are (SET, APPEND, SUBTRACT or DELETE; key; value)."""
        self.ask("alter", name=name, type=type, changes=[list(c) for c in changes])

    def offsets(self, topic, at, partition=0) -> list[int]:
        """(offset, timestamp, leader epoch); `at` is earliest, latest, max-timestamp or milliseconds."""
        return self.ask("offsets", topic=topic, partition=partition, at=str(at))

    def delete_records(self, topic, before, partition=0) -> int:
        return self.ask("delete_records", topic=topic, partition=partition, before=before)

    def tool(self, name, *args) -> str:
        """What one of Kafka's tools prints, run without a JVM of its own."""
        tools = {"kafka-consumer-groups": "consumer.group.ConsumerGroupCommand", "kafka-groups": "GroupsCommand"}
        connection = ["--bootstrap-server", self.bootstrap]
        return self.ask("tool", **{"class": f"org.apache.kafka.tools.{tools[name]}"}, args=[*connection, *map(str, args)])
