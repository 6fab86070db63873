"""Simulated devices of a test, in a thread: they go on while the test waits for the browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rollwave.fleet import Fleet, FleetPlan
from rollwave.fleet.population import Behaviour
from rollwave.mqtt.broker import Broker


@contextmanager
def fleet(
    broker_url: str, tenant: str, devices: Sequence[str], *, step_delay: float = 0.2, behaviour: Behaviour | None = None
) -> Iterator[Fleet]:
    """The devices of one tenant. They take ``step_delay`` seconds for a step on average, and download nothing."""
    plan = FleetPlan(
        tenant_id=tenant, device_ids=devices, download=False, step_delay=step_delay, behaviour=behaviour, connections=2
    )
    made: list[Fleet] = []
    ready, over = threading.Event(), threading.Event()

    async def live() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: (over.wait(), loop.call_soon_threadsafe(stop.set)), daemon=True).start()
        async with Fleet(Broker.from_url(broker_url), plan) as simulated:
            await simulated.ready
            made.append(simulated)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),), name=f"fleet of {tenant}")
    thread.start()
    try:
        assert ready.wait(30), "the simulated devices are not connected"
        yield made[0]
    finally:
        over.set()
        thread.join()
