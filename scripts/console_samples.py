"""Sample campaigns for the style guide of the console: the documents that its pages draw, in every state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)
STATES = ("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")
_NO_ACTIONS: Document = {"start": False, "pause": False, "resume": False, "abort": False, "cancel": False, "retry": 0}


def _at(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def _devices(*counts: int) -> Document:
    return {"total": sum(counts), **dict(zip(STATES, counts, strict=True))}


def _wave(
    number: int, name: str, size: int, sent: int, succeeded: int, failed: int, state: str, text: str, **more: object
) -> Document:
    given = {"number": number, "name": name, "size": size, "sent": sent, "succeeded": succeeded, "failed": failed}
    return {
        **given,
        "state": state,
        "text": text,
        "since": _at(-10),
        "until": None,
        "waits_for": None,
        "needs_role": None,
    } | more


def _guardrail(name: str, used: float, value: float, text: str, *, threshold: float = 0.1, **more: object) -> Document:
    return {
        "name": name,
        "scope": "campaign",
        "method": "ratio",
        "action": "abort",
        "group": "",
        "value": value,
        "limit": None,
        "threshold": threshold,
        "trips_after": None,
        "tripped": False,
        "used": used,
        "text": text,
    } | more


def _event(
    number: int, minutes: float, event: str, text: str, actor: str = "engine", device: str | None = None
) -> Document:
    return {
        "id": number,
        "at": _at(minutes),
        "event": event,
        "actor": actor,
        "device_id": device,
        "detail": {},
        "text": text,
    }


def _campaign(number: int, name: str | None, status: str, level: str, headline: str, **more: Any) -> Document:
    devices: Document = more.get("devices", _devices(436, 11, 12, 812, 13, 0))
    finished = devices["SUCCESS"] + devices["FAILED"] + devices["SKIPPED"]
    ended = devices["SUCCESS"] + devices["FAILED"]
    return {
        "campaign_id": number,
        "as_of": _at(0),
        "name": name,
        "status": status,
        "status_reason": None,
        "version": "2.4.1",
        "from_versions": [{"version": "2.3.0", "devices": 1100}, {"version": "2.2.4", "devices": 184}],
        "headline": {"level": level, "text": headline},
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
        "started_at": _at(-42),
        "completed_at": None,
        "created_by": "k7f3q2",
        "actions": _NO_ACTIONS,
    } | more


_WAVES = [
    _wave(0, "canary", 50, 50, 50, 0, "passed", "passed, 50 of 50 succeeded"),
    _wave(1, "early", 250, 250, 246, 4, "passed", "passed, 246 of 250 succeeded"),
    _wave(2, "rest", 984, 548, 516, 9, "open", "548 of 984 sent"),
]
_GUARDRAILS = [
    _guardrail("failures", 0.16, 0.0158, "trips after 76 more failures in a row", trips_after=76),
    _guardrail(
        "boot-loops",
        0.08,
        0.011,
        "trips after 31 more failures in a row",
        threshold=0.05,
        method="sequential",
        limit=0.004,
        scope="segment",
        group="revision B",
        action="quarantine",
        trips_after=31,
    ),
    _guardrail("canary", 0.0, 0.0, "judged 50 of 50 devices", threshold=0.02, scope="wave", group="canary"),
    _guardrail("no-answer", 0.0, 0.0, "trips after 129 more failures in a row", trips_after=129),
]
_SEGMENTS = [
    {
        "number": 2,
        "labels": {"revision": "B"},
        "text": "revision B: 9 of 240 failed, 3.8 %",
        "waiting": 80,
        "in_flight": 5,
        "succeeded": 231,
        "failed": 9,
        "quarantined": False,
    },
    {
        "number": 1,
        "labels": {"revision": "A"},
        "text": "revision A: 4 of 580 failed, 0.7 %",
        "waiting": 356,
        "in_flight": 18,
        "succeeded": 576,
        "failed": 4,
        "quarantined": False,
    },
]
_CAUSES = [
    {"code": "E_BOOT", "label": "revision=B", "from_version": "2.2.4", "devices": 9, "text": "E_BOOT · revision B"},
    {"code": "E_DOWNLOAD", "label": None, "from_version": "2.3.0", "devices": 3, "text": "E_DOWNLOAD"},
    {"code": None, "label": "site=north", "from_version": None, "devices": 1, "text": "no code · site north"},
]
_WAITING = [
    {
        "reason": "pace",
        "devices": 420,
        "until": _at(0.2),
        "detail": {},
        "text": "at most 120 devices a minute are sent to",
    },
    {
        "reason": "budget",
        "devices": 16,
        "until": None,
        "detail": {},
        "text": "budget one-per-site: another device of its site is in flight",
    },
]
_EVENTS = [
    _event(
        91, -1, "attempt_failed", "pump-0917: attempt 1 failed: the image does not boot (E_BOOT)", "device", "pump-0917"
    ),
    _event(88, -9, "wave_opened", "Wave rest opened after early: 296 devices had succeeded, 4 had failed"),
    _event(
        52,
        -12,
        "attempt_failed",
        "pump-0233: attempt 1 failed: connection reset (E_DOWNLOAD); it is tried again",
        "device",
    ),
    _event(40, -33, "wave_opened", "Wave early opened after canary: 50 devices had succeeded, 0 had failed"),
    _event(2, -42, "running", "Started", "k7f3q2"),
    _event(1, -44, "created", "Created for the 1,284 devices of the group pumps", "k7f3q2"),
]


def campaigns() -> dict[str, Document]:
    """Overviews by the name of what they show."""
    running: Document = {
        "waves": _WAVES,
        "guardrails": _GUARDRAILS,
        "segments": _SEGMENTS,
        "causes": _CAUSES,
        "waiting": _WAITING,
        "events": _EVENTS,
        "rate_per_minute": 118.0,
        "plan": {"ends_at": _at(6)},
        "forecast": {"earliest": _at(3), "latest": _at(9), "text": "ends in 3 to 9 min"},
        "actions": _NO_ACTIONS | {"pause": True, "abort": True, "cancel": True, "retry": 13},
    }
    used = [
        _guardrail("failures", 0.72, 0.072, "trips after 31 more failures in a row", trips_after=31),
        *_GUARDRAILS[1:],
    ]
    tripped = [
        _guardrail("failures", 1.0, 0.123, "tripped at 7 of 57, 12.3 % over 10 %", tripped=True),
        *_GUARDRAILS[1:2],
    ]
    quarantined = [
        _SEGMENTS[0] | {"quarantined": True, "text": "revision B: in quarantine, 9 of 240 failed"},
        _SEGMENTS[1],
    ]
    approval = [
        _WAVES[0],
        _wave(
            1,
            "early",
            250,
            250,
            246,
            4,
            "awaiting_approval",
            "waits for approval since 12 min",
            waits_for="approval",
            needs_role="approver",
        ),
        _wave(2, "rest", 984, 0, 0, 0, "waiting", "18 h 40 min at the pace of the policy"),
    ]
    halt = {
        "kind": "halt",
        "name": "halt",
        "since": _at(-3),
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
            **running | {"guardrails": used, "segments": quarantined, "devices": _devices(436, 11, 12, 766, 59, 0)},
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
                "devices": _devices(984, 0, 0, 296, 4, 0),
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
            devices=_devices(18940, 0, 0, 0, 0, 0),
            started_at=None,
            actions=_NO_ACTIONS | {"start": True, "abort": True},
            events=_EVENTS[-1:],
            guardrails=[_guardrail("failures", 0.0, 0.0, "trips after 20 failures in a row")],
        ),
        "completed": _campaign(
            13,
            "Spring release",
            "COMPLETED",
            "ok",
            "Completed: 1,271 of 1,284 devices run 2.4.1, 13 failed.",
            **running
            | {
                "devices": _devices(0, 0, 0, 1271, 13, 0),
                "completed_at": _at(-2),
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
                "devices": _devices(0, 2, 1, 50, 7, 1224),
                "status_reason": "guardrail failures: 7 of 57 failed, 12.3 % over 10 %",
                "guardrails": tripped,
                "completed_at": _at(-2),
                "waiting": [],
                "rate_per_minute": None,
                "actions": _NO_ACTIONS | {"cancel": True},
                "forecast": {"earliest": None, "latest": None, "text": ""},
                "plan": None,
            },
        ),
    }


def timeline(overview: Document) -> Document:
    """A burn-up that ends at the counts of ``overview``."""
    devices = overview["devices"]
    if not overview["started_at"]:
        return {"points": [], "plan": None, "forecast": overview["forecast"] | {"band": []}, "markers": []}
    final = overview["status"] in {"COMPLETED", "ABORTED"}
    points = []
    for minute in range(43):
        share = 0.04 * min(minute / 8, 1) if minute < 9 else 0.04 + 0.96 * ((minute - 8) / 34) ** 1.3
        flight = 0 if minute == 0 else 1 - (minute == 42 and final)
        succeeded, failed = (int(devices[each] * share) for each in ("SUCCESS", "FAILED"))
        downloading, installing = (devices[each] * flight for each in ("DOWNLOADING", "INSTALLING"))
        skipped = devices["SKIPPED"] if minute >= 40 else 0
        pending = devices["total"] - succeeded - failed - downloading - installing - skipped
        points.append(
            {
                "at": _at(minute - 42),
                "pending": pending,
                "downloading": downloading,
                "installing": installing,
                "succeeded": succeeded,
                "failed": failed,
                "skipped": skipped,
            }
        )
    plan = [
        {"at": _at(-42), "devices": 0},
        {"at": _at(-34), "devices": 50},
        {"at": _at(-20), "devices": 300},
        {"at": _at(6), "devices": devices["total"]},
    ]
    now = devices["total"] - devices["PENDING"]
    band = [
        {"at": _at(0), "low": now, "high": now},
        {"at": _at(3), "low": int(now * 1.15), "high": devices["total"]},
        {"at": _at(9), "low": devices["total"], "high": devices["total"]},
    ]
    markers = [
        {"at": _at(-42), "kind": "started", "text": "started"},
        {"at": _at(-33), "kind": "wave", "text": "early"},
        {"at": _at(-9), "kind": "wave", "text": "rest"},
    ]
    if overview["status"] == "ABORTED":
        markers.append({"at": _at(-2), "kind": "trip", "text": "failures tripped"})
    shown = overview["forecast"]["latest"]
    return {
        "points": points,
        "plan": plan if overview["plan"] else None,
        "forecast": overview["forecast"] | {"band": band if shown else []},
        "markers": markers,
    }


def field(overview: Document) -> bytes:
    """A byte a device in the order of sending."""
    devices = overview["devices"]
    ended = [3] * devices["SUCCESS"]
    step = max(len(ended) // (devices["FAILED"] + 1), 1)
    for index in range(devices["FAILED"]):
        ended.insert((index + 1) * step, 4)
    flight = [2] * devices["INSTALLING"] + [1] * devices["DOWNLOADING"]
    return bytes([*ended, *flight, *([0] * devices["PENDING"]), *([5] * devices["SKIPPED"])])


def devices(overview: Document) -> Document:
    """What the device table shows."""
    rows = [
        ("pump-0917", "FAILED", 1, 0, -1, "E_BOOT", "the image does not boot: watchdog reset after 30 s"),
        ("pump-0918", "INSTALLING", 1, 70, -1, None, None),
        ("pump-0919", "DOWNLOADING", 2, 35, -1, "E_DOWNLOAD", "connection reset"),
        ("pump-0920", "SUCCESS", 1, 100, -2, None, None),
        ("pump-0921", "SKIPPED", 0, 0, None, None, None),
        ("pump-0922", "PENDING", 0, 0, None, None, None),
    ]
    return {
        "rows": [
            {
                "device_id": name,
                "status": status,
                "attempt": attempt,
                "progress_pct": progress,
                "error_code": code,
                "error_message": text,
                "started_at": None if at is None else _at(at),
                "completed_at": None,
            }
            for name, status, attempt, progress, at, code, text in rows
        ],
        "total": overview["devices"]["total"],
        "next": "?cursor=pump-0922",
        "first": None,
        "query": "",
        "filtered": False,
        "status": "",
        "cause": "",
    }
