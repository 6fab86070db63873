"""Reports on their way to the broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rollwave.device.decide import Job
from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.errors import BrokerUnavailable
from rollwave.mqtt.client import Session
from rollwave.mqtt.payload import encode_report

_ACKNOWLEDGED_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One report. ``progress`` is 0 to 100 or None."""

    campaign_id: int
    attempt: int | None
    status: ExecutionStatus
    progress: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, job: Job, progress: int | None = None) -> Outgoing:
        """What there is to say of ``job``."""
        return cls(job.command.campaign_id, job.attempt, job.status, progress, job.error)

    @property
    def final(self) -> bool:
        """Whether this is an attempt's outcome."""
        return self.status in TERMINAL

    def encode(self) -> bytes:
        """The body on the wire."""
        return encode_report(self.campaign_id, self.status, self.progress, self.error, self.attempt)


class Outbox:
    """Reports in the order they are to be sent. Of each status only the newest waits for the broker."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._reports: dict[tuple[int, ExecutionStatus], Outgoing] = {}
        self._filled = asyncio.Event()

    def put(self, report: Outgoing) -> None:
        """Have ``report`` sent, now or when the broker is back."""
        key = report.campaign_id, report.status
        self._reports.pop(key, None)
        self._reports[key] = report
        self._filled.set()

    async def send_next(self, session: Session) -> Outgoing:
        """Wait for a report, send it, and return it once the broker has acknowledged it.

        Raises:
            BrokerUnavailable: it may or may not have arrived; it stays here and is sent again.
        """
        await self._filled.wait()
        key, report = next(iter(self._reports.items()))
        receipt = await session.publish(self._topic, report.encode())
        try:
            async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
                await receipt.acknowledged()
        except TimeoutError:
            raise BrokerUnavailable("the broker does not acknowledge reports") from None
        if self._reports.get(key) is report:
            del self._reports[key]
            if not self._reports:
                self._filled.clear()
        return report
