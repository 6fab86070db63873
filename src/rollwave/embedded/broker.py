"""An MQTT broker on loopback: rumqttd, from the iotcore wheel. Its sessions are in memory only."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

from rollwave.embedded.process import EmbeddedServer, ServerProcess
from rollwave.errors import RollwaveError
from rollwave.extras import require

HOST = "127.0.0.1"

_ROUTER = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 67108864
max_segment_count = 10
"""

# The limit is far above the 64 KB that a device may send, so that the engine refuses a larger one.
_LISTENER = """\
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
    [{version}.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 1000
    dynamic_filters = true
    {extra}
"""

# rumqttd logs every packet as an error. Only a panic is kept.
_SERVE = """\
import logging, sys
logging.disable(logging.CRITICAL)
from iotcore import IotCoreBroker
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


class EmbeddedBroker(EmbeddedServer):
    """A broker with an MQTT 5 and an MQTT 3.1.1 listener, which runs inside ``with``.

    The ports are chosen once (``port=0``: a free one), and stay the same after a restart. ``extra``: more of rumqttd's
    configuration for the connections of each listener, in TOML.

    Raises:
        RollwaveError: the wheel is not installed, or a port is in use.
    """

    def __init__(self, port: int = 0, *, extra: str = "") -> None:
        require("demo", "the embedded MQTT broker")
        self._extra = extra
        self.port = port or free_port()
        self._port_v4 = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="rollwave-"))
        self.log = self._folder / "broker.log"

    @property
    def url(self) -> str:
        """URL of the MQTT 5 listener."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def url_v4(self) -> str:
        """URL of the MQTT 3.1.1 listener of the same broker."""
        return f"mqtt://{HOST}:{self._port_v4}"

    def start(self) -> None:
        """Start without sessions and retained messages. Does nothing if the broker runs."""
        if self.running:
            return
        self.stop()
        for port in (self.port, self._port_v4):
            if _accepts(port):
                raise RollwaveError(
                    f"port {port} of {HOST} is in use", hint="Choose another port, or stop the program that uses it."
                )
        config = self._folder / "rumqttd.toml"
        config.write_text(
            _ROUTER
            + _LISTENER.format(version="v5", host=HOST, port=self.port, extra=self._extra)
            + _LISTENER.format(version="v4", host=HOST, port=self._port_v4, extra=self._extra)
        )
        self._process = ServerProcess([sys.executable, "-c", _SERVE, str(config)], log=self.log)
        self._process.wait_until(
            lambda: _accepts(self.port) and _accepts(self._port_v4), timeout=30.0, what="the MQTT broker"
        )

    def stop(self) -> None:
        """Stop at once. All sessions and messages are lost. Does nothing if the broker is stopped."""
        if self._process is not None:
            self._process.stop(signal.SIGKILL)  # it has nothing to save, and handles no other signal
            self._process = None

    def _forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=0.2):
            return True
    except OSError:
        return False
