"""Generated firmware files, and an HTTP server from which devices download them."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

_SIZE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """A firmware file and the URL at which it is served. ``size`` is in bytes."""

    version: str
    url: str
    sha256: str
    size: int


class ArtifactServer:
    """Serves the files of ``folder`` on a loopback port while its ``with`` block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._server = _Server(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))

    def make(self, version: str) -> Artifact:
        """Write a firmware file; the same version always has the same bytes."""
        content = hashlib.shake_256(version.encode()).digest(_SIZE)
        name = f"firmware-{version}.bin"
        (self._folder / name).write_bytes(content)
        url = f"http://127.0.0.1:{self._server.server_port}/{name}"
        return Artifact(version, url, hashlib.sha256(content).hexdigest(), len(content))

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, name="artifacts", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle keep-alive connection must not delay the shutdown
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a device may end its download at any time
            super().handle_error(request, client_address)


class _QuietHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass
