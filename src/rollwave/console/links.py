"""Addresses of pages, with their filters."""

from __future__ import annotations

from urllib.parse import urlencode

from rollwave.domain.ids import in_path


def with_query(path: str, **values: object) -> str:
    """The address of a list with its filters. Empty ones are left out."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def device(device_id: str) -> str:
    """The address of a device's page."""
    return f"/console/devices/{in_path(device_id)}"


def group(group_id: str) -> str:
    """The address of a group's page."""
    return f"/console/groups/{in_path(group_id)}"


def campaign_devices(campaign_id: int, **values: object) -> str:
    """The address of the device table of a campaign's page, with its filter. Values that are None are left out."""
    given = {name: value for name, value in values.items() if value is not None}
    return f"/console/campaigns/{campaign_id}?{urlencode(given)}#devices"
