"""Finds the device whose command makes the broker end the session, so that only this device waits.

Commands that a lost session left without an answer are published again over a separate session, in parts of 1, 2, 4, …
A broker handles commands in order, so the first of them is the most likely cause. If the session ends during a part,
the parts begin at 1 again with the commands that this part left unanswered, until the command is alone.

A device counts as refused only if all of this is true: the session ended at its command twice; each time the session
had accepted a message of the same size for another topic before; and the broker accepts such a message afterwards, over
a session that then lasts. This is not true while the broker restarts or the network cuts connections, so no device is
refused because of these.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from rollwave.domain.campaign import CampaignRef
from rollwave.engine.dispatch.session import Answers, Batch, CommandSession, publish_batch
from rollwave.errors import BrokerUnavailable, MessageTooLarge
from rollwave.mqtt.client import Session
from rollwave.mqtt.topics import command_topic
from rollwave.store.executions import Claimed

MAX_TRIES = 2
"""Number of sessions that must end at a command, published alone, before its device counts as refused."""

MAX_TOO_LARGE_IN_A_ROW = 3
"""Number of commands that are too large, if none is accepted, after which the others are not tried."""

STEADY_SECONDS = 0.5
"""Seconds that a session must last after the test message."""

RESERVED_SECONDS = 2 * STEADY_SECONDS
"""Seconds at the end of the lease that are reserved for that test; half of the lease if it is shorter."""

ENDS_WITHIN_SECONDS = 1.0
"""Seconds within which this side notices that a session was lost."""

PROBE = "rollwave-probe"
"""Tenant and device in the topic of test messages. No tenant or device has this name."""


class Proof(enum.Enum):
    """Whether the broker accepts a message of the command's size for a topic that belongs to no device."""

    GIVEN = enum.auto()
    TOO_LARGE = enum.auto()
    """It ends the session at such a message, and not at a small one."""
    MISSING = enum.auto()
    """It is unavailable, does not answer, or accepts no message."""


class Isolation:
    """Publishes the commands that lost sessions left unanswered."""

    def __init__(
        self,
        command_session: CommandSession,
        *,
        timeout: float,
        braked: Callable[[CampaignRef], Awaitable[bool]],
    ) -> None:
        """``timeout``: maximum number of seconds for the broker to answer one part. ``braked``: a halt is in force."""
        self._command_session = command_session
        self._timeout = timeout
        self._braked = braked

    async def run(self, ref: CampaignRef, batch: Batch, still_runs: Callable[[], Awaitable[bool]]) -> Answers:
        """Publish the batch before its lease ends, each part after a check that the campaign ``still_runs``."""
        found, rest, size = Answers(), deque(batch.commands), 1
        braked = partial(self._braked, ref)
        async with _SeparateSession(self._command_session, ref, batch, self._timeout, still_runs, braked) as separate:
            while rest and not separate.finished:
                part = [rest.popleft() for _ in range(min(size, len(rest)))]
                answers = await (separate.publish_alone(part[0]) if len(part) == 1 else separate.publish(part))
                found.add(answers)
                rest.extendleft(reversed(answers.unanswered))
                all_answered = len(answers.taken) + len(answers.refused) == len(part)
                size = 2 * size if all_answered else 1
                if not found.taken and len(found.too_large) >= MAX_TOO_LARGE_IN_A_ROW:
                    break
            if found.ended_session and not await separate.is_steady(found.ended_session[0]):
                rest += found.ended_session
                found.ended_session = []
        found.unanswered = list(rest)
        return found


class _SeparateSession:
    """A session beside the shared one. It is opened again whenever the broker ends it. ``async with`` closes it."""

    def __init__(
        self,
        command_session: CommandSession,
        ref: CampaignRef,
        batch: Batch,
        timeout: float,
        still_runs: Callable[[], Awaitable[bool]],
        braked: Callable[[], Awaitable[bool]],
    ) -> None:
        self._command_session = command_session
        self._ref = ref
        self._braked = braked
        seconds_left = batch.lease_ends - time.monotonic()
        self._batch = replace(batch, lease_ends=batch.lease_ends - min(RESERVED_SECONDS, seconds_left / 2))
        self._lease_ends = batch.lease_ends
        self._max_timeout = timeout
        self._still_runs = still_runs
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._proven = False
        """Whether this session has accepted a message of the command's size."""
        self._small_lasts = False
        """Whether a session has lasted after a small message."""
        self.finished = False
        """Whether nothing more may be sent: the campaign was stopped, the lease ended, or the broker is unavailable."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    @property
    def _timeout(self) -> float:
        return min(self._max_timeout, self._batch.lease_ends - time.monotonic())

    async def publish_alone(self, command: Claimed) -> Answers:
        """Publish one command, and find out whether the broker ends the session because of it."""
        for _ in range(MAX_TRIES):
            proof = await self._prove(command)
            if proof is Proof.TOO_LARGE:
                return Answers(too_large=[command], limit=self._limit(command))
            if proof is Proof.MISSING:
                return self._give_up(command)
            answers = await self.publish([command])
            if not answers.session_lost:
                return answers
        if await self._prove(command) is not Proof.GIVEN:
            return self._give_up(command)
        return Answers(ended_session=[command], problem="the broker ends the connection over a device's topic")

    async def is_steady(self, command: Claimed) -> bool:
        """Whether a session now lasts for ``STEADY_SECONDS``. If sessions end by themselves, no device is refused."""
        self._batch = replace(self._batch, lease_ends=self._lease_ends)  # no command is sent any more
        given = await self._prove(command) is Proof.GIVEN
        return given and self._session is not None and not await _has_ended(self._session, within=STEADY_SECONDS)

    async def publish(self, commands: list[Claimed]) -> Answers:
        """Publish a part, if the campaign still runs. If the session ends, the next part gets a new one."""
        try:
            session = await self._open()
            self.finished = not await self._still_runs()
        except (BrokerUnavailable, TimeoutError) as error:
            self.finished = True
            return Answers(unanswered=commands, problem=str(error))
        except Exception as error:  # noqa: BLE001  raised once the answers so far are recorded
            self.finished = True
            return Answers(unanswered=commands, error=error)
        if self.finished:
            return Answers(unanswered=commands)
        answers = await publish_batch(
            session,
            self._ref,
            self._batch.only(commands),
            backpressure=self._command_session.backpressure,
            timeout=self._timeout,
            braked=self._braked,
        )
        self._proven = self._proven or bool(answers.taken)
        if answers.timed_out:
            session.abort()
        answers.session_lost = answers.session_lost and await _has_ended(session, within=ENDS_WITHIN_SECONDS)
        self.finished = bool(answers.unanswered) and not answers.session_lost
        return answers

    def _give_up(self, command: Claimed) -> Answers:
        self.finished = True
        return Answers(unanswered=[command], problem="the broker ends sessions whatever is sent")

    async def _prove(self, command: Claimed) -> Proof:
        """Open a session that accepts messages of the command's size, if necessary. Each new session is tested."""
        for _ in range(MAX_TRIES):
            if self._proven and self._session is not None and self._session.connected:
                return Proof.GIVEN
            topic = command_topic(PROBE, PROBE)
            longer = self._topic_bytes(command) - len(topic)
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
        return Proof.TOO_LARGE if await self._lasts_after_small(command) else Proof.MISSING

    async def _lasts_after_small(self, command: Claimed) -> bool:
        """Whether a session lasts for ``STEADY_SECONDS`` after a small message. A positive result is kept."""
        if not self._small_lasts:
            try:
                taken = await self._takes(command_topic(PROBE, PROBE), b"", command)
            except (BrokerUnavailable, TimeoutError):
                taken = False
            lasts = taken and self._session is not None and not await _has_ended(self._session, within=STEADY_SECONDS)
            self._small_lasts = lasts
        return self._small_lasts

    async def _takes(self, topic: str, payload: bytes, command: Claimed) -> bool:
        """Whether the broker answers this message. False: it ended the session.

        Raises:
            MessageTooLarge: the message is larger than the limit that the broker announced.
            BrokerUnavailable: no session can be opened.
            TimeoutError: the broker does not answer.
        """
        session = await self._open()
        async with asyncio.timeout(self._timeout):
            try:
                receipt = await session.publish(
                    topic, payload, attempt=command.attempt, expires_in=self._batch.times.answer_timeout
                )
            except MessageTooLarge:
                raise
            except BrokerUnavailable:  # the session has just ended, or the message breaks one of its rules
                if await _has_ended(session, within=ENDS_WITHIN_SECONDS):
                    return False
                raise
            await receipt.wait()
        return receipt.taken or receipt.refused

    async def _open(self) -> Session:
        if self._session is None or not self._session.connected:
            self._session, self._proven = None, False
            async with asyncio.timeout(self._timeout):
                await self._closing.aclose()
                self._session = await self._closing.enter_async_context(self._command_session.separate_session())
        return self._session

    def _topic_bytes(self, command: Claimed) -> int:
        return len(command_topic(self._ref.tenant_id, command.device_id).encode())

    def _limit(self, command: Claimed) -> str:
        size = len(self._batch.body) + self._topic_bytes(command)
        return f"it ends the connection over a message of {size} bytes with its topic"


async def _has_ended(session: Session, *, within: float) -> bool:
    """Whether the session ends ``within`` this number of seconds. Its messages end with it."""
    try:
        async with asyncio.timeout(within):
            async for _ in session.messages():
                pass
    except TimeoutError:
        return False
    return True
