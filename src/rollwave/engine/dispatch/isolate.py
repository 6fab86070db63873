"""Finding the device over whose topic the broker ends the connection, so that it alone waits.

The commands that a lost session left without an answer are sent again in parts of 1, 2, 4, … over a session of the
search's own. A broker deals with commands in order, so the first of them is the likeliest. Where the session ends over
a part, the search begins anew with what that part left unanswered, until the device is alone.

One device is blamed only where the session ended over its command twice, each time after it had taken a message of the
same size for another topic, and where the broker takes such a message afterwards and leaves that session alone. A
broker that is restarting or away fails that proof, as does a network that cuts every connection: nobody is blamed.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.dispatch.batch import Batch, Sent
from rollwave.engine.dispatch.session import CommandSession, Handover
from rollwave.errors import BrokerUnavailable, MessageTooLarge
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.store.executions import Claimed

MAX_TRIES = 2
"""Times that a session must end over one command, published alone, before its device is blamed."""

MAX_TOO_LARGE_IN_A_ROW = 3
"""Devices in a row whose command is too large, before the rest is not tried."""

STEADY_SECONDS = 0.5
"""Seconds that a session must last after the search."""

KEPT_SECONDS = 2 * STEADY_SECONDS
"""Seconds of the lease that are kept for that, or half of it where it is short."""

ENDS_WITHIN_SECONDS = 1.0
"""Seconds in which a session that was lost has ended on this side too."""

NOBODY = "rollwave-probe"
"""Tenant and device of the topic to which proofs are published. Nobody has that name."""


class Proof(enum.Enum):
    """Whether the broker takes a message of the command's size for a topic that is no device's."""

    GIVEN = enum.auto()
    TOO_LARGE = enum.auto()
    """It ends the connection over it, and leaves one alone over which a small one went."""
    MISSING = enum.auto()
    """It is away, does not answer, or takes nothing."""


class Search:
    """Sends what lost sessions left unanswered. ``patience``: seconds that the broker may take to answer a part."""

    def __init__(self, publisher: CommandSession, *, patience: float) -> None:
        self._publisher = publisher
        self._patience = patience

    async def run(self, ref: CampaignRef, batch: Batch, still_runs: Callable[[], Awaitable[bool]]) -> Sent:
        """Send the batch before its lease ends, each part after a look whether the campaign ``still_runs``."""
        found, rest, size = Sent(), deque(batch.commands), 1
        async with _Line(self._publisher, ref, batch, self._patience, still_runs) as line:
            while rest and not line.over:
                part = [rest.popleft() for _ in range(min(size, len(rest)))]
                sent = await (line.alone(part[0]) if len(part) == 1 else line.send(part))
                found.add(sent)
                rest.extendleft(reversed(sent.unanswered))
                whole = len(sent.taken) + len(sent.refused) == len(part)
                size = 2 * size if whole else 1
                if not found.taken and len(found.too_large) >= MAX_TOO_LARGE_IN_A_ROW:
                    break
            if found.ended and not await line.steady(found.ended[0]):
                rest += found.ended
                found.ended = []
        found.unanswered = list(rest)
        return found


class _Line:
    """A session of the search's own, opened again whenever the broker has ended it. ``async with`` is its lifetime."""

    def __init__(
        self,
        publisher: CommandSession,
        ref: CampaignRef,
        batch: Batch,
        patience: float,
        still_runs: Callable[[], Awaitable[bool]],
    ) -> None:
        self._publisher = publisher
        self._due = ref
        left = batch.lease_ends - time.monotonic()
        self._batch = replace(batch, lease_ends=batch.lease_ends - min(KEPT_SECONDS, left / 2))
        self._ends = batch.lease_ends
        self._most = patience
        self._still_runs = still_runs
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._proven = False
        """Whether this session has taken a message of the command's size."""
        self._lasting = False
        """Whether a session that was sent a small message has lasted."""
        self.over = False
        """Whether nothing more may be sent: the campaign or the lease has ended, or the broker is away."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    @property
    def _patience(self) -> float:
        return min(self._most, self._batch.lease_ends - time.monotonic())

    async def alone(self, command: Claimed) -> Sent:
        """Send one command, and find out whether it is what ends the connection."""
        for _ in range(MAX_TRIES):
            proof = await self._prove(command)
            if proof is Proof.TOO_LARGE:
                return Sent(too_large=[command], limit=self._limit(command))
            if proof is Proof.MISSING:
                return self._give_up(command)
            sent = await self.send([command])
            if not sent.lost:
                return sent
        if await self._prove(command) is not Proof.GIVEN:
            return self._give_up(command)
        return Sent(ended=[command], trouble="the broker ends the connection over a device's topic")

    async def steady(self, command: Claimed) -> bool:
        """Whether a session now lasts for ``STEADY`` seconds: where they end by themselves, no device is to blame."""
        self._batch = replace(self._batch, lease_ends=self._ends)  # no command is sent any more
        given = await self._prove(command) is Proof.GIVEN
        return given and self._session is not None and not await _has_ended(self._session, within=STEADY_SECONDS)

    async def send(self, commands: list[Claimed]) -> Sent:
        """Send a part, if the campaign still runs. Where the session ends over it, the next part goes over another."""
        try:
            session = await self._open()
            self.over = not await self._still_runs()
        except (BrokerUnavailable, TimeoutError) as error:
            self.over = True
            return Sent(unanswered=commands, trouble=str(error))
        except Exception as error:  # noqa: BLE001  raised once what was found is written down
            self.over = True
            return Sent(unanswered=commands, error=error)
        if self.over:
            return Sent(unanswered=commands)
        handover = Handover(session, self._due, self._batch.only(commands), self._publisher.precedence)
        sent = await handover.run(self._patience)
        self._proven = self._proven or bool(sent.taken)
        if sent.slow:
            session.abort()
        sent.lost = sent.lost and await _has_ended(session, within=ENDS_WITHIN_SECONDS)
        self.over = bool(sent.unanswered) and not sent.lost
        return sent

    def _give_up(self, command: Claimed) -> Sent:
        self.over = True
        return Sent(unanswered=[command], trouble="the broker ends sessions whatever is sent")

    async def _prove(self, command: Claimed) -> Proof:
        """Have a session that takes messages of the command's size; found out again for each session."""
        for _ in range(MAX_TRIES):
            if self._proven and self._session is not None and self._session.connected:
                return Proof.GIVEN
            topic = command_topic(NOBODY, NOBODY)
            longer = self._topic_size(command) - len(topic)
            try:
                if await self._takes(topic, b" " * max(0, len(self._batch.body) + longer), command):
                    self._proven = True
                    return Proof.GIVEN
                if not await self._takes(topic, b"", command):
                    return Proof.MISSING
            except MessageTooLarge:
                return Proof.TOO_LARGE
            except (BrokerUnavailable, TimeoutError):
                return Proof.MISSING
        return Proof.TOO_LARGE if await self._lasts(command) else Proof.MISSING

    async def _lasts(self, command: Claimed) -> bool:
        """Whether a session lasts for ``STEADY`` seconds that takes a small message; found out once."""
        if not self._lasting:
            try:
                taken = await self._takes(command_topic(NOBODY, NOBODY), b"", command)
            except (BrokerUnavailable, TimeoutError):
                taken = False
            steady = taken and self._session is not None and not await _has_ended(self._session, within=STEADY_SECONDS)
            self._lasting = steady
        return self._lasting

    async def _takes(self, topic: str, payload: bytes, command: Claimed) -> bool:
        """Whether the broker answers this message. False: it ended the session.

        Raises:
            MessageTooLarge: it has said that it will not take it.
            BrokerUnavailable: it is away.
            TimeoutError: it does not answer.
        """
        session = await self._open()
        async with asyncio.timeout(self._patience):
            try:
                receipt = await session.publish(
                    topic, payload, attempt=command.attempt, expires_in=self._batch.times.answer_timeout
                )
            except MessageTooLarge:
                raise
            except BrokerUnavailable:  # it ended it just now, or a message is against the session's rules
                if await _has_ended(session, within=ENDS_WITHIN_SECONDS):
                    return False
                raise
            await receipt.settled()
        return receipt.taken or receipt.refused

    async def _open(self) -> Session:
        if self._session is None or not self._session.connected:
            self._session, self._proven = None, False
            async with asyncio.timeout(self._patience):
                await self._closing.aclose()
                self._session = await self._closing.enter_async_context(self._publisher.another())
        return self._session

    def _topic_size(self, command: Claimed) -> int:
        return len(command_topic(self._due.tenant_id, command.device_id).encode())

    def _limit(self, command: Claimed) -> str:
        size = len(self._batch.body) + self._topic_size(command)
        return f"it ends the connection over a message of {size} bytes with its topic"


async def _has_ended(session: Session, *, within: float) -> bool:
    """Whether the session ends within so many seconds: with it end its messages."""
    try:
        async with asyncio.timeout(within):
            async for _ in session.messages():
                pass
    except TimeoutError:
        return False
    return True
