"""Clients that others wrote, behind one interface; `NAMES` lists them, `connect` starts one."""

from .admin import JavaAdmin
from .aio import AioKafka
from .base import Client, Failure
from .console import Console
from .driver import Franz, KafkaJs
from .kcat import Kcat
from .librdkafka import Librdkafka
from .python import KafkaPython

ALL = {c.name: c for c in (JavaAdmin, Console, Librdkafka, Kcat, KafkaPython, AioKafka, KafkaJs, Franz)}
NAMES = tuple(ALL)


def connect(name, bootstrap, directory) -> Client:
    return ALL[name](bootstrap, directory)


__all__ = ["ALL", "NAMES", "Client", "Failure", "connect"]
