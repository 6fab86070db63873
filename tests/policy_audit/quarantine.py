"""Quarantine: once a guardrail has tripped for a device's own labels, nothing is sent to it until it is released."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from tests.policy_audit.guardrails import group_of_test, rules_of
from tests.policy_audit.labels import group_of
from tests.policy_audit.snapshot import EVER, IN_FLIGHT, WAITING, Campaign, Row, state_of
from tests.policy_audit.wire import Period


class Quarantine:
    """Follows one campaign from snapshot to snapshot."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        """By device: a time at which it was under quarantine."""
        self._ended: dict[str, list[Period]] = {}

    def look(self, campaign: Campaign, before: Campaign | None, claims: Sequence[Row]) -> Iterator[str]:
        """Check the claims since another snapshot, and then whether the devices of tripped tests are shut off."""
        for number in _released(campaign, before):
            last = campaign if before is None else before
            for name in _devices_of(last, number) | _devices_of(campaign, number):
                self._end(name, last)
        for each in claims:
            since = self._since.get(each["device_id"])
            if since is not None and each["at"] > since:
                yield f"attempt {each['attempt']} of {each['device_id']} was claimed at {each['at']}, in quarantine"
        for name in self._tripped(campaign):
            self._since.setdefault(name, campaign.ended)
        if campaign.row["status"] in {"RUNNING", "PAUSED"} and not campaign.being_placed:
            yield from self._shut_off(campaign)

    def _end(self, device: str, last: Campaign) -> None:
        """A device was released after a snapshot."""
        if (since := self._since.pop(device, None)) is not None:
            self._ended.setdefault(device, []).append(Period(since, last.began, "quarantine"))

    def periods(self) -> dict[str, list[Period]]:
        """By device: times in which it certainly was under quarantine."""
        found = {device: list(periods) for device, periods in self._ended.items()}
        for device, since in self._since.items():
            found.setdefault(device, []).append(Period(since, EVER, "quarantine"))
        return found

    def _tripped(self, campaign: Campaign) -> Iterator[str]:
        """The devices for whose own labels a guardrail that quarantines has tripped."""
        rules = {each["name"]: each for each in rules_of(campaign.document)}
        for test in campaign.tests:
            rule = rules.get(test["guardrail"], {})
            if test["tripped_at"] is not None and rule.get("action") == "quarantine":
                labels = group_of_test(test)
                for each in campaign.devices:
                    if group_of(labels, campaign.labels_of(each)) == labels:
                        yield each["device_id"]

    def _shut_off(self, campaign: Campaign) -> Iterator[str]:
        """A segment is under quarantine if one of its devices is, and only then.

        After an edit, a segment may have devices of others, of which only some were under quarantine.
        """
        for each in campaign.placed:
            row = campaign.segments.get(each["segment"])
            if row is None or state_of(each) not in {WAITING, IN_FLIGHT}:
                continue
            said, known = row["quarantined_at"] is not None, each["device_id"] in self._since
            if (known and not said) or (said and not known and campaign.revision == 1):
                yield f"{each['device_id']} is {'' if known else 'not '}under quarantine, its segment says {said}"


def _released(campaign: Campaign, before: Campaign | None) -> list[int]:
    events = campaign.events_since(before)
    return [int(json.loads(each["detail"])["segment"]) for each in events if each["event"] == "segment_released"]


def _devices_of(campaign: Campaign, segment: int) -> set[str]:
    return {each["device_id"] for each in campaign.placed if each["segment"] == segment}
