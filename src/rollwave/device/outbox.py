"""Reports on their way to the broker."""

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

_ACKNOWLEDGED_WITHIN = 30.0
_FEW = 100
_PATIENCE = 2
"""Sessions in a row that end over a report before its length is taken for the reason."""

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

    def bodies(self) -> list[bytes]:
        """The body, and ever shorter ones for a broker that takes no more. The last has what a report must have."""
        short = replace(self, error=None if self.error is None else cut(self.error, _FEW))
        bare = Outgoing(self.campaign_id, None, self.status)
        return list(dict.fromkeys(report.encode() for report in (self, short, bare)))


class Outbox:
    """Reports in the order they are to be sent. Of each status only the newest waits for the broker.

    A report that the broker does not take holds up no other: it is said in fewer bytes, then it goes to the end of the
    line. One that is over the limit which the broker gave (MQTT 5) is dropped: the engine asks again in its time.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._reports: dict[_Key, Outgoing] = {}
        self._losses: tuple[_Key | None, int] = None, 0
        """The report over which sessions end, and how often in a row."""
        self._too_long: int | None = None
        """Bytes of a body that seem to be more than the broker takes."""
        self._filled = asyncio.Event()
        self._waits = delays()

    def put(self, report: Outgoing) -> None:
        """Have ``report`` sent, now or when the broker is back."""
        key = report.campaign_id, report.status
        self._reports.pop(key, None)
        self._reports[key] = report
        self._filled.set()

    async def send_next(self, session: Session) -> Outgoing:
        """Send reports, and return one once the broker has acknowledged it.

        Raises:
            BrokerUnavailable: it may or may not have arrived; it stays here and is sent again.
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
            finally:  # also when cancelled, which is how the end of a session may come here
                if not (receipt.taken or receipt.refused):
                    self._lost(key, report, body)
            if taken:
                self._losses, self._waits = (None, 0), delays()
                self._done(key, report)
                return report
            await self._refused(key, report)

    async def _hand_over(self, session: Session, report: Outgoing) -> tuple[bytes, Receipt | None]:
        """The body that the session has taken, and its receipt. None: even the shortest is over the broker's limit."""
        *longer, shortest = report.bodies()
        for body in (*(each for each in longer if self._too_long is None or len(each) < self._too_long), shortest):
            try:
                return body, await session.publish(self._topic, body)
            except BrokerUnavailable:
                if not session.connected:
                    raise
        return shortest, None

    def _lost(self, key: _Key, report: Outgoing, body: bytes) -> None:
        """The session ended over ``report``: by chance, or as MQTT 3.1.1 cannot say otherwise that it is too long."""
        over, times = self._losses
        times = times + 1 if over == key else 1
        if times == _PATIENCE:
            times = 0
            if body != report.bodies()[-1]:
                self._too_long = len(body)
                _log.warning("device_report_shortened", campaign_id=report.campaign_id, bytes=len(body))
            elif key in self._reports:
                self._reports[key] = self._reports.pop(key)
        self._losses = key, times

    async def _refused(self, key: _Key, report: Outgoing) -> None:
        """An outcome is said again, after the others and some time; what comes before it is not worth that."""
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
    """False: the broker refused it.

    Raises:
        BrokerUnavailable: it did not answer.
    """
    try:
        async with asyncio.timeout(_ACKNOWLEDGED_WITHIN):
            await receipt.acknowledged()
    except TimeoutError:
        raise BrokerUnavailable("the broker does not acknowledge reports") from None
    except BrokerUnavailable:
        if not receipt.refused:
            raise
        return False
    return True
