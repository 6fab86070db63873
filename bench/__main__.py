"""``make bench``: everything, interleaved; ``make bench ARGS="--only dispatch --runs 1"``: a part of it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence

from rich.console import Console

from bench import bare, engine, naive
from bench.lab import Lab, open_lab
from bench.machine import describe
from bench.report import Report
from rollwave.errors import RollwaveError
from tests.servers import debian_mosquitto

PARTS = ("dispatch", "ingest", "latency", "naive")
TARGET = 5000.0
NAIVE_NUMBER = 200
LATENCY_SECONDS = 4.0

MOST_REPORTS = 90_000
"""Sent faster than they are taken in, more would overflow Mosquitto's queue, which drops them."""

_console = Console(stderr=True)


class Bench:
    """One run after the other, so that a limit and what is compared with it meet the same machine."""

    def __init__(self, lab: Lab, devices: int, parts: list[str]) -> None:
        self._lab = lab
        self._devices = devices
        self._parts = parts
        self.report = Report()

    async def run(self, broker: str) -> None:
        """Every part once, on one broker."""
        if "dispatch" in self._parts:
            await self._dispatch(broker)
        if "ingest" in self._parts or "latency" in self._parts:
            await self._ingest(broker)
        if "naive" in self._parts:
            await self._naive(broker)

    async def _dispatch(self, broker: str) -> None:
        lab, devices, add = self._lab, self._devices, self.report.add
        add("claim, SQL alone", await bare.claim(lab, devices), broker=broker)
        add("publish, socket alone", await bare.publish(lab, broker, devices), broker=broker)
        add("dispatch, bare", await bare.dispatch(lab, broker, devices), broker=broker)
        rate = await engine.dispatch(lab, broker, devices)
        add("dispatch, Rollwave", rate.per_second, broker=broker, limit="dispatch, bare", target=TARGET, detail=rate)

    async def _ingest(self, broker: str) -> None:
        lab, devices, add = self._lab, min(self._devices, MOST_REPORTS), self.report.add
        add("apply, SQL alone", await bare.apply(lab, devices), broker=broker)
        add("ingest, bare", await bare.ingest(lab, broker, devices), broker=broker)
        rate = await engine.ingest(lab, broker, devices)
        add("ingest, Rollwave", rate.per_second, broker=broker, limit="ingest, bare", target=TARGET, detail=rate)
        if "latency" in self._parts:
            half = rate.per_second / 2
            waits = await engine.latency(lab, broker, min(devices, int(half * LATENCY_SECONDS)), half)
            add("half load", half, broker=broker, detail=waits)

    async def _naive(self, broker: str) -> None:
        lab, devices, add = self._lab, self._devices, self.report.add
        sent = await naive.dispatch(lab, broker, devices, NAIVE_NUMBER)
        add("dispatch, naive", sent, broker=broker, limit="dispatch, bare")
        taken = await naive.ingest(lab, broker, devices, NAIVE_NUMBER)
        add("ingest, naive", taken, broker=broker, limit="ingest, bare")


async def _main(options: argparse.Namespace) -> None:
    settings = dict(each.split("=", 1) for each in options.set)
    async with open_lab(options.postgres, settings) as lab:
        machine = describe(lab)
        bench = Bench(lab, options.devices, options.only)
        for number in range(options.runs):
            for broker in options.brokers:
                with _console.status(f"run {number + 1} of {options.runs}, {broker} …"):
                    await bench.run(broker)
    bench.report.print(machine)
    path = bench.report.write(machine, vars(options), keep=options.keep)
    _console.print(f"written to {path}", highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure throughput on this machine.")
    brokers = ["mosquitto", "iotcore"] if debian_mosquitto() else ["iotcore"]
    add = parser.add_argument
    add("--devices", type=int, default=20_000, help="devices of each campaign (default: 20000)")
    add("--runs", type=int, default=3, help="how often everything is measured (default: 3)")
    add("--only", type=_list_of(PARTS), default=list(PARTS), help=f"parts, of {','.join(PARTS)}")
    add("--brokers", type=_list_of(brokers), default=brokers, help=f"of {','.join(brokers)}")
    add("--postgres", choices=["embedded", "debian"], default="embedded", help="which PostgreSQL (default: embedded)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of PostgreSQL's")
    add("--keep", action="store_true", help="keep the results under their date too")
    return parser.parse_args()


def _list_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        words = text.split(",")
        if unknown := set(words) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return words

    return read


if __name__ == "__main__":
    try:
        asyncio.run(_main(_options()))
    except RollwaveError as error:
        _console.print(f"error: {error}\nhint: {error.hint}", highlight=False)
        raise SystemExit(1) from None
