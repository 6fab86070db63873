"""The stream of a campaign's page, and the same for pages that cannot have one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from jinja2 import Environment

from rollwave.api.live.channel import Subscription
from rollwave.api.live.hub import Hub
from rollwave.api.live.news import FieldNews, Snapshot
from rollwave.api.live.stream import EventStream, event
from rollwave.api.parameters import CampaignNumber
from rollwave.api.routes.live import status_event
from rollwave.console import csrf
from rollwave.console.live import rendered
from rollwave.console.rights import Viewer
from rollwave.console.route import ConsoleRoute
from rollwave.console.routes.campaign import is_still
from rollwave.console.session import Session, keeper

router = APIRouter(route_class=ConsoleRoute)

Seen = Annotated[str | None, Query(max_length=100, description="The id of the page's content")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)]


@router.get("/campaigns/{campaign_id}/live")
async def campaign_live(
    request: Request,
    session: Viewer,
    campaign_id: CampaignNumber,
    after: Seen = None,
    last_event_id: LastEventId = None,
    field: bool = False,
) -> Response:
    """The panels that change, as they change."""
    hub: Hub = request.app.state.hub
    templates: Environment = request.app.state.templates
    token = csrf.masked((await keeper(request).sealed()).token(session.nonce))
    seen = _of_role(last_event_id or after, session)

    async def events(stream: Subscription) -> AsyncGenerator[bytes]:
        panels: dict[str, str] = {}
        async for each in stream.news():
            match each:
                case Snapshot():
                    for part in rendered(templates, each, stream.grant.role).events(panels, token):
                        yield part
                case FieldNews():
                    yield event("field", each.to_json())
                case _:
                    yield status_event(each)

    return EventStream(
        lambda: hub.follow(
            session.grant, campaign_id, seen=seen, fields=field, ends_in=max(0.0, session.ends_at - time.time())
        ),
        events,
    )


@router.get("/campaigns/{campaign_id}/live/panels")
async def campaign_panels(request: Request, session: Viewer, campaign_id: CampaignNumber) -> Response:
    """All live panels as they are now: a browser allows a server six connections, so not every tab has a stream."""
    hub: Hub = request.app.state.hub
    snapshot = await hub.look(session.tenant_id, campaign_id)
    token = csrf.masked((await keeper(request).sealed()).token(session.nonce))
    answer = rendered(request.app.state.templates, snapshot, session.role).to_json(token)
    return JSONResponse({**answer, "final": is_still(snapshot)})


def _of_role(identifier: str | None, session: Session) -> str | None:
    """The snapshot that a page has, unless it was rendered for another role."""
    snapshot, _, role = (identifier or "").partition("-")
    return snapshot if role == session.role else None
