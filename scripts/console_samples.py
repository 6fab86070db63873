"""Sample campaigns for the style guide of the console: the documents that its pages draw, in every state."""

from __future__ import annotations

from typing import Any

from scripts.console_sample_parts import (
    CAUSES,
    EVENTS,
    GUARDRAILS,
    SEGMENTS,
    WAITING,
    WAVES,
    Document,
    at,
    devices_of,
    guardrail,
    wave,
)

_NO_ACTIONS: Document = {"start": False, "pause": False, "resume": False, "abort": False, "cancel": False, "retry": 0}


def _campaign(number: int, name: str | None, status: str, level: str, headline: str, **more: Any) -> Document:
    devices: Document = more.get("devices", devices_of(436, 11, 12, 812, 13, 0))
    finished = devices["SUCCESS"] + devices["FAILED"] + devices["SKIPPED"]
    ended = devices["SUCCESS"] + devices["FAILED"]
    return {
        "campaign_id": number,
        "as_of": at(0),
        "name": name,
        "status": status,
        "status_reason": None,
        "version": "2.4.1",
        "from_versions": [{"version": "2.3.0", "devices": 1100}, {"version": "2.2.4", "devices": 184}],
        "rules": "canary 50, soak 1 h, then early 250, then the rest · 120 a minute · aborts over 10 % failed",
        "headline": {"level": level, "rule": "none", "text": headline},
        "stopped_by": [],
        "devices": devices,
        "finished_share": finished / devices["total"] if devices["total"] else 0.0,
        "failure_rate": devices["FAILED"] / ended if ended else 0.0,
        "rate_per_minute": None,
        "waves": [],
        "guardrails": [],
        "segments": [],
        "forecast": {"earliest": None, "latest": None, "text": ""},
        "plan": None,
        "causes": [],
        "waiting": [],
        "events": [],
        "started_at": at(-42),
        "completed_at": None,
        "created_by": "k7f3q2",
        "created_by_name": "release engineering",
        "actions": _NO_ACTIONS,
    } | more


def campaigns() -> dict[str, Document]:
    """Overviews by the name of what they show."""
    running: Document = {
        "waves": WAVES,
        "guardrails": GUARDRAILS,
        "segments": SEGMENTS,
        "causes": CAUSES,
        "waiting": WAITING,
        "events": EVENTS,
        "rate_per_minute": 118.0,
        "plan": {"ends_at": at(6)},
        "forecast": {"earliest": at(3), "latest": at(9), "text": "ends in 3 to 9 min"},
        "actions": _NO_ACTIONS | {"pause": True, "abort": True, "cancel": True, "retry": 13},
    }
    used = [
        guardrail("failures", 0.72, 0.072, "trips after 31 more failures in a row", trips_after=31),
        *GUARDRAILS[1:],
    ]
    tripped = [
        guardrail("failures", 1.0, 0.123, "tripped at 7 of 57, 12.3 % over 10 %", tripped=True),
        *GUARDRAILS[1:2],
    ]
    quarantined = [
        SEGMENTS[0] | {"quarantined": True, "text": "revision B: in quarantine, 9 of 240 failed"},
        SEGMENTS[1],
    ]
    approval = [
        WAVES[0],
        wave(
            1,
            "early",
            250,
            250,
            246,
            4,
            "awaiting_approval",
            "early (2 of 3): waits for an approval",
            waits_for="approval",
            needs_role="approver",
        ),
        wave(2, "rest", 984, 0, 0, 0, "waiting", "rest (3 of 3): waiting"),
    ]
    halt = {
        "kind": "halt",
        "name": "halt",
        "since": at(-3),
        "until": None,
        "by": "k2",
        "reason": "devices of 2.4.1 do not boot",
    }
    return {
        "running": _campaign(
            7, "Spring release", "RUNNING", "ok", "On course: 65 % finished, 13 failed of 825.", **running
        ),
        "watch": _campaign(
            8,
            "Spring release, north",
            "RUNNING",
            "watch",
            "failures: 7.2 % of 825 failed; aborts over 10 %, after 31 more failures in a row.",
            **running | {"guardrails": used, "segments": quarantined, "devices": devices_of(436, 11, 12, 766, 59, 0)},
        ),
        "approval": _campaign(
            9,
            "Valve controllers 2.4.1",
            "RUNNING",
            "watch",
            "Wave early waits for approval since 12 min.",
            **running
            | {
                "waves": approval,
                "devices": devices_of(984, 0, 0, 296, 4, 0),
                "rate_per_minute": None,
                "forecast": {"earliest": None, "latest": None, "text": "no forecast while it waits for approval"},
            },
        ),
        "halted": _campaign(
            10,
            "Spring release",
            "RUNNING",
            "stop",
            "Halted for 3 min: nothing is sent.",
            **running | {"stopped_by": [halt], "rate_per_minute": None},
        ),
        "paused": _campaign(
            11,
            None,
            "PAUSED",
            "ok",
            "Paused 4 min ago by k7f3q2. 23 devices in progress may still finish.",
            **running
            | {
                "status_reason": "paused by an operator",
                "rate_per_minute": None,
                "actions": _NO_ACTIONS | {"resume": True, "abort": True, "cancel": True},
                "forecast": {"earliest": None, "latest": None, "text": "no forecast while paused"},
            },
        ),
        "created": _campaign(
            12,
            "Winter fix for the controllers of the valves in the north-west region, second try",
            "CREATED",
            "ok",
            "Not started.",
            devices=devices_of(18940, 0, 0, 0, 0, 0),
            started_at=None,
            actions=_NO_ACTIONS | {"start": True, "abort": True},
            events=EVENTS[-1:],
            guardrails=[guardrail("failures", 0.0, 0.0, "trips after 20 failures in a row")],
        ),
        "completed": _campaign(
            13,
            "Spring release",
            "COMPLETED",
            "ok",
            "Completed: 1,271 of 1,284 devices run 2.4.1, 13 failed.",
            **running
            | {
                "devices": devices_of(0, 0, 0, 1271, 13, 0),
                "completed_at": at(-2),
                "waiting": [],
                "rate_per_minute": None,
                "forecast": {"earliest": None, "latest": None, "text": ""},
                "actions": _NO_ACTIONS,
            },
        ),
        "aborted": _campaign(
            14,
            "Spring release",
            "ABORTED",
            "stop",
            "Aborted by the guardrail failures: tripped at 7 of 57, 12.3 % over 10 %.",
            **running
            | {
                "devices": devices_of(0, 2, 1, 50, 7, 1224),
                "status_reason": "guardrail failures: 7 of 57 failed, 12.3 % over 10 %",
                "guardrails": tripped,
                "completed_at": at(-2),
                "waiting": [],
                "rate_per_minute": None,
                "actions": _NO_ACTIONS | {"cancel": True},
                "forecast": {"earliest": None, "latest": None, "text": ""},
                "plan": None,
            },
        ),
    }
