"""Streams of events as a program or a browser reads them, from a server in the test's process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
from fastapi import FastAPI

from rollwave.api.app import create_app
from rollwave.api.live.hub import Hub
from rollwave.api.server import serve
from rollwave.console.app import install
from rollwave.settings import Settings
from rollwave.store.database import Pool
from tests.support import eventually, free_port

SECONDS = 15.0
"""How long a test waits for an event."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: Any
    id: str


@dataclass(slots=True)
class Server:
    """The API and the console at ``url``. ``stop`` ends it as a signal does, and waits until it has ended."""

    app: FastAPI
    url: str
    port: int
    task: asyncio.Task[None]

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.hub
        return hub

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@asynccontextmanager
async def server(pool: Pool, *, port: int | None = None, tick: float = 0.1) -> AsyncIterator[Server]:
    """Serve the API and the console. ``tick``: seconds between two reads of a campaign."""
    app = create_app(pool, Settings())
    install(app, pool, Settings())
    app.state.hub.tick = tick
    port = port or free_port()
    running = Server(app, f"http://127.0.0.1:{port}", port, asyncio.create_task(serve(app, "127.0.0.1", port)))
    try:
        await eventually(lambda: _answers(running), what="the server listens")
        yield running
    finally:
        await running.stop()


async def _answers(running: Server) -> bool:
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{running.url}/livez")).is_success
    except httpx2.HTTPError:
        return False


class Stream:
    """The events of an open stream."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None: the stream has ended."""
        async with asyncio.timeout(SECONDS):
            name, data, identifier = "", "", ""
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif field == "id":
                    identifier = value
                elif not line and name:
                    return Event(name, json.loads(data), identifier)
            return None

    async def until(self, name: str) -> Event:
        """The next event with this name."""
        while (found := await self.next()) is not None:
            if found.name == name:
                return found
        raise AssertionError(f"the stream has ended without an event {name}")


@asynccontextmanager
async def following(client: httpx2.AsyncClient, path: str, **headers: str) -> AsyncIterator[Stream]:
    """Open a stream. ``headers``: names with underscores."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", path, headers=given, timeout=httpx2.Timeout(SECONDS)) as answer:
        if answer.status_code != 200:
            await answer.aread()
        yield Stream(answer)


@asynccontextmanager
async def client_of(running: Server, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A program that calls the customer routes of the API."""
    async with httpx2.AsyncClient(
        base_url=f"{running.url}/api/v1/customer", headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        yield client
