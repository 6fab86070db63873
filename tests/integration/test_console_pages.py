"""What every answer of the console has: headers, static files, error pages, the theme."""

from __future__ import annotations

import gc
import gzip
import re
import weakref

import httpx2

from rollwave.api.app import create_app
from rollwave.console.app import install
from rollwave.console.security import CONTENT_SECURITY_POLICY
from rollwave.domain.role import Role
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.console import signed_in, submit, visiting


async def test_every_answer_has_the_security_headers(pool: Pool) -> None:
    async with signed_in(pool) as client:
        for path in ("campaigns", "login", "no-such-page", "static/0/console.css", "campaigns?status=x"):
            answer = await client.get(f"/console/{path}")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            if not path.startswith("static/"):
                assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY, path
                assert answer.headers["Referrer-Policy"] == "same-origin"
        assert (await client.get("/console/campaigns")).headers["Cache-Control"] == "no-store"


async def test_pages_are_compressed(pool: Pool) -> None:
    async with signed_in(pool) as client:
        plain = await client.get("/console/campaigns", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers
        async with client.stream("GET", "/console/campaigns", headers={"Accept-Encoding": "gzip"}) as small:
            assert (small.headers["Content-Encoding"], small.headers["Vary"]) == ("gzip", "Accept-Encoding")
            raw = b"".join([each async for each in small.aiter_raw()])
        assert int(small.headers["Content-Length"]) == len(raw) < len(plain.content) / 2
        assert b"<h1>Campaigns</h1>" in gzip.decompress(raw)


async def test_static_files_are_kept_for_ever_and_compressed(pool: Pool) -> None:
    async with visiting(pool) as client:
        shown = await client.get("/console/login")
        [address] = re.findall(r'href="(/console/static/[0-9a-f]{16}/console\.css)"', shown.text)
        plain = await client.get(address, headers={"Accept-Encoding": "identity"})
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert plain.headers["Content-Type"] == "text/css; charset=utf-8"
        async with client.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as small:
            assert small.headers["Content-Encoding"] == "gzip"
            raw = b"".join([each async for each in small.aiter_raw()])
        assert gzip.decompress(raw) == plain.content
        of_another_version = await client.get("/console/static/0123456789abcdef/console.css")
        assert (of_another_version.status_code, of_another_version.headers["Cache-Control"]) == (200, "no-cache")
        for path in ("x.css", "../app.py", "%2e%2e/app.py", ""):
            assert (await client.get(f"/console/static/0/{path}")).status_code == 404, path
        assert (await client.get("/favicon.ico", follow_redirects=True)).headers["Content-Type"] == "image/svg+xml"


async def test_the_console_begins_with_the_campaigns(pool: Pool) -> None:
    async with visiting(pool) as client:
        for path in ("/console", "/console/"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["Location"]) == (303, "/console/campaigns")


async def test_errors_are_pages(pool: Pool) -> None:
    async with signed_in(pool, role=Role.VIEWER) as client:
        unknown = await client.get("/console/nothing")
        assert unknown.status_code == 404
        assert "There is no such page." in unknown.text
        request_id = unknown.headers["X-Request-Id"]
        assert f"<code>{request_id}</code>" in unknown.text


async def test_an_error_of_a_part_is_no_page(pool: Pool) -> None:
    async with signed_in(pool) as client:
        answer = await client.get("/console/campaigns/rows?status=x", headers={"HX-Request": "true"})
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
        assert "<html" not in answer.text


async def test_the_theme_is_a_cookie_set_by_a_form(pool: Pool) -> None:
    async with signed_in(pool) as client:
        assert '<html lang="en">' in (await client.get("/console/campaigns")).text
        answer = await submit(client, "/console/theme", theme="dark")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/campaigns")
        assert '<html lang="en" data-theme="dark">' in (await client.get("/console/campaigns")).text
        await submit(client, "/console/theme", theme='"><script>')
        assert '<html lang="en">' in (await client.get("/console/campaigns")).text


async def test_an_application_that_is_not_used_any_more_is_freed(pool: Pool) -> None:
    """FastAPI's caches keep the functions of endpoints, and all that these hold."""
    app = create_app(pool, Settings())
    left = [weakref.ref(app), weakref.ref(install(app, pool, Settings()))]
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        for path in ("/console", "/console/login", "/favicon.ico", "/readyz"):
            assert (await client.get(path)).status_code < 400
    del app, client
    gc.collect()
    assert [each() for each in left] == [None, None]
