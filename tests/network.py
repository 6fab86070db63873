"""A network namespace for a worker, with links to this machine that a test may cut. Needs root, ``ip`` and ``tc``."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_numbers = itertools.count()

FAULTS = ("drop", "reject", "half-open")


@dataclass(frozen=True, slots=True)
class Link:
    """Two addresses at the ends of one link: ``near`` on this machine and ``far`` in the namespace."""

    namespace: str
    name: str
    near: str
    far: str

    def lay(self) -> None:
        """Bring both ends up. Each knows the other's hardware address, so that a fault causes only lost packets."""
        far_end = f"{self.name}f"
        _run("ip", "link", "add", self.name, "type", "veth", "peer", "name", far_end, "netns", self.namespace)
        inside = ("ip", "-n", self.namespace)
        for command, device, address in ((("ip",), self.name, self.near), (inside, far_end, self.far)):
            _run(*command, "addr", "add", f"{address}/30", "dev", device)
            _run(*command, "link", "set", device, "up")
        for command, device, address, other in (
            (("ip",), self.name, self.far, (*inside, "-o", "link", "show", far_end)),
            (inside, far_end, self.near, ("ip", "-o", "link", "show", self.name)),
        ):
            hardware = _run(*other).split("link/ether ")[1].split()[0]
            _run(*command, "neigh", "replace", address, "lladdr", hardware, "dev", device, "nud", "permanent")

    def cut(self, fault: str) -> None:
        """Cut the link.

        ``drop``: packets are lost. ``reject``: there is no route. ``half-open``: packets are only sent.
        """
        if fault == "reject":
            _run("ip", "-n", self.namespace, "route", "add", "unreachable", f"{self.near}/32")
            return
        _run("tc", "qdisc", "add", "dev", self.name, "root", "blackhole")
        if fault == "drop":
            _run("tc", "-n", self.namespace, "qdisc", "add", "dev", f"{self.name}f", "root", "blackhole")

    def repair(self, fault: str) -> None:
        """Undo :meth:`cut`."""
        if fault == "reject":
            _run("ip", "-n", self.namespace, "route", "del", "unreachable", f"{self.near}/32")
            return
        _run("tc", "qdisc", "del", "dev", self.name, "root")
        if fault == "drop":
            _run("tc", "-n", self.namespace, "qdisc", "del", "dev", f"{self.name}f", "root")


@dataclass(frozen=True, slots=True)
class Network:
    """A namespace with one link to the database and one to the broker."""

    name: str
    database: Link
    broker: Link

    @property
    def inside(self) -> tuple[str, ...]:
        """The command prefix that runs a command in the namespace."""
        return _found("ip"), "netns", "exec", self.name


@contextmanager
def network() -> Iterator[Network]:
    """Create a network, and delete it with its links at the end of the block."""
    number = next(_numbers)
    name = f"rw{os.getpid()}n{number}"
    # 198.18.0.0/15 is reserved for tests. Each process has addresses for eight namespaces.
    first = IPv4Address("198.18.0.0") + (os.getpid() % 2048 * 8 + number % 8) * 8
    links = [
        Link(name, f"{name}{letter}", str(first + offset + 1), str(first + offset + 2))
        for letter, offset in (("d", 0), ("b", 4))
    ]
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        for link in links:
            link.lay()
        yield Network(name, *links)
    finally:
        for link in links:
            _run("ip", "link", "del", link.name, check=False)
        _run("ip", "netns", "del", name)


@lru_cache
def has_namespaces() -> bool:
    """Whether this machine permits namespaces."""
    name = f"rw{os.getpid()}try"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "del", name)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _found(program: str) -> str:
    return shutil.which(program, path=_PATH) or program


def _run(program: str, *arguments: str, check: bool = True) -> str:
    done = subprocess.run([_found(program), *arguments], check=check, capture_output=True, text=True)
    return done.stdout
