"""A network namespace for each broker, with a wire of its own to whatever it speaks with, and each can be cut."""

import os
import subprocess

WIRES = ("clients", "bucket", "database")
# Nobody has this address: what is sent to it is lost without a word, as by a switch that has died.
NOWHERE = "02:00:00:00:00:01"


def missing() -> str | None:
    """Why there can be none here, or None."""
    if os.geteuid() != 0:
        return "network namespaces are made by root alone"
    try:
        Namespace(0).remove()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces: {error}"
    return None


def _ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, timeout=10)


class Namespace:
    """Of the broker with this number. Servers outside have to listen on all addresses to be reached through it."""

    def __init__(self, number):
        self.number, self.name = number, f"strandline-{os.getpid()}-{number}"
        _ip("netns", "add", self.name)
        _ip("-n", self.name, "link", "set", "lo", "up")
        for wire in WIRES:
            near, far = self._near(wire), wire
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
            _ip("address", "add", f"{self.outside(wire)}/24", "dev", near)
            _ip("link", "set", near, "up")
            _ip("-n", self.name, "address", "add", f"{self.inside(wire)}/24", "dev", far)
            _ip("-n", self.name, "link", "set", far, "up")

    def _near(self, wire) -> str:
        return f"strand{self.number}{wire[0]}"

    def _net(self, wire) -> str:
        return f"10.213.{10 * self.number + WIRES.index(wire)}"

    def inside(self, wire) -> str:
        """The broker's address on this wire."""
        return f"{self._net(wire)}.2"

    def outside(self, wire) -> str:
        """Where the broker finds what is at the other end."""
        return f"{self._net(wire)}.1"

    def enter(self) -> list[str]:
        """What stands before a command that shall run inside."""
        return ["ip", "netns", "exec", self.name]

    def cut(self, wire):
        """Nothing passes any more, in either direction, and neither end is told."""
        for here, device, other in self._ends(wire):
            _ip(*here, "neighbour", "replace", other, "lladdr", NOWHERE, "dev", device, "nud", "permanent")

    def heal(self, wire):
        for here, device, other in self._ends(wire):
            _ip(*here, "neighbour", "delete", other, "dev", device)

    def _ends(self, wire):
        """Of each end: in which namespace, its device, and the address at the other end."""
        yield [], self._near(wire), self.inside(wire)
        yield ["-n", self.name], wire, self.outside(wire)

    def remove(self):
        _ip("netns", "delete", self.name)
        for wire in WIRES:  # they vanish with the last process inside, which may take its time
            subprocess.run(["ip", "link", "delete", self._near(wire)], capture_output=True, timeout=10)
