"""``make bench``: every line of the plan; ``make bench ARGS="--only flat,stop"``: some of them."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

import asyncpg
import httpx2
from rich.console import Console

from bench import (
    chatter,
    compared,
    console,
    flat,
    million,
    policy_rates,
    scale,
    soak,
    starts,
    stops,
    targeting,
    tenants,
    waiting,
)
from bench.lab import open_lab
from bench.machine import describe
from bench.plan import BROKERS
from bench.report import KEPT, PARTIAL, write
from bench.session import Options, Session
from bench.table import show
from rollwave.errors import RollwaveError
from tests.servers import debian_mosquitto

PARTS: dict[str, Callable[[Session], Awaitable[None]]] = {
    "start": starts.start,
    "pace": starts.pace,
    "stop": stops.trip,
    "abort": stops.abort,
    "halt": stops.halt,
    "chatter": chatter.measure,
    "flat": flat.measure,
    "million": million.measure,
    "waiting": waiting.measure,
    "targeting": targeting.measure,
    "console": console.measure,
    "policy": policy_rates.measure,
    "scale": scale.measure,
    "rates": compared.measure,
    "tenants": tenants.measure,
}

BUSY = 1.0
"""Load before it begins from which on the machine has other work."""

_console = Console(highlight=False)


async def _main(options: argparse.Namespace) -> bool:
    settings = dict(each.split("=", 1) for each in options.set)
    asked = Options(
        *(options.devices, options.runs, options.brokers, options.tenants, options.campaigns, options.largest),
        seconds=options.minutes * 60,
    )
    async with open_lab(options.postgres, settings) as lab:
        machine = describe(lab)
        session = Session(lab, asked)
        if machine["load_before"] > BUSY:
            session.say(f"the machine is busy (load {machine['load_before']}): figures will be worse than it can do")
        failed = await _measure(session, options)
        session.say("done")
        machine["seconds"] = round(time.monotonic() - session.started)
    _console.width = max(_console.width, 160)
    _console.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    show(list(session.report.rows()), _console)
    whole = options == _parser().parse_args([]) and options.brokers == list(BROKERS) and not failed
    path = KEPT if whole else PARTIAL
    write(session.report.document(machine, asdict(asked) | {"postgres": options.postgres, "set": settings}), path)
    _console.print(f"written to {path}" + ("; `make docs` puts it into the documentation" if path == KEPT else ""))
    return not failed


async def _measure(session: Session, options: argparse.Namespace) -> list[str]:
    """Every part that was asked for; returns those that failed. They cost the others nothing."""
    if options.soak:
        await soak.soak(session, options.soak)
        return []
    failed = []
    for part in options.only:
        try:
            await PARTS[part](session)
        except (AssertionError, RollwaveError, OSError, asyncpg.PostgresError, httpx2.HTTPError) as error:
            session.say(f"{part} FAILED: {type(error).__name__}: {error}")
            failed.append(part)
    soak.recall(session.report)
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Rollwave on this machine.")
    brokers = list(BROKERS) if debian_mosquitto() else ["iotcore"]
    add = parser.add_argument
    add("--only", type=_list_of(list(PARTS)), default=list(PARTS), help=f"parts, of {','.join(PARTS)}")
    add("--runs", type=int, default=3, help="how often what is compared is measured, at most (default: 3)")
    add("--minutes", type=float, default=9.5, help="time for everything; fewer runs keep to it (default: 9.5)")
    add("--devices", type=int, default=50_000, help="devices of the campaigns that are timed (default: 50000)")
    add("--largest", type=int, default=10_000_000, help="devices of the largest campaign (default: 10000000)")
    add("--tenants", type=int, default=1000, help="tenants of `tenants` (default: 1000)")
    add("--campaigns", type=int, default=1, help="campaigns of each of them (default: 1)")
    add("--soak", type=float, metavar="SECONDS", help="nothing but steady load, and what grows under it")
    add("--brokers", type=_list_of(brokers), default=brokers, help=f"of {','.join(brokers)}")
    add("--postgres", choices=["embedded", "debian"], default="embedded", help="which PostgreSQL (default: embedded)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of PostgreSQL's")
    return parser


def _list_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = text.split(",")
        if unknown := set(words) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return [each for each in known if each in words]

    return read


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # what the engine has to say when it is called from here is known
    try:
        raise SystemExit(not asyncio.run(_main(_parser().parse_args())))
    except RollwaveError as error:
        _console.print(f"error: {error}\nhint: {error.hint}")
        raise SystemExit(1) from None
