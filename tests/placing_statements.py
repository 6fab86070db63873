"""The statements that place devices. They are made for each policy document, from the parts in ``placing.sql``."""

from __future__ import annotations

import re
from typing import NamedTuple

from asyncpg.connection import LoggedQuery

from rollwave.domain.ids import CampaignId
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.placing import placing_of
from rollwave.store import labels, placing
from rollwave.store.placing_statements import Source
from tests.engine import Connection

DOCUMENTS = (
    {"waves": [{"name": "canary", "size": 1}, {"name": "early", "size": "50%"}, {"name": "rest"}]},
    {
        "order": "label:site",
        "waves": [{"name": "canary", "select": "version >= 1.0 or last_seen > -7d", "size": 2}, {"name": "rest"}],
        "guardrails": [{"name": "types", "scope": "segment", "per": ["device_type", "site"], "action": "quarantine"}],
    },
    {
        "order": "id",
        "waves": [{"name": "pumps", "select": "device_type == pump"}, {"name": "rest", "select": "not has(site)"}],
        "schedule": {
            "windows": [
                {"name": "night", "kind": "allow", "cron": "0 2 * * *", "duration": "2h", "time_zone": "device"},
            ]
        },
    },
)
"""Documents that use each part: the orders, waves of a size or of a selector, labels and time zones."""

_PART = re.compile(r"\{[a-z_]+\}")


class Statement(NamedTuple):
    """A statement as it was sent. ``name``: of the document and of the devices, with a number."""

    name: str
    sql: str
    arguments: tuple[object, ...]


def is_part(sql: str) -> bool:
    """Whether this is no whole statement, but a part of some, or has parts that are filled in."""
    return not sql.endswith(";") or _PART.search(sql) is not None


async def statements(connection: Connection, tenant_id: str, campaign_id: int, group_id: str) -> list[Statement]:
    """Place the devices by each document, and undo it."""
    found: dict[str, Statement] = {}
    for number, document in enumerate(DOCUMENTS):
        for group in (group_id, None):
            sent: list[LoggedQuery] = []
            with connection.query_logger(sent.append):
                await _place(connection, Source(tenant_id, CampaignId(campaign_id), group, "pump", _REGISTRY), document)
            for each in (each for each in sent if each.args and each.args[0] == tenant_id):
                name = f"{'unsent devices' if group is None else 'group'} by document {number}, {len(found)}"
                found.setdefault(each.query, Statement(name, each.query, each.args))
    return [*found.values()]


_REGISTRY = labels.Source(of_host=False)


async def _place(connection: Connection, source: Source, document: object) -> None:
    of = placing_of(PolicyDocument.model_validate(document))
    transaction = connection.transaction()
    await transaction.start()
    try:
        found = await placing.survey(connection, source, of)
        await placing.count_waves(connection, source, of, found)
        if source.group_id is None:
            for in_flight in (False, True):
                await placing.place_inserted(connection, source, of, found, in_flight=in_flight, limit=100)
            await placing.move_sent(connection, source, of, ["dev-1"])
            await placing.move(connection, source, of, found, after="", limit=100)
        else:
            await placing.insert(connection, source, of, found, after="", limit=100, before=0)
    finally:
        await transaction.rollback()
