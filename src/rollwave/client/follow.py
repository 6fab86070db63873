"""Follow one campaign over the API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollwave.client.api import Api
from rollwave.client.events import Event
from rollwave.client.progress import Snapshot
from rollwave.client.timeline import Timeline
from rollwave.errors import NotFound, Outdated, RollwaveError

TIMELINE_INTERVAL = 10.0
"""Seconds between two reads of the timeline: it changes slowly."""

_PAGE = 1000
_CAUSES = 100
_OTHER = "other causes"


@dataclass(frozen=True, slots=True)
class Look:
    """The campaign now, and its events since the last look.

    ``to_show`` are the events without repetitions: of failures, only the first of each cause.
    """

    document: dict[str, Any]
    snapshot: Snapshot
    to_show: Sequence[Event]
    timeline: Timeline = field(default_factory=Timeline)


class Follower:
    """Follows one campaign over the API."""

    def __init__(self, api: Api, campaign_id: int, *, with_timeline: bool = False) -> None:
        self._api = api
        self._id = campaign_id
        self._seen = 0
        self._causes: set[str] = set()
        self._with_timeline = with_timeline
        self._timeline = Timeline()
        self._timeline_due = 0.0

    def look(self) -> Look:
        """Read the campaign now. The events are read last, so they are never older than the rest.

        Raises:
            RollwaveError: the API answered with an error. It may be called again.
        """
        document = overview(self._api, self._id)
        if self._with_timeline and time.monotonic() >= self._timeline_due:
            self._timeline = timeline(self._api, self._id)
            self._timeline_due = time.monotonic() + TIMELINE_INTERVAL
        answer = self._api.get(f"{_path(self._id)}/events", after=self._seen, limit=_PAGE)
        self._seen = answer["next_after"]
        events = [Event.read(each) for each in answer["events"]]
        to_show = [event for event in events if self._is_new(event)]
        return Look(document, Snapshot.read(document), to_show, self._timeline)

    def _is_new(self, event: Event) -> bool:
        cause = event.cause
        if cause is None:
            return True
        if cause not in self._causes and len(self._causes) >= _CAUSES:
            cause = _OTHER
        new = cause not in self._causes
        self._causes.add(cause)
        return new


def overview(api: Api, campaign_id: int) -> dict[str, Any]:
    """The overview of a campaign.

    Raises:
        Outdated: the server is of an earlier version, which has no overview.
        RollwaveError: the API answered with another error.
    """
    document: dict[str, Any] = _of_this_version(api, campaign_id, "overview")
    return document


def timeline(api: Api, campaign_id: int) -> Timeline:
    """The timeline of a campaign.

    Raises:
        Outdated: the server is of an earlier version, which has no timeline.
        RollwaveError: the API answered with another error.
    """
    return Timeline.read(_of_this_version(api, campaign_id, "timeline"))


def _of_this_version(api: Api, campaign_id: int, what: str) -> Any:
    try:
        return api.get(f"{_path(campaign_id)}/{what}")
    except NotFound:
        api.get(_path(campaign_id))  # raises NotFound if it is the campaign that does not exist
        raise _too_old(what) from None


def _too_old(what: str) -> RollwaveError:
    return Outdated(
        f"the server is of an earlier version than this program: it has no {what} of a campaign",
        hint="Upgrade the server, or use the version of `rollwave` that it has.",
    )


def _path(campaign_id: int) -> str:
    return f"/ota/campaigns/{campaign_id}"
