"""A campaign's stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from rollwave.api.auth import Viewer
from rollwave.api.live.channel import Subscription
from rollwave.api.live.hub import Hub
from rollwave.api.live.news import Beat, End, FieldNews, News, Snapshot, Trouble
from rollwave.api.live.stream import EventStream, event
from rollwave.api.parameters import CampaignNumber, problems
from rollwave.api.route import CustomerRoute

router = APIRouter(prefix="/customer/ota/campaigns", tags=["campaigns"], route_class=CustomerRoute)

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `overview`, `field`, `beat`, `trouble`, `end`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


LiveHub = Annotated[Hub, Depends(_hub)]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=100, description="`id` of the last event: equal content is not repeated"),
]


@router.get(
    "/{campaign_id}/live",
    summary="Follow a campaign",
    response_class=Response,
    responses={**problems(404, 429), **_ANSWER},
)
async def follow_campaign(
    hub: LiveHub,
    grant: Viewer,
    campaign_id: CampaignNumber,
    last_event_id: LastEventId = None,
    field: Annotated[bool, Query(description="Also send changes of the devices' states")] = False,
) -> Response:
    """The overview whenever it changes, at most once a second, until the client disconnects.

    - `overview`: the same as `GET .../overview`. Its `id` is a hash of the content.
    - `field`, with `field=true`: `{"generation", "since", "sequence", "runs": [[first, devices, state], ...]}`. Apply
      the runs to a field of this generation with a sequence from `since` to below `sequence`. With an older field, or
      one of another generation, read `GET .../field` again.
    - `beat`, every 5 seconds: `{"at"}`. Without one for 15 seconds, connect again.
    - `trouble`: `{"text"}` says why the campaign cannot be read now; empty: it can be read again.
    - `end`: `{"why"}` is `signed out` or `campaign deleted`. Do not connect again. Without an `end`, do.
    """
    return EventStream(lambda: hub.follow(grant, campaign_id, seen=last_event_id, fields=field), _events)


async def _events(stream: Subscription) -> AsyncGenerator[bytes]:
    async for each in stream.news():
        yield _event(each)


def _event(news: News) -> bytes:
    match news:
        case Snapshot():
            return event("overview", news.text, identifier=news.id)
        case FieldNews():
            return event("field", news.to_json())
        case _:
            return status_event(news)


def status_event(news: Beat | Trouble | End) -> bytes:
    """An event about the stream itself."""
    match news:
        case Beat(at):
            return event("beat", {"at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z")})
        case Trouble(text):
            return event("trouble", {"text": text})
        case End(why):
            return event("end", {"why": why})
