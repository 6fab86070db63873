"""Faults between the workers and the broker, played by a proxy with rules drawn from the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from tests.proxy import PUBACK, Do, Packet, Proxy, Rule, publishing, subscribing


class LinkFault(StrEnum):
    """A fault between workers and broker. The first three affect the topics of some devices only."""

    TOPIC_RESET = "reset over a topic"
    TOPIC_CLOSE = "close over a topic"
    TOPIC_DISCONNECT = "disconnect over a topic"
    DELAY = "packets delayed"
    HOLD_PUBACKS = "acknowledgements held back"
    TRUNCATE = "packets truncated"
    REFUSE_SUBSCRIPTIONS = "subscriptions refused"
    REFUSE_CONNECTIONS = "connections refused"
    CUT = "connections cut"


OF_A_TOPIC = {
    LinkFault.TOPIC_RESET: Do.RESET,
    LinkFault.TOPIC_CLOSE: Do.CLOSE,
    LinkFault.TOPIC_DISCONNECT: Do.DISCONNECT,
}

TRUNCATED = 0.05
"""The share of packets that are truncated during that fault."""

CUTS = 4


@dataclass(frozen=True, slots=True)
class LinkTrouble:
    """A fault and its duration. A fault of a topic lasts until the campaign has no other device left."""

    fault: LinkFault
    seconds: float
    delay: float = 0.0
    topics: tuple[str, ...] = ()
    from_start: bool = False
    """Whether the fault begins before the first worker starts."""

    def __str__(self) -> str:
        return self.fault.value + (" from the start" if self.from_start else "")


class Link:
    """Plays faults on a proxy. ``neighbours_done`` waits until only devices with ``topics`` are left."""

    def __init__(self, proxy: Proxy, seed: int, neighbours_done: Callable[[tuple[str, ...]], Awaitable[None]]) -> None:
        self._proxy = proxy
        self._dice = random.Random(seed)
        self._neighbours_done = neighbours_done

    async def play(self, trouble: LinkTrouble) -> None:
        """Keep the fault active for its duration."""
        proxy = self._proxy
        match trouble.fault:
            case LinkFault.TOPIC_RESET | LinkFault.TOPIC_CLOSE | LinkFault.TOPIC_DISCONNECT:
                rule = publishing(lambda topic: topic in trouble.topics, OF_A_TOPIC[trouble.fault])
                await self._under(rule, self._neighbours_done(trouble.topics))
            case LinkFault.DELAY:
                proxy.delay = trouble.delay
                await asyncio.sleep(trouble.seconds)
                proxy.delay = 0.0
            case LinkFault.HOLD_PUBACKS:
                await self._under(_acknowledgements, asyncio.sleep(1.0))
                await proxy.release()
            case LinkFault.TRUNCATE:
                await self._under(self._some_truncated, asyncio.sleep(trouble.seconds))
            case LinkFault.REFUSE_SUBSCRIPTIONS:
                proxy.cut()  # Clients that are subscribed now have to subscribe again.
                await self._under(subscribing(lambda _: True, Do.REFUSE), asyncio.sleep(trouble.seconds))
            case LinkFault.REFUSE_CONNECTIONS:
                proxy.refusing = True
                proxy.cut()
                await asyncio.sleep(trouble.seconds)
                proxy.refusing = False
            case LinkFault.CUT:
                for _ in range(CUTS):
                    proxy.cut(self._dice.choice([Do.RESET, Do.CLOSE]))
                    await asyncio.sleep(trouble.seconds / CUTS)

    async def _under(self, rule: Rule, work: Awaitable[object]) -> None:
        self._proxy.rules.append(rule)
        try:
            await work
        finally:
            self._proxy.rules.remove(rule)

    def _some_truncated(self, _: Packet) -> Do | None:
        return Do.TRUNCATE if self._dice.random() < TRUNCATED else None


def _acknowledgements(packet: Packet) -> Do | None:
    return Do.HOLD if packet.kind == PUBACK else None
