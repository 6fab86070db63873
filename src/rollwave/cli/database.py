"""Runs commands that work on the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from rollwave.errors import InvalidInput

if TYPE_CHECKING:
    from rollwave.store.database import Pool

T = TypeVar("T")


def with_pool(work: Callable[[Pool], Awaitable[T]]) -> T:
    """Check that the database at DATABASE_URL has this program's schema, then run ``work`` with a pool.

    Raises:
        InvalidInput: an argument holds bytes that are no text in the terminal's encoding.
    """
    from rollwave.settings import Settings
    from rollwave.store.connecting import unavailable
    from rollwave.store.database import create_pool
    from rollwave.store.migrate import require_current_schema
    from rollwave.store.outage import is_outage
    from rollwave.store.rejected_values import refusing

    async def run() -> T:
        settings = Settings.load()
        async with create_pool(settings.require_database_url(), size=1, pooled=settings.pooled) as pool:
            try:
                async with refusing(pool):
                    await require_current_schema(pool)
                    return await work(pool)
            except Exception as error:
                if is_outage(error):
                    raise unavailable(error) from error
                raise

    try:
        return asyncio.run(run())
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a value contains bytes that are not text in the encoding of the terminal",
            hint="Set LANG or LC_ALL to the encoding that the terminal uses.",
        ) from error
