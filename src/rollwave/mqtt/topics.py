"""The topics of commands, reports and questions. Tenant and device are read from the topic, never from a payload."""

from __future__ import annotations

import re
from typing import NamedTuple

from rollwave.domain.ids import MAX_ID_CHARACTERS, DeviceId, TenantId, is_valid_id

STATUS_FILTER = "tenant/+/device/+/ota/status"
ASK_FILTER = "tenant/+/device/+/ota/get"
DROPPED = "$SYS/broker/publish/messages/dropped"
"""The topic on which Mosquitto publishes how many messages it has dropped."""

_LEVEL = f"([^/]{{1,{MAX_ID_CHARACTERS}}})"
_STATUS, _ASK = (re.compile(f"tenant/{_LEVEL}/device/{_LEVEL}/ota/{last}") for last in ("status", "get"))


class Source(NamedTuple):
    """The device that a message comes from, by its topic."""

    tenant_id: TenantId
    device_id: DeviceId


def command_topic(tenant_id: str, device_id: str) -> str:
    """The topic on which the engine sends a device its command."""
    return f"tenant/{tenant_id}/device/{device_id}/ota"


def status_topic(tenant_id: str, device_id: str) -> str:
    """The topic on which a device reports."""
    return f"tenant/{tenant_id}/device/{device_id}/ota/status"


def ask_topic(tenant_id: str, device_id: str) -> str:
    """The topic on which a device asks, with an empty message, what it should do."""
    return f"tenant/{tenant_id}/device/{device_id}/ota/get"


def parse_status_topic(topic: str) -> Source | None:
    """Tenant and device of a report's topic; None: it is not the topic of a report."""
    return _parse(topic, _STATUS)


def parse_ask_topic(topic: str) -> Source | None:
    """Tenant and device of a question's topic; None: it is not the topic of a question."""
    return _parse(topic, _ASK)


def _parse(topic: str, pattern: re.Pattern[str]) -> Source | None:
    found = pattern.fullmatch(topic)
    if found is None:
        return None
    tenant_id, device_id = found.groups()
    return (
        Source(TenantId(tenant_id), DeviceId(device_id)) if is_valid_id(tenant_id) and is_valid_id(device_id) else None
    )
