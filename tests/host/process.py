"""The host's worker process: ``python -m tests.host.process URL``.

Its own workers and Rollwave's two coroutines run in one bare ``asyncio.gather``, as hosts write it. Each of its own
workers prints ``beat NAME COUNT`` ten times a second, so that a test sees whether one has stopped. Everything else
comes from options and from the environment, as in production.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from typing import Any

import asyncpg

from rollwave import run_ota_campaign_tick, run_ota_status_listener, worker_loop

OWN_WORKERS = ("telemetry", "alerts", "billing")


def main() -> None:
    options = _options()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s %(hint)s")
    logging.getLogger().handlers[0].addFilter(_with_hint)
    asyncio.run(_work(options))


async def _work(options: argparse.Namespace) -> None:
    pool = await asyncpg.create_pool(
        options.database,
        min_size=0,
        max_size=10,
        statement_cache_size=0 if options.pooler else 100,
        init=_with_codecs if options.codecs else None,
    )
    loop = _own_loop if options.own_loop else worker_loop
    await asyncio.gather(
        *(_own_worker(name) for name in OWN_WORKERS),
        loop(run_ota_campaign_tick, pool, interval=options.interval),
        run_ota_status_listener(pool),
    )


async def _own_loop(tick: Any, pool: Any, interval: float) -> None:
    """The loop that a host runs all of its workers in."""
    while True:
        await tick(pool)
        await asyncio.sleep(interval)


async def _own_worker(name: str) -> None:
    count = 0
    while True:
        count += 1
        print(f"beat {name} {count}", flush=True)
        await asyncio.sleep(0.1)


async def _with_codecs(connection: Any) -> None:
    """The usual codecs: JSON to Python values and back."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


def _with_hint(record: logging.LogRecord) -> bool:
    record.hint = getattr(record, "hint", "")
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("--interval", type=float, default=0.2)
    parser.add_argument("--own-loop", action="store_true", help="the host's own loop in place of worker_loop")
    parser.add_argument("--pooler", action="store_true", help="the URL leads through PgBouncer")
    parser.add_argument("--codecs", action="store_true", help="the pool decodes json and jsonb")
    return parser.parse_args()


if __name__ == "__main__":
    main()
