"""The queue of a device's reports to the broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TypeAlias

from rollwave.device.backoff import delays
from rollwave.device.decide import Job
from rollwave.domain.execution import TERMINAL, ExecutionStatus
from rollwave.domain.reports.parse import cut
from rollwave.errors import BrokerUnavailable
from rollwave.log import get_logger
from rollwave.mqtt.client import Receipt, Session
from rollwave.mqtt.payload import encode_report

_ACK_TIMEOUT_SECONDS = 30.0
_SHORT_ERROR_CHARACTERS = 100
_LOST_SESSIONS = 2
"""Number of consecutive sessions lost while sending a report, after which the report is assumed to be too long."""

_Key: TypeAlias = tuple[int, ExecutionStatus]
_log = get_logger("device")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One report. ``progress`` is 0 to 100 or None."""

    campaign_id: int
    attempt: int | None
    status: ExecutionStatus
    progress: int | None = None
    error: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, job: Job, progress: int | None = None) -> Outgoing:
        """The report of the current status of ``job``."""
        return cls(job.command.campaign_id, job.attempt, job.status, progress, job.error, job.code)

    @property
    def final(self) -> bool:
        """Whether this report is the outcome of an attempt."""
        return self.status in TERMINAL

    def encode(self) -> bytes:
        """The body on the wire."""
        return encode_report(self.campaign_id, self.status, self.progress, self.error, self.attempt, code=self.code)

    def bodies(self) -> list[bytes]:
        """The body, then shorter ones for a broker with a small size limit. The last has only the required keys."""
        short = replace(self, error=None if self.error is None else cut(self.error, _SHORT_ERROR_CHARACTERS))
        bare = Outgoing(self.campaign_id, None, self.status)
        return list(dict.fromkeys(report.encode() for report in (self, short, bare)))


class Outbox:
    """A queue of reports, in the order in which they are sent. It has only the newest report of each status.

    A report that the broker refuses does not block the others: it is shortened, then moved to the end of the queue. A
    report above the broker's size limit (MQTT 5) is dropped; the engine sends the command again after its deadline.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._reports: dict[_Key, Outgoing] = {}
        self._losses: tuple[_Key | None, int] = None, 0
        """The report during which sessions were lost, and how many of them in a row."""
        self._too_long: int | None = None
        """The size in bytes of a body that seems to be above the broker's limit. None: no limit is known."""
        self._filled = asyncio.Event()
        self._waits = delays()

    def put(self, report: Outgoing) -> None:
        """Add ``report`` to the queue. It is sent now, or when the broker is available again."""
        key = report.campaign_id, report.status
        self._reports.pop(key, None)
        self._reports[key] = report
        self._filled.set()

    async def send_next(self, session: Session) -> Outgoing:
        """Send reports until the broker has acknowledged one, and return that one.

        Raises:
            BrokerUnavailable: the report may or may not have arrived. It stays in the queue, and is sent again.
        """
        while True:
            await self._filled.wait()
            key, report = next(iter(self._reports.items()))
            body, receipt = await self._hand_over(session, report)
            if receipt is None:
                _log.error("device_report_impossible", campaign_id=report.campaign_id, status=report.status.value)
                self._done(key, report)
                continue
            try:
                taken = await _acknowledged(receipt)
            finally:  # also when cancelled, as at the end of a session
                if not (receipt.taken or receipt.refused):
                    self._lost(key, report, body)
            if taken:
                self._losses, self._waits = (None, 0), delays()
                self._done(key, report)
                return report
            await self._refused(key, report)

    async def _hand_over(self, session: Session, report: Outgoing) -> tuple[bytes, Receipt | None]:
        """Publish the longest body that the session accepts; return it with its receipt.

        The receipt is None if even the shortest body is above the broker's limit.
        """
        *longer, shortest = report.bodies()
        for body in (*(each for each in longer if self._too_long is None or len(each) < self._too_long), shortest):
            try:
                return body, await session.publish(self._topic, body)
            except BrokerUnavailable:
                if not session.connected:
                    raise
        return shortest, None

    def _lost(self, key: _Key, report: Outgoing, body: bytes) -> None:
        """Handle the loss of a session while ``report`` was sent.

        It may be a coincidence, or the broker's answer to a message that is too long: MQTT 3.1.1 has no other.
        """
        last, times = self._losses
        times = times + 1 if last == key else 1
        if times == _LOST_SESSIONS:
            times = 0
            if body != report.bodies()[-1]:
                self._too_long = len(body)
                _log.warning("device_report_shortened", campaign_id=report.campaign_id, bytes=len(body))
            elif key in self._reports:
                self._reports[key] = self._reports.pop(key)
        self._losses = key, times

    async def _refused(self, key: _Key, report: Outgoing) -> None:
        """Handle a refusal: send an outcome again after a delay and after the others; drop any other report."""
        _log.warning("device_report_refused", campaign_id=report.campaign_id, status=report.status.value)
        if not report.final:
            self._done(key, report)
            return
        if key in self._reports:
            self._reports[key] = self._reports.pop(key)
        await asyncio.sleep(next(self._waits))

    def _done(self, key: _Key, report: Outgoing) -> None:
        if self._reports.get(key) is report:
            del self._reports[key]
            if not self._reports:
                self._filled.clear()


async def _acknowledged(receipt: Receipt) -> bool:
    """Whether the broker accepted the report. False: it refused.

    Raises:
        BrokerUnavailable: it did not answer in time.
    """
    try:
        async with asyncio.timeout(_ACK_TIMEOUT_SECONDS):
            await receipt.acknowledged()
    except TimeoutError:
        raise BrokerUnavailable("the broker does not acknowledge reports") from None
    except BrokerUnavailable:
        if not receipt.refused:
            raise
        return False
    return True
