"""Completion of names that the server knows: campaigns, groups, firmware, devices; and of contexts.

A shell asks while a person types. So an answer takes at most a second, and an error is an empty answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import typer

from rollwave.client.text import visible

TIMEOUT_SECONDS = 1.0
"""Maximum time for the server to answer."""

MAX_NAMES = 100

Named: TypeAlias = tuple[str, str]
"""What a shell inserts, and a description, which zsh and fish show beside it."""


def campaign_ids(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Ids of campaigns, newest first, with their names."""
    return _asked(ctx, incomplete, "/ota/campaigns", "campaigns", _campaign)


def group_ids(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Ids of device groups, with their sizes."""
    return _asked(
        ctx, incomplete, "/device-groups", "device_groups", lambda row: (row["group_id"], f"{row['total']:,} devices")
    )


def firmware_versions(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Versions of firmware, newest first, with their device types."""
    return _asked(
        ctx,
        incomplete,
        "/firmware",
        "firmware_versions",
        lambda row: (row["version"], row.get("device_type") or "any device type"),
    )


def device_ids(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Ids of devices, with their versions."""
    select = {"select": f"device_id like '{incomplete}*'"} if incomplete and "'" not in incomplete else {}
    return _asked(ctx, incomplete, "/devices", "devices", lambda row: (row["device_id"], row["version"] or ""), select)


def campaign_devices(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Ids of the devices of the campaign that stands before, with their states."""
    campaign = ctx.params.get("campaign_id")
    path = f"/ota/campaigns/{campaign}/devices"
    return _asked(ctx, incomplete, path, "devices", lambda row: (row["device_id"], row["status"]))


def policy_names(ctx: typer.Context, incomplete: str) -> list[Named]:
    """Names of the presets and of the stored policies."""
    answer = _answer(ctx, "/ota/policies", {})
    presets = [(name, "preset") for name in answer.get("presets", ())]
    return _fitting(incomplete, [*presets, *((row["name"], "stored") for row in answer.get("policies", ()))])


def context_names(_ctx: typer.Context, incomplete: str) -> list[Named]:
    """Names of the contexts, with their URLs."""
    with suppress(Exception):
        from rollwave.client.contexts import Contexts
        from rollwave.settings import config_folder

        return _fitting(incomplete, [(each.name, each.url) for each in Contexts.read(config_folder()).by_name.values()])
    return []


def _campaign(row: Mapping[str, Any]) -> Named:
    return str(row["id"]), f"{row['name'] or 'campaign'}, {row['status']}"


def _asked(
    ctx: typer.Context,
    incomplete: str,
    path: str,
    key: str,
    name: Callable[[Mapping[str, Any]], Named],
    query: Mapping[str, str] | None = None,
) -> list[Named]:
    with suppress(Exception):
        return _fitting(incomplete, [name(row) for row in _answer(ctx, path, query or {}).get(key, ())])
    return []


def _answer(ctx: typer.Context, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
    """What the server answers; nothing, if it does not answer in time."""
    from rollwave.cli.client import chosen_target, client_of

    logging.disable(logging.CRITICAL)
    given = (ctx.params.get(name) for name in ("context", "api_url", "api_key"))
    with suppress(Exception), client_of(chosen_target(*given), timeout=TIMEOUT_SECONDS) as api:
        answer: Mapping[str, Any] = api.get(path, **query, limit=MAX_NAMES)
        return answer
    return {}


def _fitting(incomplete: str, names: Iterable[Named]) -> list[Named]:
    return [(visible(name), visible(about)) for name, about in names if name.startswith(incomplete)]
