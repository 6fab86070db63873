"""The command line with an API of the previous version, whose documents lack new fields."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support import rollwave


class _Older(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = {
            "/api/v1/customer/firmware/1": {"id": 1, "version": "2.0", "file_url": "http://h/f"},
            "/api/v1/customer/ota/campaigns/7": {"id": 7, "status": "RUNNING"},
        }.get(self.path)
        self._answer(404, {"title": "Not Found"}) if found is None else self._answer(200, found)

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


def test_a_server_without_an_overview_is_named_as_the_reason() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Older) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"ROLLWAVE_API_URL": f"http://127.0.0.1:{server.server_port}", "ROLLWAVE_API_KEY": "key"}
        done = [rollwave("campaign", *words, env=env) for words in (("watch", "7"), ("show", "7"), ("report", "7"))]
        unknown = rollwave("campaign", "watch", "8", env=env)
        server.shutdown()
    for each in done:
        assert (each.returncode, each.stdout) == (1, "")
        assert each.stderr.startswith("error: the server is of an earlier version than this program")
    assert (unknown.returncode, "earlier version" in unknown.stderr) == (1, False)
