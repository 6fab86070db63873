"""Loopback ports for servers. Tests that run in parallel never use the same port."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

FIRST, EACH = 20_000, 1_500
"""Ports below the range that the system assigns, and the number for each test process."""

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_first = FIRST + EACH * _process
_begin = os.getpid() % EACH  # Without pytest's worker number, processes begin at different ports.
_numbers: Iterator[int] = itertools.cycle([*range(_first + _begin, _first + EACH), *range(_first, _first + _begin)])


def free_port() -> int:
    """A port that this process has not used lately, and on which nothing listens."""
    for port in itertools.islice(_numbers, EACH):
        with socket.socket() as probe:
            # Servers bind with this option, too, so closed connections of an earlier test do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
