"""A batch of messages, sorted: whose reports, whose questions, and what is neither."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rollwave.domain import report
from rollwave.domain.ids import DeviceId, TenantId
from rollwave.domain.intake import Outcome
from rollwave.domain.report import Report
from rollwave.log import get_logger
from rollwave.mqtt.client import Incoming
from rollwave.mqtt.topics import parse_ask_topic, parse_status_topic
from rollwave.store.quarantine import Sample

_log = get_logger("listener")

SAMPLES = 5
"""Bad messages of one kind that a batch logs and keeps for a tenant; the rest are counted."""


@dataclass(slots=True)
class Share:
    """One tenant's share of a batch."""

    reports: list[tuple[DeviceId, Report]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def sort(
    batch: Sequence[Incoming],
    outcomes: Counter[Outcome],
    on_question: Callable[[TenantId, DeviceId], None] | None,
) -> dict[TenantId, Share]:
    """Who said what. What is no report is counted here, and a few of each kind are logged and kept."""
    shares: dict[TenantId, Share] = defaultdict(Share)
    for incoming in batch:
        source = parse_status_topic(incoming.topic)
        if incoming.retain:
            outcomes[Outcome.RETAINED] += 1
        elif on_question and (asking := parse_ask_topic(incoming.topic)):
            outcomes[Outcome.QUESTION] += 1
            on_question(*asking)
        elif source is None:
            _reject(Outcome.BAD_TOPIC, outcomes, topic=incoming.topic[:200])
        else:
            tenant_id, device_id = source
            said = report.parse(incoming.payload)
            if isinstance(said, Report):
                shares[tenant_id].reports.append((device_id, said))
            elif isinstance(said, report.Rejected):
                kind = Outcome.BAD_PAYLOAD if said.undecodable else Outcome.INVALID
                _reject(kind, outcomes, tenant_id=tenant_id, device_id=device_id, reason=said.reason)
                if len(shares[tenant_id].samples) < SAMPLES:
                    shares[tenant_id].samples.append(Sample(device_id, said.reason, incoming.payload))
            else:
                outcomes[Outcome.EMPTY] += 1
    return shares


def _reject(kind: Outcome, outcomes: Counter[Outcome], **fields: object) -> None:
    outcomes[kind] += 1
    if outcomes[kind] <= SAMPLES:
        _log.warning(f"ota_status_{kind.value}", **fields)
