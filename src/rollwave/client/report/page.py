"""The page of a report: what happened in a campaign, for people who were not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from rollwave.client.api import Api
from rollwave.client.events import Event
from rollwave.client.follow import overview, timeline
from rollwave.client.marks import LEVELS, STATES, STATUSES
from rollwave.client.progress import Snapshot
from rollwave.client.report import charts
from rollwave.client.report.html import Content, Element
from rollwave.client.text import visible
from rollwave.client.timeline import Timeline

_EVENTS_SHOWN = 500
_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(api: Api, campaign_id: int) -> str:
    """The report of a campaign, as HTML.

    Raises:
        RollwaveError: the API answered with an error.
    """
    path = f"/ota/campaigns/{campaign_id}"
    document = overview(api, campaign_id)
    past = timeline(api, campaign_id)
    causes = api.get(f"{path}/causes")
    policy, _ = api.get_text(f"{path}/policy", format="yaml")
    events = [Event.read(each) for each in api.get(f"{path}/events", limit=_EVENTS_SHOWN)["events"]]
    return "<!doctype html>\n" + str(_html(document, past, causes, policy, events)) + "\n"


def _html(
    document: Mapping[str, Any], past: Timeline, causes: Mapping[str, Any], policy: str, events: Sequence[Event]
) -> Element:
    snapshot = Snapshot.read(document)
    # A stylesheet is not escaped: quotes in it are no text. It is ours, and has no "<".
    style = Element("style")
    style.raw = files("rollwave.client.report").joinpath("report.css").read_text("utf-8")
    head = Element(
        "head",
        Element("meta", charset="utf-8"),
        Element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Element("meta", name="color-scheme", content="light dark"),
        Element("meta", http_equiv="Content-Security-Policy", content=_CSP),
        Element("title", f"{snapshot.name}: {snapshot.headline}"),
        style,
    )
    body = Element(
        "body",
        charts.patterns(),
        Element("header", *_head(document, snapshot)),
        Element(
            "main",
            *_devices(snapshot, past),
            *_waves(snapshot),
            *_guardrails(snapshot),
            *_causes(causes),
            *_waiting(snapshot),
            _section("Policy", Element("pre", visible_lines(policy))),
            *_events(events),
        ),
        Element("footer", f"Written by rollwave from the state of {moment(document['as_of'])}. All times are in UTC."),
    )
    return Element("html", head, body, lang="en")


def _head(document: Mapping[str, Any], snapshot: Snapshot) -> Iterator[Element]:
    status, level = STATUSES[snapshot.status], LEVELS.get(snapshot.level, LEVELS["watch"])
    yield Element("h1", snapshot.name)
    yield Element(
        "p",
        Element("span", f"{status.sign} {snapshot.status}", class_="status"),
        f" · {snapshot.versions('→')} · #{snapshot.id}",
        class_="meta",
    )
    yield Element("p", f"{level.sign} {snapshot.headline}", class_=f"verdict {snapshot.level}")
    facts = (
        ("created by", document["created_by"] or "unknown"),
        ("started", moment(document["started_at"])),
        ("ended", moment(document["completed_at"])),
        ("reason", snapshot.reason),
    )
    shown = [(Element("dt", name), Element("dd", value)) for name, value in facts if value]
    yield Element("dl", *(each for pair in shown for each in pair))


def _section(title: str, *content: Content) -> Element:
    return Element("section", Element("h2", title), *content)


def _devices(snapshot: Snapshot, past: Timeline) -> Iterator[Element]:
    legend = [
        Element(
            "li",
            Element(
                "svg",
                Element("rect", width=14, height=14, rx=3, **charts.fill(state)),
                viewBox="0 0 14 14",
                class_="mark",
                aria_hidden="true",
            ),
            Element("b", f"{snapshot.by_state[state]:,}"),
            f" {mark.sign} {state}",
        )
        for state, mark in STATES.items()
    ]
    bar = charts.state_bar(snapshot.by_state)
    yield _section(f"{snapshot.total:,} devices", bar, Element("ul", *legend, class_="legend"))
    chart = charts.burn_up(past, snapshot.total)
    if chart is None:
        return
    markers = [Element("li", Element("time", moment_of(each.at)), f" {each.text}") for each in past.markers[:12]]
    yield _section("Over time", chart, Element("ol", *markers, class_="markers") if markers else "")


def _waves(snapshot: Snapshot) -> Iterator[Element]:
    if len(snapshot.waves) > 1:
        yield _section("Waves", _table(("wave", "devices"), ((each.text, each.numbers) for each in snapshot.waves)))


def _guardrails(snapshot: Snapshot) -> Iterator[Element]:
    if not snapshot.guardrails:
        yield _section("Guardrails", Element("p", "There is no guardrail."))
        return
    rows = [
        Element("tr", Element("td", charts.gauge(each.used, tripped=each.tripped)), Element("td", each.text))
        for each in snapshot.guardrails
    ]
    yield _section("Guardrails", Element("table", *rows))


def _causes(causes: Mapping[str, Any]) -> Iterator[Element]:
    found = [Element("li", visible(each["text"])) for each in causes["causes"]]
    if not found:
        yield _section("Failures by cause", Element("p", "No device has failed."))
        return
    note = [Element("p", visible(causes["text"]), class_="meta")] if causes["text"] else []
    yield _section("Failures by cause", Element("ul", *found, class_="causes"), *note)


def _waiting(snapshot: Snapshot) -> Iterator[Element]:
    rows = [(f"{each.devices:,}", each.text) for each in snapshot.waiting]
    table = _table(("devices", "because"), rows) if rows else Element("p", "Nothing waits.")
    yield _section("Waiting", table)


def _events(events: Sequence[Event]) -> Iterator[Element]:
    rows = [(moment_of(each.at), each.sentence) for each in events]
    yield _section("Events", _table(("time", "what happened"), rows) if rows else Element("p", "No events."))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Element:
    head = Element("tr", *(Element("th", each, scope="col") for each in columns))
    body = (Element("tr", *(Element("td", cell) for cell in row)) for row in rows)
    return Element("table", Element("thead", head), Element("tbody", *body))


def visible_lines(text: str) -> str:
    """``text`` with control characters escaped, except line ends."""
    return "\n".join(visible(line) for line in text.rstrip("\n").split("\n"))


def moment(text: str | None) -> str:
    """A time of the API, in UTC; empty for None."""
    return moment_of(datetime.fromisoformat(text)) if text else ""


def moment_of(at: datetime) -> str:
    """A time, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
