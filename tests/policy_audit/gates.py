"""The gates between waves: one was opened only if the wave had all that its gate asks for, or by a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from tests.policy_audit.guardrails import over_threshold
from tests.policy_audit.snapshot import Campaign, Json, Row, number_of, seconds, share, wave_of

SLACK_SECONDS = 0.5
"""By how much a look may have read a failure, or the clock, before the time that the auditor knows."""


class Gates:
    """Follows one campaign from snapshot to snapshot."""

    def __init__(self) -> None:
        self._last_failure: dict[int, datetime] = {}
        """By wave: a time before which its last failure was not committed."""

    def look(self, campaign: Campaign, before: Campaign | None) -> Iterator[str]:
        """Check the waves that were passed since another snapshot."""
        if before is None:
            return
        if before.revision == campaign.revision and not before.being_placed and not campaign.being_placed:
            for number in range(before.row["wave"], campaign.row["wave"]):
                yield from self._passed(campaign, before, number)
        failed = {each["device_id"] for each in before.devices if each["status"] == "FAILED"}
        for each in campaign.placed:
            if each["status"] == "FAILED" and each["device_id"] not in failed and not each["failed_before"]:
                self._last_failure[wave_of(each)] = before.began

    def _passed(self, campaign: Campaign, before: Campaign, number: int) -> Iterator[str]:
        rules, wave = campaign.document.get("waves") or [], campaign.waves[number]
        if wave["promoted_by"] is not None or number >= len(rules):
            return
        gate: Json = rules[number].get("gate") or {}
        devices = [each for each in campaign.placed if wave_of(each) == number]
        ended = sum(_has_ended(each) for each in devices)
        finished = all(_has_ended(each) or _quarantined(each, campaign, before) for each in devices)
        needed = number_of(gate.get("min_finished", "100%"), len(devices))
        if not finished and ended < needed:
            yield f"wave {number} was passed when at most {ended} of {needed} devices had finished"
        over = over_threshold(before, number) & over_threshold(campaign, number)
        if devices and over:
            yield f"wave {number} was passed, and these tests of guardrails were over their thresholds: {sorted(over)}"
        if gate.get("approval"):
            yield f"wave {number} was passed without an approval"
        if "success_rate" in gate:
            yield from _success_rate(gate, devices, before, number)
        if "soak" in gate:
            yield from self._soaked(seconds(gate["soak"]), wave, number)

    def _soaked(self, soak: float, wave: Row, number: int) -> Iterator[str]:
        if wave["soak_from"] is None or wave["passed_at"] - wave["soak_from"] < timedelta(seconds=soak):
            yield f"wave {number} was passed at {wave['passed_at']}, its soak of {soak} s began at {wave['soak_from']}"
        failures = [at for of, at in self._last_failure.items() if of <= number]
        if failures and wave["passed_at"] < max(failures) + timedelta(seconds=soak - SLACK_SECONDS):
            yield f"wave {number} was passed at {wave['passed_at']}, a device failed after {max(failures)}"


def _success_rate(gate: Json, devices: list[Row], before: Campaign, number: int) -> Iterator[str]:
    """More may have succeeded since, and those that had failed before are known."""
    had_failed = {each["device_id"] for each in before.devices if each["status"] == "FAILED"}
    succeeded = sum(each["status"] == "SUCCESS" for each in devices)
    failed = sum(each["status"] == "FAILED" and each["device_id"] in had_failed for each in devices)
    if succeeded < share(gate["success_rate"]) * (succeeded + failed):
        yield f"wave {number} was passed when at most {succeeded} had succeeded and {failed} had failed"


def _has_ended(device: Row) -> bool:
    """Whether it has ended, or had before an operator's retry."""
    return device["status"] in {"SUCCESS", "FAILED", "SKIPPED"} or bool(device["failed_before"])


def _quarantined(device: Row, campaign: Campaign, before: Campaign) -> bool:
    found = (each.segments.get(device["segment"]) for each in (campaign, before))
    return any(each is not None and each["quarantined_at"] is not None for each in found)
