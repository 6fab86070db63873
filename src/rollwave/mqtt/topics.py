"""Topics, both ways. Tenant and device are read from the topic, never from a payload."""

from __future__ import annotations

from rollwave.domain.ids import DeviceId, TenantId, is_valid_id

STATUS_FILTER = "tenant/+/device/+/ota/status"
ASK_FILTER = "tenant/+/device/+/ota/get"
DROPPED = "$SYS/broker/publish/messages/dropped"
"""Where Mosquitto counts what it has dropped."""


def command_topic(tenant_id: str, device_id: str) -> str:
    """Where the engine sends a device its command."""
    return f"tenant/{tenant_id}/device/{device_id}/ota"


def status_topic(tenant_id: str, device_id: str) -> str:
    """Where a device reports."""
    return f"tenant/{tenant_id}/device/{device_id}/ota/status"


def ask_topic(tenant_id: str, device_id: str) -> str:
    """Where a device asks, with an empty message, what it should be doing."""
    return f"tenant/{tenant_id}/device/{device_id}/ota/get"


def parse_status_topic(topic: str) -> tuple[TenantId, DeviceId] | None:
    """Tenant and device of a report's topic, or None when it is not such a topic."""
    return _parse(topic, "status")


def parse_ask_topic(topic: str) -> tuple[TenantId, DeviceId] | None:
    """Tenant and device of a question's topic, or None when it is not such a topic."""
    return _parse(topic, "get")


def _parse(topic: str, kind: str) -> tuple[TenantId, DeviceId] | None:
    match topic.split("/"):
        case ["tenant", tenant, "device", device, "ota", last] if (
            last == kind and is_valid_id(tenant) and is_valid_id(device)
        ):
            return TenantId(tenant), DeviceId(device)
        case _:
            return None
