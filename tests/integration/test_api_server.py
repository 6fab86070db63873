"""The server: health checks, its responses during an outage, and how it stops."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from fastapi import FastAPI

from rollwave.api.app import create_app
from rollwave.api.ops import create_ops_app
from rollwave.api.server import serve
from rollwave.embedded.postgres import EmbeddedPostgres
from rollwave.errors import ConfigurationError
from rollwave.settings import Settings
from rollwave.store.database import Pool, create_pool
from rollwave.store.migrate import migrate
from tests.api import FIRMWARE, assert_problem, calling
from tests.support import eventually, free_port

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    port = free_port()
    task = asyncio.create_task(serve(app, HOST, port))
    try:
        await eventually(lambda: accepts(port), what="the server listens")
        yield f"http://{HOST}:{port}", task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


async def test_readyz_succeeds_when_every_check_is_ok(pool: Pool) -> None:
    answers = {"broker": "ok"}

    async def readiness() -> dict[str, str]:
        return answers

    transport = httpx2.ASGITransport(create_app(pool, Settings(), readiness=readiness))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        ready = await client.get("/readyz")
        checks = {"database": "ok", "schema": "ok", "identity": "ok", "broker": "ok"}
        assert ready.json() == {"status": "ok", "checks": checks}
        answers["broker"] = "not subscribed"
        waiting = await client.get("/readyz")
        assert (waiting.status_code, waiting.json()["checks"]["broker"]) == (503, "not subscribed")
        assert (await client.get("/livez")).json()["status"] == "ok"


async def test_readyz_fails_on_a_schema_of_another_version(pool: Pool) -> None:
    await pool.execute(
        "UPDATE rollwave_migrations SET version = 1000 WHERE version = (SELECT max(version) FROM rollwave_migrations)"
    )
    transport = httpx2.ASGITransport(create_app(pool, Settings()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert "schema" in answer.json()["checks"]["schema"]


async def test_operations_need_no_key_and_metrics_are_prometheus_text(pool: Pool) -> None:
    async with calling(pool, key="") as client:
        assert_problem(await client.get("/firmware"), 401, "unauthorized")
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            assert (await client.get(f"http://test{path}")).status_code == 200
        metrics = await client.get("http://test/metrics")
        described = (await client.get("http://test/openapi.json")).json()["paths"]
        for path, operations in described.items():
            for method, operation in operations.items():
                role = "admin" if "/api-keys" in path else "viewer" if method == "get" else "operator"
                needed = f"Requires the role {role}"
                assert operation["description"].count(needed) == path.startswith("/api/v1/customer"), path
    assert metrics.headers["Content-Type"].startswith("text/plain; version=")
    assert "rollwave_devices_dispatched_total" in metrics.text


async def test_a_worker_serves_health_and_metrics_only() -> None:
    async def readiness() -> dict[str, str]:
        return {"broker": "ok"}

    async with serving(create_ops_app(readiness)) as (url, _), httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/readyz")).json() == {"status": "ok", "checks": {"broker": "ok"}}
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        assert_problem(await client.get("/api/v1/customer/firmware"), 404, "not-found")


async def test_a_connection_stays_usable_after_head() -> None:
    async def readiness() -> dict[str, str]:
        return {"broker": "ok"}

    async with serving(create_ops_app(readiness)) as (url, _), httpx2.AsyncClient(base_url=url) as client:
        for path in ("/livez", "/readyz/", "/metrics"):
            head, get = await client.head(path), await client.get(path)
            assert (head.status_code, head.content, get.status_code) == (200, b"", 200)
            assert head.headers["Content-Type"] == get.headers["Content-Type"]


async def test_an_unavailable_database_gives_503_until_it_is_back(postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(postgres.data_dir.with_name("away")) as server:
        await migrate(server.url)
        async with create_pool(server.url) as pool, calling(pool) as client:
            assert (await client.get("/firmware")).status_code == 200
            server.stop("immediate")
            for answer in (await client.get("/firmware"), await client.post("/firmware", json=FIRMWARE)):
                problem = assert_problem(answer, 503, "unavailable")
                assert answer.headers["Retry-After"].isdecimal()
                assert str(server.data_dir.parent) not in json.dumps(problem)
            ready = await client.get("http://test/readyz")
            assert (ready.status_code, ready.json()["checks"]) == (503, {"database": "cannot be reached"})
            assert (await client.get("http://test/livez")).status_code == 200
            server.start()
            assert (await client.post("/firmware", json=FIRMWARE)).status_code == 201


async def test_an_occupied_port_is_a_clear_error(pool: Pool) -> None:
    app = create_app(pool, Settings())
    async with serving(app) as (url, _):
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"{HOST} port {port}") as caught:
            await serve(app, HOST, port)
    assert "--port" in caught.value.hint


@pytest.mark.parametrize("host", ["256.0.0.1", "no such host", "192.0.2.1"])
async def test_an_address_of_another_machine_is_a_clear_error(pool: Pool, host: str) -> None:
    with pytest.raises(ConfigurationError, match=host):
        await serve(create_app(pool, Settings()), host, 0)


async def test_the_server_installs_no_signal_handlers(pool: Pool) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving(create_app(pool, Settings())):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_running_request_is_answered_before_the_server_stops() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def readiness() -> dict[str, str]:
        asked.set()
        await may_answer.wait()
        return {}

    async with serving(create_ops_app(readiness)) as (url, task), httpx2.AsyncClient(base_url=url) as client:
        request = asyncio.create_task(client.get("/readyz"))
        await asked.wait()
        task.cancel()
        await eventually(lambda: not accepts(int(url.rpartition(":")[2])), what="the server is closed")
        assert not task.done()
        may_answer.set()
        assert (await request).status_code == 200
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_10_mb_receives_the_413(pool: Pool, chunked: bool) -> None:
    def body() -> bytes | AsyncIterator[bytes]:
        return chunks() if chunked else b"x" * 160 * 65_536

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    async with (
        calling(pool) as inside,
        serving(create_app(pool, Settings())) as (url, _),
        httpx2.AsyncClient(base_url=url, headers=inside.headers) as client,
    ):
        answer = await client.post("/api/v1/customer/firmware", content=body())
        assert_problem(answer, 413, "body-too-large")
        stranger = await client.post("/customer/firmware", content=body(), headers={"Authorization": ""})
        assert_problem(stranger, 401, "unauthorized")
        assert (await client.get("/customer/firmware")).status_code == 200
