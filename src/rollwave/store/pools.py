"""A pool with a hook for opening its connections, for every version of asyncpg from 0.29 on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
    _Pool = asyncpg.Pool[asyncpg.Record]
else:
    _Connection, _Pool = asyncpg.Connection, asyncpg.Pool

_HAS_HOOKS = {"connect", "reset"} <= inspect.signature(asyncpg.create_pool).parameters.keys()


def make_pool(
    dsn: str,
    *,
    max_size: int,
    connect: Callable[..., Coroutine[Any, Any, _Connection]],
    connection_class: type[_Connection],
    resets: bool = True,
    **options: Any,
) -> _Pool:
    """As ``asyncpg.create_pool``, for use with ``async with``. It opens connections only when they are needed.

    Args:
        max_size: maximum number of connections.
        connect: opens a connection, with the arguments of ``asyncpg.connect``.
        connection_class: the class that ``connect`` returns.
        resets: whether asyncpg resets the session whenever a connection is released. Without it, each release takes
            one round trip less, and code that changes a session must restore it. asyncpg 0.29 always resets.
        options: other keywords of ``asyncpg.connect``.
    """
    if not _HAS_HOOKS:
        opening = partial(connect, dsn, connection_class=connection_class, **options)
        return _PoolOf029(opening, max_size=max_size, connection_class=connection_class)
    return asyncpg.create_pool(
        dsn,
        min_size=0,  # otherwise asyncpg keeps connecting while the server is unavailable, and logs each try
        max_size=max_size,
        connect=connect,
        reset=None if resets else _leave_as_it_is,
        connection_class=connection_class,
        **options,
    )


async def _leave_as_it_is(_connection: object) -> None:
    """Do not reset the session. asyncpg has already rolled back an open transaction."""


class _PoolOf029(_Pool):
    """asyncpg 0.29 has no hook for opening a connection."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Any]], **pool: Any) -> None:
        self._open = connect
        pool = dict.fromkeys(("setup", "init", "loop")) | {"record_class": asyncpg.Record} | pool
        super().__init__(min_size=0, max_queries=50_000, max_inactive_connection_lifetime=300.0, **pool)

    async def _get_new_connection(self) -> Any:
        return await self._open()
