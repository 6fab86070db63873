"""The panels of a campaign's page, rendered once for all streams of the same role."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from rollwave.api.live.news import Snapshot
from rollwave.api.live.stream import event
from rollwave.console.formats import visible
from rollwave.console.pages import Can
from rollwave.domain.role import Role
from rollwave.store.moments import Document

PANELS = ("head", "verdict", "statebar", "waves", "guardrails", "burnup", "causes", "waiting", "events", "bar")
"""The panels that a stream replaces. The others draw themselves, or move only when their reader wants it."""

_TOKEN = secrets.token_hex(32)
"""Stands for the form token in what is rendered for all sessions. Nobody can guess it, and it is never sent."""

_LEADS: Mapping[str, str] = {"stop": "Stop: ", "watch": "Watch: "}


@dataclass(frozen=True, slots=True)
class Rendered:
    """The panels of one snapshot for one role. ``html``: by panel."""

    id: str
    title: str
    html: Mapping[str, str]

    def events(self, seen: dict[str, str], token: str) -> list[bytes]:
        """The events for a stream: the panels that differ from ``seen``, which is updated, and the title last.

        The last event has the id, so that a stream which breaks before it sends all panels again.
        """
        found = []
        for name, html in self.html.items():
            if seen.get(name) != html:
                seen[name] = html
                found.append(event("panel", {"name": name, "html": html.replace(_TOKEN, token)}))
        return [*found, event("title", {"text": self.title}, identifier=self.id)]

    def to_json(self, token: str) -> Document:
        """The same for a page that asks again and again instead of having a stream."""
        panels = {name: html.replace(_TOKEN, token) for name, html in self.html.items()}
        return {"id": self.id, "title": self.title, "panels": panels}


def rendered(templates: Environment, snapshot: Snapshot, role: Role) -> Rendered:
    """The panels of a snapshot as a key of this role sees them. Made once."""
    return snapshot.made(f"panels for {role}", lambda overview: _render(templates, snapshot.id, overview, role))


def stream_id(snapshot: Snapshot, role: Role) -> str:
    """The id of a page's content, with which its stream begins."""
    return f"{snapshot.id}-{role}"


def title(overview: Mapping[str, Any]) -> str:
    """The title of a campaign's page: what a person must see on a tab."""
    name = visible(overview["name"] or f"campaign {overview['campaign_id']}")
    headline = overview["headline"]
    lead = _LEADS.get(headline["level"])
    if lead is not None:
        return f"{lead}{visible(headline['text'])} · {name}"
    share = int(100 * overview["finished_share"])
    return f"{share} % · {name}"


def _render(templates: Environment, identifier: str, overview: Document, role: Role) -> Rendered:
    values = {"overview": overview, "can": Can.of(role), "csrf_token": _TOKEN}
    html = {name: templates.get_template(f"panels/{name}.html").render(values) for name in PANELS}
    return Rendered(f"{identifier}-{role}", title(overview), html)
