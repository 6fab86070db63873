"""The command line with an API of the previous version, whose documents lack new fields."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support import rollwave


class _Older(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert self.path == "/api/v1/customer/firmware/1"
        self._answer(200, {"id": 1, "version": "2.0", "file_url": "http://h/f"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, {"id": 7, "status": "CREATED", "total_devices": 3})

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_the_command_line_creates_a_campaign_over_an_older_api() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Older) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        words = ["campaign", "create", "spring", "--firmware", "id:1", "--group", "all", "--wait"]
        made = rollwave(*words, env={"ROLLWAVE_API_URL": url, "ROLLWAVE_API_KEY": "key"})
        server.shutdown()
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == [
        "campaign 7: 3 devices, CREATED",
        "firmware 1, version 2.0, for any device type, at http://h/f",
    ]
