"""A pool as a host creates it for its own code, with codecs and a record class, and the engine using it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop
from rollwave.store.database import system_transaction
from tests.support import end, eventually

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from rollwave.store.database import Pool

    _Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]

Codec: TypeAlias = tuple[Callable[[Any], str], Callable[[str], Any]]


def _of_bytes(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text.removeprefix("\\x"))).decode()


_AS_PYTHON: Codec = (json.dumps, json.loads)
_AS_TEXT: Codec = (str, str)

CODECS: dict[str, Codec] = {
    "json": _AS_PYTHON,
    "jsonb": _AS_PYTHON,
    "timestamptz": _AS_TEXT,
    "timestamp": _AS_TEXT,
    "date": _AS_TEXT,
    "interval": _AS_TEXT,
    "uuid": _AS_TEXT,
    "numeric": (str, float),
    "bytea": (lambda encoded: "\\x" + base64.b64decode(encoded).hex(), _of_bytes),
    "text": (str, lambda text: text or None),
    "varchar": (str, lambda text: text or None),
}
"""Every type that hosts convert, as text: JSON to Python values, times to text, an empty text to None."""


async def usual_codecs(connection: _Connection) -> None:
    """A usual ``init=``: converts JSON to Python values and back."""
    await _set(connection, "json", "jsonb")


async def all_codecs(connection: _Connection) -> None:
    """An ``init=`` that converts every type that can be converted."""
    await _set(connection, *CODECS)


async def _set(connection: _Connection, *names: str) -> None:
    for name in names:
        encoder, decoder = CODECS[name]
        await connection.set_type_codec(name, encoder=encoder, decoder=decoder, schema="pg_catalog")


class Row(asyncpg.Record):
    """A host's record class: its columns are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@asynccontextmanager
async def host_pool(url: str, **how: Any) -> AsyncIterator[Pool]:
    """A host's pool over ``url``. ``how``: arguments for ``asyncpg.create_pool``."""
    async with asyncpg.create_pool(url, min_size=0, **how) as pool:
        yield pool


LISTENED_TO = "SELECT EXISTS (SELECT FROM rollwave_listener_slots WHERE subscribed_at IS NOT NULL)"


@asynccontextmanager
async def engine(pool: Pool) -> AsyncIterator[None]:
    """Run Rollwave's two coroutines on a host's pool."""
    running = [
        asyncio.create_task(run_ota_status_listener(pool)),
        asyncio.create_task(worker_loop(run_ota_campaign_tick, pool, interval=0.1)),
    ]
    try:
        await eventually(lambda: _listened_to(pool), what="a listener is subscribed")
        yield
    finally:
        for each in running:
            await end(each)


async def _listened_to(pool: Pool) -> bool:
    async with system_transaction(pool) as connection:
        return bool(await connection.fetchval(LISTENED_TO))
