"""The device table of a campaign's page: its filter, which stands in the address, and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from rollwave.api.routes.campaign_devices import keys_and_values
from rollwave.domain.execution import ExecutionStatus
from rollwave.domain.policy.words import group_text
from rollwave.store import campaign_devices
from rollwave.store.database import Pool
from rollwave.store.device_labels import Labels
from rollwave.store.labels import LabelsUnavailable
from rollwave.store.page import Page

ROWS = 20
MAX_LABELS = 2
"""Maximum number of columns with labels."""


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices are shown. None: any.

    ``labels``: each ``key=value``. ``code`` and ``from_version`` may be empty: devices without one. ``wave``
    and ``segment``: their numbers.
    """

    status: ExecutionStatus | None = None
    code: str | None = None
    labels: tuple[str, ...] = ()
    from_version: str | None = None
    wave: int | None = None
    segment: int | None = None

    @property
    def given(self) -> Sequence[tuple[str, str]]:
        """The parameters of the address."""
        named = {"status": self.status and self.status.value, "code": self.code, "from_version": self.from_version}
        numbers = {"wave": self.wave, "segment": self.segment}
        one = [(name, str(value)) for name, value in {**named, **numbers}.items() if value is not None]
        return [*one, *(("label", label) for label in self.labels)]

    def query(self, **more: str) -> str:
        """The query of an address with this filter; empty: none."""
        given = [*self.given, *more.items()]
        return f"?{urlencode(given)}" if given else ""

    def cause(self, overview: Mapping[str, Any]) -> str:
        """What is filtered for beside the state, in words."""
        version = None if self.from_version is None else f"from {self.from_version or 'an unknown version'}"
        parts = (None if self.code is None else self.code or "no code", *self.labels, version)
        waves = {each["number"]: each["name"] for each in overview["waves"]}
        segments = {each["number"]: group_text(each["labels"]) for each in overview["segments"]}
        places = (_named("wave", self.wave, waves), _named("segment", self.segment, segments))
        return " · ".join(part for part in (*parts, *places) if part)

    @property
    def of_rows(self) -> campaign_devices.Filter:
        """The filter as the store takes it."""
        labels = keys_and_values(self.labels)
        return campaign_devices.Filter(self.status, self.code, None, self.wave, labels, self.from_version, self.segment)


def _named(kind: str, number: int | None, names: Mapping[int, str]) -> str | None:
    return None if number is None else f"{kind} {names.get(number) or number}"


def shown_labels(overview: Mapping[str, Any]) -> list[str]:
    """The keys of the labels that guardrails and causes of a campaign speak of."""
    of_causes = [each["label"].partition("=")[0] for each in overview["causes"] if each["label"]]
    of_segments = [key for each in overview["segments"] for key in sorted(each["labels"])]
    return list(dict.fromkeys([*of_causes, *of_segments]))[:MAX_LABELS]


async def read(
    pool: Pool, tenant_id: str, overview: Mapping[str, Any], chosen: DeviceFilter, *, cursor: str | None
) -> dict[str, Any]:
    """The values of the panel. ``overview``: of the campaign.

    Raises:
        NotFound: this tenant has no such campaign.
        LabelsUnavailable: the host's view of its devices cannot be used.
    """
    campaign_id = overview["campaign_id"]
    found = await campaign_devices.find(pool, tenant_id, campaign_id, chosen.of_rows, limit=ROWS, cursor=cursor)
    try:
        labels = await campaign_devices.labels(pool, tenant_id, [row["device_id"] for row in found.rows])
    except LabelsUnavailable:  # the table is of use without them
        labels = {}
    keys = shown_labels(overview)
    return {
        "rows": [row | _labels(labels.get(row["device_id"]), keys) for row in found.rows],
        "labels": keys if labels else [],
        "total": found.total,
        "next": chosen.query(cursor=found.next_cursor) if found.next_cursor is not None else "",
        "first": chosen.query() if cursor is not None else None,
        "query": chosen.query(),
        "filtered": bool(chosen.given),
        "status": chosen.status.value if chosen.status else "",
        "cause": chosen.cause(overview),
        "code": chosen.code or "",
    }


def _labels(device: Labels | None, keys: Sequence[str]) -> dict[str, Any]:
    if device is None:
        return {"version": None, "labels": [None for _ in keys]}
    return {"version": device.version, "labels": [device.of.get(key) for key in keys]}


async def pages(
    pool: Pool, tenant_id: str, campaign_id: int, chosen: DeviceFilter, *, limit: int, cursor: str | None
) -> Page:
    """A page of the devices for a file."""
    found = await campaign_devices.find(pool, tenant_id, campaign_id, chosen.of_rows, limit=limit, cursor=cursor)
    return Page(found.rows, found.total or 0, found.next_cursor)
