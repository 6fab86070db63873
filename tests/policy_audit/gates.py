"""The gates between waves: one was opened only if the wave had all that its gate asks for, or by a person.

Between two snapshots an edit may replace the document and move devices that were never sent to. A wave that was passed
then must have been passed rightly by one of the documents, with the devices of one of the snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from tests.policy_audit.guardrails_at_gates import over
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
        for number in range(before.row["wave"], campaign.row["wave"]):
            if campaign.waves[number]["promoted_by"] is None:
                yield from self._passed(campaign, before, number)
        failed = {each["device_id"] for each in before.devices if each["status"] == "FAILED"}
        for each in campaign.placed:
            if each["status"] == "FAILED" and each["device_id"] not in failed and not each["failed_before"]:
                self._last_failure[wave_of(each)] = before.began

    def _passed(self, campaign: Campaign, before: Campaign, number: int) -> Iterator[str]:
        same = before.revision == campaign.revision
        if same and before.being_placed and campaign.being_placed:
            yield f"wave {number} was passed while devices were being placed"
        # Other SQL starts a campaign without an event.
        started = campaign.row["status"] not in {"PAUSED", "ABORTED"} or "running" in {
            each["event"] for each in campaign.events_since(before)
        }
        if before.row["status"] == "PAUSED" and not started:
            yield f"wave {number} was passed while the campaign was paused"
        yield from over(campaign, before, number)
        now = {each["device_id"]: each for each in campaign.devices}
        wrong: list[str] = []
        for placed in (before.placed, campaign.placed):
            devices = [now.get(each["device_id"], each) for each in placed if wave_of(each) == number]
            for document in campaign.documents_since(before):
                wrong = list(self._asked_for(document, devices, campaign, before, number))
                if not wrong:
                    return
        yield from wrong

    def _asked_for(
        self, document: Json, devices: Sequence[Row], campaign: Campaign, before: Campaign, number: int
    ) -> Iterator[str]:
        """What the gate of a wave with these devices asks for by a document, and did not have."""
        rules = document.get("waves") or []
        if number >= len(rules):
            return
        gate: Json = rules[number].get("gate") or {}
        ended = sum(_has_ended(each) for each in devices)
        finished = all(_has_ended(each) or _quarantined(each, campaign, before) for each in devices)
        needed = number_of(gate.get("min_finished", "100%"), len(devices))
        if not finished and ended < needed:
            yield f"wave {number} was passed when at most {ended} of {needed} devices had finished"
        if gate.get("approval"):
            yield f"wave {number} was passed without an approval"
        if "success_rate" in gate:
            yield from _success_rate(gate, devices, before, number)
        if "soak" in gate:
            yield from self._soaked(seconds(gate["soak"]), campaign.waves[number], number)

    def _soaked(self, soak: float, wave: Row, number: int) -> Iterator[str]:
        if wave["soak_from"] is None or wave["passed_at"] - wave["soak_from"] < timedelta(seconds=soak):
            yield f"wave {number} was passed at {wave['passed_at']}, its soak of {soak} s began at {wave['soak_from']}"
        failures = [at for of, at in self._last_failure.items() if of <= number]
        if failures and wave["passed_at"] < max(failures) + timedelta(seconds=soak - SLACK_SECONDS):
            yield f"wave {number} was passed at {wave['passed_at']}, a device failed after {max(failures)}"


def _success_rate(gate: Json, devices: Sequence[Row], before: Campaign, number: int) -> Iterator[str]:
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
