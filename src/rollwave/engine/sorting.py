"""A batch of messages, sorted: whose reports, whose questions, and what is neither or need not be written."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rollwave.domain import report
from rollwave.domain.chatter import Talk, charged
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.intake import Outcome
from rollwave.domain.report import Report
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.topics import parse_ask_topic, parse_status_topic
from rollwave.store.quarantine import Sample

_log = get_logger("listener")

SAMPLES = 5
"""Bad messages that a batch keeps for a tenant, that one device has kept at once, and that are logged a second of
each kind; the rest are counted."""

SAMPLE_EVERY = 10.0
"""Seconds after which a device that has had its samples kept may have another one."""

DEVICES = 100_000
"""Devices of which it is remembered what they said last. One that is forgotten is written as if it were new."""


@dataclass(slots=True)
class Share:
    """One tenant's share of a batch."""

    reports: list[tuple[DeviceId, Report]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


class Sorter:
    """Sorts one batch after the other, and remembers of each device what it said last.

    Its clock is the process's: it decides what is not worth writing, never a lease or a deadline.
    """

    def __init__(self, on_question: Callable[[TenantId, DeviceId], None] | None = None) -> None:
        self._on_question = on_question
        self._logged: dict[Outcome, float] = {}

        @lru_cache(maxsize=DEVICES)
        def talk(_tenant_id: TenantId, _device_id: DeviceId) -> Talk:
            return Talk()

        self._talk = talk

    def forget(self) -> None:
        """Forget what devices have said."""
        self._talk.cache_clear()

    def sort(self, batch: Sequence[Incoming], outcomes: Counter[Outcome], *, behind: bool) -> dict[TenantId, Share]:
        """Who said what. The rest is counted here, and a few bad messages are logged and kept.

        ``behind``: more comes than can be written, so that what need not be written is not.
        """
        shares: dict[TenantId, Share] = defaultdict(Share)
        now = time.monotonic()
        for incoming in batch:
            if incoming.retain:
                outcomes[Outcome.RETAINED] += 1
            elif source := parse_status_topic(incoming.topic):
                tenant_id, device_id = source
                said = report.parse(incoming.payload)
                if isinstance(said, Report):
                    left_out = self._talk(tenant_id, device_id).hear(said, now=now, behind=behind)
                    if left_out is None:
                        shares[tenant_id].reports.append((device_id, said))
                    else:
                        outcomes[left_out] += 1
                elif isinstance(said, report.Rejected):
                    self._turn_away(tenant_id, device_id, said, incoming.payload, shares, outcomes)
                else:
                    outcomes[Outcome.EMPTY] += 1
            elif self._on_question and (asking := parse_ask_topic(incoming.topic)):
                outcomes[Outcome.QUESTION] += 1
                self._on_question(*asking)
            else:
                self._reject(Outcome.BAD_TOPIC, outcomes, topic=incoming.topic[:200])
        return shares

    def wrote(self, tenant_id: TenantId, device_id: DeviceId, said: Report, *, at: float, patience: float) -> None:
        """Remember that ``said`` changed its execution, ``at`` the latest, by this process's monotonic clock."""
        self._talk(tenant_id, device_id).wrote(said, at=at, patience=patience)

    def may_log(self, kind: Outcome) -> bool:
        """Whether one more of this kind may be logged."""
        account = charged(self._logged.get(kind, 0.0), time.monotonic(), every=1 / SAMPLES, burst=SAMPLES)
        if account is not None:
            self._logged[kind] = account
        return account is not None

    def _turn_away(
        self,
        tenant_id: TenantId,
        device_id: DeviceId,
        said: report.Rejected,
        payload: bytes,
        shares: dict[TenantId, Share],
        outcomes: Counter[Outcome],
    ) -> None:
        kind = Outcome.BAD_PAYLOAD if said.undecodable else Outcome.INVALID
        talk = self._talk(tenant_id, device_id)
        if not talk.may_be_sampled(time.monotonic(), every=SAMPLE_EVERY, burst=SAMPLES):
            outcomes[kind] += 1
            return
        self._reject(kind, outcomes, tenant_id=tenant_id, device_id=device_id, reason=said.reason)
        if len(shares[tenant_id].samples) < SAMPLES:
            shares[tenant_id].samples.append(Sample(device_id, said.reason, payload))

    def _reject(self, kind: Outcome, outcomes: Counter[Outcome], **fields: object) -> None:
        outcomes[kind] += 1
        if self.may_log(kind):
            _log.warning(f"ota_status_{kind.value}", **fields)
