"""Classifies the messages of a batch: each tenant's reports, questions, and messages that are not written."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.reports import parse
from rollwave.domain.reports.outcome import DeviceThrottle, Outcome, charged
from rollwave.domain.reports.parse import DeviceReport, Report
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.topics import parse_ask_topic, parse_status_topic
from rollwave.store.quarantine import Sample

_log = get_logger("listener")

MAX_SAMPLES = 5
"""Maximum numbers of invalid messages: kept per batch and tenant, kept per device at once, and logged per second and
kind. The others are only counted."""

SAMPLE_EVERY_SECONDS = 10.0
"""Seconds after which another invalid message of the same device may be kept."""

MAX_DEVICES_REMEMBERED = 100_000
"""Maximum number of devices whose last reports are remembered. The next report of any other device is written."""

LOG_EVERY_SECONDS = 60.0
"""Minimum number of seconds between two log lines for one campaign."""

MAX_CAMPAIGNS_REMEMBERED = 1000
"""Maximum number of campaigns whose last log line is remembered. The next report of any other campaign is logged."""

UNSENT_HINT = (
    "The campaign has not sent this device its command, so the report changes nothing. "
    "Does another system send commands with this campaign id, or was the database restored from a backup?"
)


@dataclass(slots=True)
class Share:
    """One tenant's share of a batch."""

    reports: list[DeviceReport] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


class Classifier:
    """Classifies one batch after the other, and remembers the last reports of each device.

    It uses the process's clock, and only to drop repetitions, never for a lease or a deadline.
    """

    def __init__(self, on_question: Callable[[TenantId, DeviceId], None] | None = None) -> None:
        self._on_question = on_question
        self._logged: dict[Outcome, float] = {}

        @lru_cache(maxsize=MAX_DEVICES_REMEMBERED)
        def throttle_of(_tenant_id: TenantId, _device_id: DeviceId) -> DeviceThrottle:
            return DeviceThrottle()

        self._throttle_of = throttle_of

    def forget(self) -> None:
        """Forget what devices have reported."""
        self._throttle_of.cache_clear()

    def classify(self, batch: Sequence[Incoming], outcomes: Counter[Outcome], *, behind: bool) -> dict[TenantId, Share]:
        """Each tenant's share. Other messages are counted in ``outcomes``; some invalid ones are logged and kept.

        ``behind``: reports arrive faster than they can be written, so repetitions are dropped.
        """
        shares: dict[TenantId, Share] = defaultdict(Share)
        now = time.monotonic()
        for incoming in batch:
            if incoming.retain:
                outcomes[Outcome.RETAINED] += 1
            elif source := parse_status_topic(incoming.topic):
                tenant_id, device_id = source
                said = parse.parse(incoming.payload)
                if isinstance(said, Report):
                    left_out = self._throttle_of(tenant_id, device_id).hear(said, now=now, behind=behind)
                    if left_out is None:
                        shares[tenant_id].reports.append(DeviceReport(device_id, said))
                    else:
                        outcomes[left_out] += 1
                elif isinstance(said, parse.Rejected):
                    self._turn_away(tenant_id, device_id, said, incoming.payload, shares, outcomes)
                else:
                    outcomes[Outcome.EMPTY] += 1
            elif self._on_question and (asking := parse_ask_topic(incoming.topic)):
                outcomes[Outcome.QUESTION] += 1
                self._on_question(*asking)
            else:
                self._reject(Outcome.BAD_TOPIC, outcomes, topic=incoming.topic[:200])
        return shares

    def wrote(
        self, tenant_id: TenantId, device_id: DeviceId, said: Report, *, at: float, progress_timeout: float
    ) -> None:
        """Note that report ``said`` changed its execution before ``at``, a time of this process's monotonic clock."""
        self._throttle_of(tenant_id, device_id).wrote(said, at=at, progress_timeout=progress_timeout)

    def may_log(self, kind: Outcome) -> bool:
        """Whether another message of this kind may be logged."""
        account = charged(self._logged.get(kind, 0.0), time.monotonic(), every=1 / MAX_SAMPLES, burst=MAX_SAMPLES)
        if account is not None:
            self._logged[kind] = account
        return account is not None

    def _turn_away(
        self,
        tenant_id: TenantId,
        device_id: DeviceId,
        said: parse.Rejected,
        payload: bytes,
        shares: dict[TenantId, Share],
        outcomes: Counter[Outcome],
    ) -> None:
        kind = Outcome.BAD_PAYLOAD if said.undecodable else Outcome.INVALID
        throttle = self._throttle_of(tenant_id, device_id)
        if not throttle.may_be_sampled(time.monotonic(), every=SAMPLE_EVERY_SECONDS, burst=MAX_SAMPLES):
            outcomes[kind] += 1
            return
        self._reject(kind, outcomes, tenant_id=tenant_id, device_id=device_id, reason=said.reason)
        if len(shares[tenant_id].samples) < MAX_SAMPLES:
            shares[tenant_id].samples.append(Sample(device_id, said.reason, payload))

    def _reject(self, kind: Outcome, outcomes: Counter[Outcome], **fields: object) -> None:
        outcomes[kind] += 1
        if self.may_log(kind):
            _log.warning(f"ota_status_{kind.value}", **fields)


@dataclass(slots=True)
class _Campaign:
    reports: int = 0
    logged_at: float = -inf


class ReportsOfUnsentDevices:
    """Counts reports of devices that were not sent to, by campaign. Logs the first one, then at most one per minute."""

    def __init__(self) -> None:
        self._campaigns: dict[tuple[TenantId, int], _Campaign] = {}

    def note(self, tenant_id: TenantId, device_id: DeviceId, said: Report) -> None:
        """Count a report. ``reports`` in the log is the number since the previous line."""
        now = time.monotonic()
        campaign = self._of(tenant_id, said.campaign_id)
        campaign.reports += 1
        if now - campaign.logged_at < LOG_EVERY_SECONDS:
            return
        _log.warning(
            "ota_status_not_sent",
            campaign_id=said.campaign_id,
            tenant_id=tenant_id,
            device_id=device_id,
            status=said.status.value,
            reports=campaign.reports,
            hint=UNSENT_HINT,
        )
        campaign.reports, campaign.logged_at = 0, now

    def _of(self, tenant_id: TenantId, campaign_id: int) -> _Campaign:
        key = tenant_id, campaign_id
        if key not in self._campaigns and len(self._campaigns) >= MAX_CAMPAIGNS_REMEMBERED:
            del self._campaigns[next(iter(self._campaigns))]
        return self._campaigns.setdefault(key, _Campaign())
