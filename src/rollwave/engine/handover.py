"""A batch over one session: every command handed to it before the lease ends, and every answer waited for."""

from __future__ import annotations

import asyncio
import time

from rollwave.engine.batch import Batch, Sent
from rollwave.engine.failpoints import Failpoint, reach
from rollwave.engine.precedence import Precedence
from rollwave.errors import BrokerUnavailable, MessageTooLarge
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.topics import command_topic
from rollwave.store.campaigns import Due
from rollwave.store.executions import Claimed

AT_ONCE = 50
"""Commands handed over before others in this process get their turn: each answer of the database waits for it."""


class Handover:
    """One batch on its way over one session."""

    def __init__(self, session: Session, due: Due, batch: Batch, precedence: Precedence) -> None:
        self._session = session
        self._due = due
        self._batch = batch
        self._precedence = precedence
        self._receipts: list[tuple[Claimed, Receipt]] = []
        self._too_large: list[Claimed] = []
        self._trouble = self._limit = ""

    async def run(self, patience: float, handed: asyncio.Event | None = None) -> Sent:
        """Publish, set ``handed``, and wait for the answers, for ``patience`` seconds in all. Raises nothing of ours.

        Where the result is ``slow``, the session is to be aborted: what is still queued in it must not go out late.
        """
        slow = lost = False
        try:
            async with asyncio.timeout(patience):
                await self._hand_over()
                if handed is not None:
                    handed.set()
                for _, receipt in self._receipts:
                    if not receipt.answered:  # the broker answers in order: one wait is for many
                        await receipt.settled()
        except BrokerUnavailable as error:
            self._trouble, lost = str(error), True
        except TimeoutError:
            self._trouble, slow = f"the broker did not acknowledge within {patience:.0f} s", True
        return self._sorted(lost=lost, slow=slow)

    async def _hand_over(self) -> None:
        """Put every command into the session's queue, and its receipt beside it."""
        batch, tenant_id, publish = self._batch, self._due.tenant_id, self._session.publish
        expires_in, receipts = batch.times.answer, self._receipts
        for number, command in enumerate(batch.commands, start=1):
            if time.monotonic() >= batch.lease_ends:
                self._trouble = "the lease ended"
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
            if number % AT_ONCE == 0:
                await self._precedence.give_way()

    def _sorted(self, *, lost: bool, slow: bool) -> Sent:
        commands = self._batch.commands
        sent = Sent(too_large=self._too_large, limit=self._limit, slow=slow)
        for command, receipt in self._receipts:
            if receipt.taken:
                sent.taken.append(command)
            elif receipt.refused:
                sent.refused.append(command)
            else:
                lost = lost or receipt.answered
                sent.unanswered.append(command)
        sent.unanswered += commands[len(self._receipts) + len(self._too_large) :]
        sent.lost = lost and not slow
        told = "refused by the broker" if sent.refused else "the connection ended before the broker acknowledged it"
        sent.trouble = self._trouble or self._limit or told
        return sent
