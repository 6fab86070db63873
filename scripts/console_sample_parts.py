"""Parts of the sample campaigns: waves, guardrails, segments, causes, events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)
STATES = ("PENDING", "DOWNLOADING", "INSTALLING", "SUCCESS", "FAILED", "SKIPPED")


def at(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def devices_of(*counts: int) -> Document:
    return {"total": sum(counts), **dict(zip(STATES, counts, strict=True))}


def wave(
    number: int, name: str, size: int, sent: int, succeeded: int, failed: int, state: str, text: str, **more: object
) -> Document:
    given = {"number": number, "name": name, "size": size, "sent": sent, "succeeded": succeeded, "failed": failed}
    return {
        **given,
        "state": state,
        "text": text,
        "since": at(-10),
        "until": None,
        "waits_for": None,
        "needs_role": None,
    } | more


def guardrail(name: str, used: float, value: float, text: str, *, threshold: float = 0.1, **more: object) -> Document:
    return {
        "name": name,
        "scope": "campaign",
        "method": "ratio",
        "action": "abort",
        "group": "",
        "wave": None,
        "labels": None,
        "value": value,
        "limit": None,
        "threshold": threshold,
        "trips_after": None,
        "trips": text.removeprefix("trips "),
        "tripped": False,
        "used": used,
        "text": text,
    } | more


def event(
    number: int, minutes: float, event: str, text: str, actor: str = "engine", device: str | None = None
) -> Document:
    return {
        "id": number,
        "at": at(minutes),
        "event": event,
        "actor": actor,
        "actor_name": None,
        "device_id": device,
        "detail": {},
        "text": text,
    }


WAVES = [
    wave(0, "canary", 50, 50, 50, 0, "passed", "canary (1 of 3): passed"),
    wave(1, "early", 250, 250, 246, 4, "passed", "early (2 of 3): passed"),
    wave(2, "rest", 984, 548, 516, 9, "open", "rest (3 of 3): open"),
]
GUARDRAILS = [
    guardrail("failures", 0.16, 0.0158, "trips after 76 more failures in a row", trips_after=76),
    guardrail(
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
    guardrail("canary", 0.0, 0.0, "judged 50 of 50 devices", threshold=0.02, scope="wave", group="canary"),
    guardrail("no-answer", 0.0, 0.0, "trips after 129 more failures in a row", trips_after=129),
]
SEGMENTS = [
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
CAUSES = [
    {"code": "E_BOOT", "label": "revision=B", "from_version": "2.2.4", "devices": 9, "text": "E_BOOT · revision B"},
    {"code": "E_DOWNLOAD", "label": None, "from_version": "2.3.0", "devices": 3, "text": "E_DOWNLOAD"},
    {"code": None, "label": "site=north", "from_version": None, "devices": 1, "text": "no code · site north"},
]
WAITING = [
    {
        "reason": "pace",
        "devices": 420,
        "until": at(0.2),
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
EVENTS = [
    event(
        91, -1, "attempt_failed", "pump-0917: attempt 1 failed: the image does not boot (E_BOOT)", "device", "pump-0917"
    ),
    event(88, -9, "wave_opened", "Wave rest opened after early: 296 devices had succeeded, 4 had failed"),
    event(
        52,
        -12,
        "attempt_failed",
        "pump-0233: attempt 1 failed: connection reset (E_DOWNLOAD); it is tried again",
        "device",
    ),
    event(40, -33, "wave_opened", "Wave early opened after canary: 50 devices had succeeded, 0 had failed"),
    event(2, -42, "running", "Started", "k7f3q2"),
    event(1, -44, "created", "Created for the 1,284 devices of the group pumps", "k7f3q2"),
]
