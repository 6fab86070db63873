"""An HTTP artifact server that behaves as real ones do: with or without resume, and with dropped connections."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass
class Script:
    """How the server behaves. A test may change it at any time."""

    ranges: bool = True
    etag: bool | str = True
    """Whether responses have an ETag. A text: the same ETag for every content."""
    length: bool = True
    cuts: list[int] = field(default_factory=list)
    """For the next requests: the number of body bytes after which the connection is dropped."""
    statuses: list[int] = field(default_factory=list)
    """For the next requests: a response without a body."""
    headers: dict[str, str] = field(default_factory=dict)
    """Extra headers of every response with a body. They come before the usual headers."""
    redirect: str = ""
    """URL to which every request is redirected, if set."""
    hold_at: int | None = None
    """Number of body bytes after which a response stops until ``release``."""
    release: threading.Event = field(default_factory=threading.Event)


class ArtifactServer:
    """Serves everything passed to ``put``, while in ``with``. ``requests`` has each request's Range header, or None."""

    def __init__(self) -> None:
        self.script = Script()
        self.requests: list[str | None] = []
        self.files: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def put(self, content: bytes, name: str = "fw.bin") -> tuple[str, str]:
        """Serve ``content``. Returns its URL and its SHA-256."""
        self.files[f"/{name}"] = content
        return self.url(name), hashlib.sha256(content).hexdigest()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.script.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ArtifactServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        script = self.owner.script
        self.owner.requests.append(self.headers["Range"])
        if script.statuses:
            self._bare(script.statuses.pop(0))
        elif script.redirect:
            self._bare(302, Location=script.redirect)
        elif self.path not in self.owner.files:
            self._bare(404)
        else:
            self._send(self.owner.files[self.path], script)

    def _bare(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes, script: Script) -> None:
        made = script.etag if isinstance(script.etag, str) else hashlib.md5(content).hexdigest()
        etag = f'"{made}"' if script.etag else None
        start = self._start(etag) if script.ranges else 0
        if start >= len(content) > 0:
            self._bare(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in script.headers.items():
            self.send_header(name, value)
        if etag:
            self.send_header("ETag", etag)
        if script.length:
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        self._body(content[start:], script)

    def _start(self, etag: str | None) -> int:
        matched = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(matched[1]) if matched and self.headers["If-Range"] == etag else 0

    def _body(self, body: bytes, script: Script) -> None:
        if script.hold_at is not None:
            self.wfile.write(body[: script.hold_at])
            script.release.wait(30)
            body = body[script.hold_at :]
        if script.cuts:
            body = body[: script.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
