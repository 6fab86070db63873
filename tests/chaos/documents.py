"""Policy documents drawn at random for a schedule, and what operators do to the campaigns that follow them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from rollwave.domain.policy.words import GateName
from tests.engine import Connection

Json: TypeAlias = dict[str, Any]

FILE_BYTES = 1000
"""Size of the firmware."""

ZONES = ("UTC", "Asia/Kolkata", "America/New_York")

BUDGETS = "BUDGET" in GateName.__members__


class Act(StrEnum):
    """What an operator does."""

    HALT = "halt"
    FREEZE = "freeze"
    PROMOTE = "promote"
    RELEASE = "release"
    EDIT = "edit"
    RETRY = "retry"
    PAUSE_AND_START = "pause and start"
    EDIT_ZONES = "edit the windows of zones"
    EDIT_GROUPS = "edit the labels of guardrails"
    EDIT_THRESHOLDS = "edit thresholds"
    EDIT_BUDGETS = "edit budgets"
    EDIT_WAVES = "edit later waves"
    WAIT = "wait"


EDITS = {each for each in Act if each.name.startswith("EDIT_")}
FIRST_ACTS = [Act.HALT, Act.FREEZE, Act.PROMOTE, Act.RELEASE, Act.EDIT, Act.RETRY]
"""The acts of lower seeds, which draw the same schedules as ever."""


def attributes_of(device: int) -> dict[str, str]:
    """The attributes of a device in the registry."""
    return {
        "ring": "canary" if device % 6 == 0 else "main",
        "site": f"s{device % 4}",
        "hardware_revision": "ab"[device % 3 == 0],
        "time_zone": ZONES[device % len(ZONES)],
    }


def draw_document(dice: random.Random, now: datetime, *, all_bad: bool, loses: bool) -> Json:
    """A document. ``all_bad``: each device fails, and a guardrail aborts. ``loses``: the broker may lose messages."""
    document: Json = {"version": 1, "guardrails": _guardrails(dice, all_bad=all_bad)}
    if waves := _waves(dice):
        document["waves"] = waves
    if pace := _pace(dice):
        document["pace"] = pace
    if dice.random() < 0.6:
        document["order"] = dice.choice(["hash", "id", "label:site"])
    if schedule := _schedule(dice, now):
        document["schedule"] = schedule
    budgets = [{"name": "sites", "per": "site", "max_in_flight": dice.randint(1, 2)}] if dice.random() < 0.4 else []
    if budgets and BUDGETS:
        document["budgets"] = budgets
    if not loses and dice.random() < 0.4:
        document["retry"] = {"on": ["reported", "rejected"], "max_attempts": 2, "delay": "0.5s"}
    return document


def edited(dice: random.Random, before: Mapping[str, Any], now: datetime, *, loses: bool) -> Json:
    """Another document with the same waves and the same guardrail that aborts, if there is one."""
    document = draw_document(dice, now, all_bad=False, loses=loses)
    document.pop("waves", None)
    if "waves" in before:
        document["waves"] = before["waves"]
    if _aborts(before):
        document["guardrails"] = before["guardrails"]
    return document


def changed(dice: random.Random, act: Act, before: Mapping[str, Any], now: datetime) -> Json:
    """The same document with one part changed, as an operator edits it."""
    document: Json = json.loads(json.dumps(before))
    rules: list[Json] = document["guardrails"]
    if act is Act.EDIT_ZONES:
        document["schedule"] = {**document.get("schedule", {}), "windows": _windows_of_zones(dice, now)}
    elif act is Act.EDIT_GROUPS and not _aborts(before):
        per = dice.choice([["hardware_revision"], ["site"], ["ring"], ["hardware_revision", "ring"], ["time_zone"]])
        grouped = {"name": "groups", "threshold": "10%", "scope": "segment", "per": per, "min_finished": 3}
        document["guardrails"] = [each for each in rules if each["name"] != "groups"]
        document["guardrails"].append({**grouped, "action": dice.choice(["quarantine", "quarantine", "pause"])})
    elif act is Act.EDIT_THRESHOLDS and not _aborts(before):
        for each in rules:
            each["threshold"] = dice.choice(["1%", "5%", "12%", "30%", "60%"])
    elif act is Act.EDIT_BUDGETS:
        labels = dice.sample(["site", "hardware_revision", "ring"], dice.randint(0, 2))
        document["budgets"] = [{"name": each, "per": each, "max_in_flight": dice.randint(1, 4)} for each in labels]
    elif act is Act.EDIT_WAVES and "waves" in document:
        [*first, rest] = document["waves"]
        more = [{"name": "more", "size": dice.choice([2, "20%"]), "gate": _gate(dice)}]
        document["waves"] = [*first, *(more if all(each["name"] != "more" for each in first) else ()), rest]
    return document


def _aborts(document: Mapping[str, Any]) -> bool:
    return any(each["action"] == "abort" for each in document["guardrails"])


def _windows_of_zones(dice: random.Random, now: datetime) -> list[Json]:
    """Windows that are open now in some of the zones only, or closed in one of them."""
    kind, zones = dice.choice([("allow", 2), ("allow", 1), ("deny", 1)])
    windows = []
    for zone in dice.sample(ZONES, zones):
        local = now.astimezone(ZoneInfo(zone)) - timedelta(minutes=1)
        cron, name = f"{local.minute} {local.hour} * * *", f"{kind} {zone.split('/')[-1].lower()}"
        windows.append({"name": name, "kind": kind, "cron": cron, "duration": "1h", "time_zone": "device"})
    return windows


def without_windows(document: Mapping[str, Any]) -> Json:
    """The same document, with which devices may be sent to at any time."""
    return {key: value for key, value in document.items() if key != "schedule"}


async def insert_document(host: Connection, tenant: str, campaign: int, document: Json) -> None:
    """Insert the document of a campaign, and its devices into the registry, as a host does."""
    await host.execute("UPDATE firmware_versions SET file_size_bytes = $2 WHERE tenant_id = $1", tenant, FILE_BYTES)
    await host.execute(
        "INSERT INTO ota_campaign_policies (tenant_id, campaign_id, revision, document)"
        " VALUES ($1, $2, 1, $3::text::jsonb)",
        *(tenant, campaign, json.dumps(document)),
    )
    names = [
        row["device_id"]
        for row in await host.fetch("SELECT device_id FROM ota_device_status WHERE campaign_id = $1", campaign)
    ]
    attributes = [json.dumps(attributes_of(int(name.removeprefix("dev-")))) for name in names]
    await host.execute(
        "INSERT INTO devices (tenant_id, device_id, attributes)"
        " SELECT $1, d.name, d.attributes::jsonb FROM unnest($2::text[], $3::text[]) AS d (name, attributes)",
        *(tenant, names, attributes),
    )


def _waves(dice: random.Random) -> list[Json]:
    if dice.random() < 0.25:
        return []
    first: Json = {"name": "canary", "gate": _gate(dice)}
    if dice.random() < 0.5:
        first["select"] = "ring == canary"
    if "select" not in first or dice.random() < 0.3:
        first["size"] = dice.choice([3, 5, "10%"])
    waves = [first]
    if dice.random() < 0.5:
        waves.append({"name": "early", "size": dice.choice([4, "25%"]), "gate": _gate(dice)})
    for each in waves:
        if dice.random() < 0.3:
            each["max_in_flight"] = dice.randint(1, 4)
    return [*waves, {"name": "rest"}]


def _gate(dice: random.Random) -> Json:
    gate: Json = {}
    if dice.random() < 0.5:
        gate["min_finished"] = dice.choice([1, "50%", "80%"])
    if dice.random() < 0.5:
        gate["success_rate"] = dice.choice(["50%", "80%", "95%"])
    if dice.random() < 0.4:
        gate["soak"] = dice.choice(["0.5s", "1s", "2s"])
    if dice.random() < 0.15:
        gate["approval"] = True
    return gate


def _pace(dice: random.Random) -> Json:
    pace: Json = {}
    if dice.random() < 0.6:
        pace["per_minute"] = dice.choice([600, 1200, 2400])
        if dice.random() < 0.4:
            pace["ramp"] = {"from": 240, "factor": 2, "every_succeeded": 5}
    if dice.random() < 0.5:
        pace["max_in_flight"] = dice.choice([2, 5, 15])
    if dice.random() < 0.25:
        pace["bytes"] = {"in_flight": f"{dice.choice([500, 4500])}B"}
    return pace


def _guardrails(dice: random.Random, *, all_bad: bool) -> list[Json]:
    if all_bad:
        return [{"name": "bad", "threshold": "10%", "min_finished": dice.randint(1, 5), "action": "abort"}]
    kinds: list[Json] = [
        {"name": "many", "threshold": "15%", "min_finished": 5, "action": "pause"},
        {"name": "often", "threshold": "5%", "method": "sequential", "alpha": 0.2, "action": "pause"},
        {"name": "wave", "threshold": "20%", "scope": "wave", "min_finished": 3, "action": "pause"},
        {
            "name": "revision", "threshold": "10%", "scope": "segment", "per": ["hardware_revision"],
            "min_finished": 3, "action": "quarantine",
        },
        {
            "name": "site", "threshold": "5%", "method": "sequential", "alpha": 0.3, "scope": "segment",
            "per": ["site"], "min_finished": 2, "action": "quarantine",
        },
    ]  # fmt: skip
    return dice.sample(kinds, dice.randint(0, 3))


def _schedule(dice: random.Random, now: datetime) -> Json:
    if dice.random() < 0.4:
        return {}
    schedule: Json = {}
    if dice.random() < 0.3:
        schedule["start"] = _time(now + timedelta(seconds=dice.uniform(0, 2)))
    begins = now + timedelta(seconds=dice.uniform(0.5, 4))
    windows: list[Json] = [
        {"name": "deny", "kind": "deny", "start": _time(begins), "end": _time(begins + timedelta(seconds=2))},
        {
            "name": "now",
            "kind": "allow",
            "start": _time(now - timedelta(hours=1)),
            "end": _time(begins),
            "cutoff": "0.2s",
        },
        {"name": "local", "kind": "allow", "cron": f"0 {now.hour} * * *", "duration": "1h", "time_zone": "device"},
        {"name": "minutes", "kind": "allow", "cron": "* * * * *", "duration": "40s"},
    ]
    if chosen := dice.sample(windows, dice.randint(0, 3)):
        schedule["windows"] = chosen
    return schedule


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
