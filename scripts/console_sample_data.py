"""What scripts of the sample pages read, and what their device table shows."""

from __future__ import annotations

from scripts.console_sample_parts import Document, at


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
                "at": at(minute - 42),
                "pending": pending,
                "downloading": downloading,
                "installing": installing,
                "succeeded": succeeded,
                "failed": failed,
                "skipped": skipped,
            }
        )
    plan = [
        {"at": at(-42), "devices": 0},
        {"at": at(-34), "devices": 50},
        {"at": at(-20), "devices": 300},
        {"at": at(6), "devices": devices["total"]},
    ]
    now = devices["total"] - devices["PENDING"]
    band = [
        {"at": at(0), "low": now, "high": now},
        {"at": at(3), "low": int(now * 1.15), "high": devices["total"]},
        {"at": at(9), "low": devices["total"], "high": devices["total"]},
    ]
    markers = [
        {"at": at(-42), "kind": "started", "text": "started"},
        {"at": at(-33), "kind": "wave", "text": "early"},
        {"at": at(-9), "kind": "wave", "text": "rest"},
    ]
    if overview["status"] == "ABORTED":
        markers.append({"at": at(-2), "kind": "trip", "text": "failures tripped"})
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
                "started_at": None if minutes is None else at(minutes),
                "completed_at": None,
                "version": overview["version"] if status == "SUCCESS" else "2.3.0",
                "labels": ["B" if status == "FAILED" else "A"],
            }
            for name, status, attempt, progress, minutes, code, text in rows
        ],
        "labels": ["revision"],
        "total": overview["devices"]["total"],
        "next": "?cursor=pump-0922",
        "first": None,
        "query": "",
        "filtered": False,
        "status": "",
        "cause": "",
        "code": "",
    }
