"""Loopback ports for servers, so that tests that run side by side never draw the same one."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

FIRST, EACH = 20_000, 1_500
"""Below what the system gives to those who ask for any port; so many to each process that runs tests."""

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_first = FIRST + EACH * _process
_begin = os.getpid() % EACH  # processes that no pytest numbers begin at different ports
_numbers: Iterator[int] = itertools.cycle([*range(_first + _begin, _first + EACH), *range(_first, _first + _begin)])


def free_port() -> int:
    """One that this process has not given out lately, and that nothing listens on."""
    for port in itertools.islice(_numbers, EACH):
        with socket.socket() as probe:
            # A server binds like this too: what is left of an earlier test's connections is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
