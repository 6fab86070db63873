"""Publishes a claimed batch of commands over a session with the broker, and collects the broker's answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from math import inf
from types import TracebackType
from typing import Self

from rollwave.breaker import Breaker
from rollwave.domain.campaign import CampaignRef
from rollwave.engine.backpressure import Backpressure
from rollwave.engine.dispatch.permission import unless_stopped
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.errors import BrokerUnavailable, MessageTooLarge
from rollwave.log import get_logger
from rollwave.log_once import LogOnce, Problems, tell
from rollwave.mqtt.broker import Broker
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.topics import command_topic
from rollwave.store.executions import Claimed, Times

_log = get_logger("publisher")

_PUBLISHING = "publishing"
"""The name under which problems of this session are logged once in the process."""

COMMANDS_PER_TURN = 50
"""Number of commands published before other tasks of this process run. Answers of the database wait for that time."""

NO_TIMES = Times(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Batch:
    """The commands of one claim. They are published before ``lease_ends`` or not at all."""

    commands: Sequence[Claimed] = ()
    body: bytes = b""
    """The body, the same for all commands."""
    times: Times = NO_TIMES
    lease_ends: float = 0.0
    """A time of this process's monotonic clock, in seconds."""
    skipped: int = 0
    """Devices that the claim skipped, because no command can be addressed to them."""
    retry_in: float = inf
    """Seconds until the next claim, if this one took nothing."""
    segments: frozenset[int] = frozenset()
    """The segments of its devices, under a policy document."""
    revision: int | None = None
    """The revision of the policy document by which it was claimed. None: flat columns."""

    def part(self, first: int, last: int) -> Batch:
        """The commands from index ``first`` to before ``last``."""
        return replace(self, commands=self.commands[first:last])

    def only(self, commands: Sequence[Claimed]) -> Batch:
        """The batch with these commands instead of its own."""
        return replace(self, commands=commands)


@dataclass(slots=True)
class Answers:
    """The broker's answers to published commands. Each command is in one of the five lists."""

    taken: list[Claimed] = field(default_factory=list)
    refused: list[Claimed] = field(default_factory=list)
    """Refused one by one, with a reason code."""
    unanswered: list[Claimed] = field(default_factory=list)
    """Not sent, or sent and not acknowledged. The broker may have received them."""
    ended_session: list[Claimed] = field(default_factory=list)
    """The broker ended the session at each of these, published alone."""
    too_large: list[Claimed] = field(default_factory=list)
    """Larger than the broker's packet limit."""
    limit: str = ""
    """The packet limit as far as it is known, as text."""
    problem: str = ""
    """The reason why some commands were not accepted, as text."""
    session_lost: bool = False
    """The session ended. The command that caused this may be among the unanswered ones."""
    timed_out: bool = False
    """The broker did not answer in time, or a halt or a freeze began meanwhile. The session must be aborted."""
    error: Exception | None = None
    """The error because of which the other commands were not sent. It is raised after the answers are recorded."""

    @property
    def failed(self) -> int:
        """The number of commands that the broker did not accept, as far as is known."""
        return len(self.refused) + len(self.unanswered) + len(self.ended_session) + len(self.too_large)

    def add(self, other: Answers) -> None:
        """Add the answers to another part, without its unanswered commands."""
        self.taken += other.taken
        self.refused += other.refused
        self.ended_session += other.ended_session
        self.too_large += other.too_large
        if other.failed:
            self.problem = self.problem or other.problem
        self.limit = self.limit or other.limit
        self.error = self.error or other.error


class CommandSession:
    """One session for all commands of a worker. It is opened when first needed, and again after it was lost.

    ``async with`` closes it at the end. Listeners have their own sessions, so that commands and reports do not delay
    each other.
    """

    def __init__(
        self, broker: Broker, problems: Problems | None = None, backpressure: Backpressure | None = None
    ) -> None:
        """``problems``: shared by the process, so that a hint that a listener has logged is not logged again."""
        self._broker = broker
        self._problems = problems or Problems()
        self._session: Session | None = None
        self._closing = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._breaker = Breaker()
        self.backpressure = backpressure or Backpressure()
        self.failing_campaigns = LogOnce()
        """Campaigns whose commands the broker does not accept. Each is logged once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session, if one is open."""
        self._session = None
        await self._closing.aclose()

    async def session(self) -> Session:
        """Return the open session, or open one.

        Raises:
            BrokerUnavailable: no session can be opened now. Logged once until the broker is available again.
        """
        async with self._opening:
            if self._session is not None and self._session.connected:
                return self._session
            await self._closing.aclose()
            self._session = None
            self._session = await self._open(self._closing)
            return self._session

    @asynccontextmanager
    async def separate_session(self) -> AsyncIterator[Session]:
        """Open a second session for the block, for commands that may make the broker end the connection.

        Raises:
            BrokerUnavailable: as :meth:`session`.
        """
        async with AsyncExitStack() as closing:
            yield await self._open(closing)

    async def _open(self, closing: AsyncExitStack) -> Session:
        if not self._breaker.admits():
            raise BrokerUnavailable(f"no MQTT session with {self._broker.address}; trying again shortly")
        try:
            session = await closing.enter_async_context(Session.connect(self._broker))
        except BrokerUnavailable as error:
            # The breaker limits the tries. Otherwise each campaign would try at each tick.
            if self._breaker.failed():
                tell(self._problems, _PUBLISHING, "ota_mqtt_publish_failed", error, broker=self._broker.address)
            raise
        self._problems.over(_PUBLISHING)
        away_for = self._breaker.worked()
        if away_for is not None:
            _log.info("ota_mqtt_publisher_connected", broker=self._broker.address, away_for=round(away_for, 1))
        return session

    @property
    def away_for(self) -> float | None:
        """Seconds for which no session could be opened; None: the broker is available, as far as is known."""
        return self._breaker.away_for

    async def drop(self, session: Session) -> None:
        """Abort a session that did not answer in time, so that messages in its queue are not sent late."""
        session.abort()
        async with self._opening:
            if self._session is session:
                self._session = None
                await self._closing.aclose()


async def publish_batch(
    session: Session,
    ref: CampaignRef,
    batch: Batch,
    *,
    backpressure: Backpressure,
    timeout: float,
    braked: Callable[[], Awaitable[bool]],
    handed_over: asyncio.Event | None = None,
) -> Answers:
    """Publish the commands, set ``handed_over``, and wait for the broker's answers. Raises no error of the broker.

    Args:
        timeout: maximum number of seconds. After it the answers are ``timed_out``, and the caller aborts the session.
        braked: asked while this takes long. If a halt or a freeze is in force, the session is aborted.
        handed_over: set when every command is in the session's queue.
    """
    publishing = _Publishing(session, ref, batch, backpressure)
    return await unless_stopped(publishing.run(timeout, handed_over), braked, publishing.abandon)


class _Publishing:
    """One batch that is published over one session."""

    def __init__(self, session: Session, ref: CampaignRef, batch: Batch, backpressure: Backpressure) -> None:
        self._session = session
        self._ref = ref
        self._batch = batch
        self._backpressure = backpressure
        self._receipts: list[tuple[Claimed, Receipt]] = []
        self._too_large: list[Claimed] = []
        self._problem = self._limit = ""
        self._abandoned = False

    def abandon(self) -> None:
        """End the session with what waits in its queue."""
        self._abandoned = True
        self._session.abort()

    async def run(self, timeout: float, handed_over: asyncio.Event | None) -> Answers:
        timed_out = session_lost = False
        try:
            async with asyncio.timeout(timeout):
                await self._hand_over()
                if handed_over is not None:
                    handed_over.set()
                for _, receipt in self._receipts:
                    if not receipt.answered:  # the broker answers in order, so one wait covers many answers
                        await receipt.wait()
        except BrokerUnavailable as error:
            self._problem, session_lost = str(error), True
        except TimeoutError:
            self._problem, timed_out = f"the broker did not acknowledge within {timeout:.0f} s", True
        if self._abandoned:
            self._problem, timed_out = "a halt or a freeze began meanwhile", True
        return self._answers(session_lost=session_lost, timed_out=timed_out)

    async def _hand_over(self) -> None:
        """Put every command into the session's queue, until the lease ends."""
        batch, tenant_id, publish = self._batch, self._ref.tenant_id, self._session.publish
        expires_in, receipts = batch.times.answer_timeout, self._receipts
        for number, command in enumerate(batch.commands, start=1):
            if time.monotonic() >= batch.lease_ends:
                self._problem = "the lease ended"
                return
            topic = command_topic(tenant_id, command.device_id)
            try:
                receipt = await publish(topic, batch.body, attempt=command.attempt, expires_in=expires_in)
            except MessageTooLarge as error:
                self._limit = str(error)
                self._too_large.append(command)
            else:
                receipts.append((command, receipt))
            if number == 1:
                await reach(Failpoint.PUBLISHING)
            if number % COMMANDS_PER_TURN == 0:
                await self._backpressure.give_way()

    def _answers(self, *, session_lost: bool, timed_out: bool) -> Answers:
        commands = self._batch.commands
        answers = Answers(too_large=self._too_large, limit=self._limit, timed_out=timed_out)
        for command, receipt in self._receipts:
            if receipt.taken:
                answers.taken.append(command)
            elif receipt.refused:
                answers.refused.append(command)
            else:
                session_lost = session_lost or receipt.answered
                answers.unanswered.append(command)
        answers.unanswered += commands[len(self._receipts) + len(self._too_large) :]
        answers.session_lost = session_lost and not timed_out
        usual = "refused by the broker" if answers.refused else "the connection ended before the broker acknowledged it"
        answers.problem = self._problem or self._limit or usual
        return answers
