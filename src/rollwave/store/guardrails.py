"""The tests of a campaign's guardrails and their buckets. Their numbers change under the campaign's lock.

A test is found by its guardrail's name and its group of devices. ``domain.policy.guardrail`` judges it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import asyncpg

from rollwave.domain.policy.document.model import GuardrailRule
from rollwave.domain.policy.guardrail import Numbers, Trip
from rollwave.domain.policy.sequential import NOTHING_SENT, Prefix
from rollwave.domain.policy.trials import BUCKETS_WANTED, NARROWEST_BUCKET, WIDEST_BUCKET, Bucket, prefixes
from rollwave.store.campaign_rows import AnyCampaign, Campaign
from rollwave.store.database import Connection
from rollwave.store.queries import load

_sql = load("guardrails")

MAX_DEVICES_AS_EVIDENCE = 20
"""Maximum number of failed devices that are stored with a trip."""

NO_WAVE, NO_LABELS = -1, "{}"


class Group(NamedTuple):
    """The devices of one test. ``wave``: for scope wave; ``labels``: for scope segment, by :func:`labels_text`."""

    guardrail: str
    wave: int = NO_WAVE
    labels: str = NO_LABELS

    @classmethod
    def of_segment(cls, rule: GuardrailRule, labels: Mapping[str, object]) -> Group:
        """The group of a guardrail of scope segment that has the devices of a segment with these labels."""
        return cls(rule.name, labels=labels_text({key: labels.get(key) for key in rule.per or ()}))


class Wanted(NamedTuple):
    """The buckets of a test to read: those with the dispatch numbers from ``lowest`` to ``highest``.

    ``judged``: all after ``lowest``. If fewer than ``whole_below`` devices have finished, all buckets.
    """

    group: Group
    lowest: int
    highest: int
    judged: bool
    whole_below: int


@dataclass(frozen=True, slots=True)
class Test:
    """A test as it is stored, with some of its buckets. ``before``: the devices of the buckets before these.

    ``began_after``: it covers devices with a higher dispatch number, and those that were in flight when it began.
    ``groups``: of its guardrail when it began.
    """

    number: int
    began_after: int = 0
    groups: int = 1
    finished: int = 0
    failed: int = 0
    tripped: bool = False
    buckets: Sequence[Bucket] = ()
    before: Prefix = NOTHING_SENT


@dataclass(frozen=True, slots=True)
class OpenTest:
    """A test that has not tripped, with its group and its numbers."""

    number: int
    group: Group
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Counted:
    """A test with the numbers to add to it, and its buckets that have changed."""

    test: Test
    finished: int
    failed: int
    buckets: Sequence[Bucket] = ()


def labels_text(labels: Mapping[str, object]) -> str:
    """The labels of a group as they are compared: equal labels give equal texts."""
    return json.dumps(labels, sort_keys=True)


async def find(connection: Connection, campaign: AnyCampaign, wanted: Sequence[Wanted]) -> dict[Group, Test]:
    """The tests of the ``wanted`` groups, without those that have not begun."""
    groups = [each.group for each in wanted]
    rows = await connection.fetch(
        _sql["find"],
        *(campaign.tenant_id, campaign.id, *_columns(groups)),
        *([getattr(each, name) for each in wanted] for name in ("lowest", "highest", "judged", "whole_below")),
    )
    return {
        groups[row["place"] - 1]: Test(
            row["number"],
            row["began_after"],
            row["of_groups"],
            row["finished"],
            row["failed"],
            row["tripped"],
            _buckets(row),
            Prefix(row["before_sent"], row["before_failures"], max(0, row["before_sent"] - row["before_ended"])),
        )
        for row in rows
    }


async def find_last(connection: Connection, campaign: Campaign, groups: Sequence[Group]) -> dict[Group, LastBucket]:
    """The tests of groups, each with its last bucket, without those that have not begun."""
    rows = await connection.fetch(_sql["last_buckets"], campaign.tenant_id, campaign.id, *_columns(groups))
    return {
        groups[row["place"] - 1]: LastBucket(
            row["number"],
            row["dispatched"],
            None
            if row["first"] is None
            else Bucket(row["first"], row["last_dispatched"], row["finished"], row["failed"]),
        )
        for row in rows
    }


class LastBucket(NamedTuple):
    """The number of a test, the number of its devices so far, and its last bucket (None: it has none yet)."""

    test: int
    dispatched: int = 0
    bucket: Bucket | None = None


async def begin(
    connection: Connection, campaign: AnyCampaign, groups: Sequence[Group], rules: Mapping[str, GuardrailRule]
) -> dict[Group, Test]:
    """Begin the tests of groups that have none. ``rules``: the guardrails, by name."""
    names = sorted({each.guardrail for each in groups})
    keys = [None if rules[each].per is None else json.dumps(rules[each].per) for each in names]
    rows = await connection.fetch(
        _sql["begin"],
        *(campaign.tenant_id, campaign.id, *_columns(groups)),
        *(campaign.policy_revision or 0, names, keys, [each.labels for each in groups]),
    )
    return {
        group: Test(row["number"], row["began_after"], row["of_groups"])
        for group, row in zip(groups, sorted(rows, key=lambda row: row["number"]), strict=True)
    }


async def cover_in_flight(
    connection: Connection, campaign: AnyCampaign, tests: Sequence[int], ended: Sequence[tuple[int, int]] = ()
) -> None:
    """Put devices that were in flight when tests of sequential guardrails began into buckets.

    Reads all devices in flight. ``ended``: those that this transaction has ended, as (test, dispatch number).
    """
    await connection.execute(
        _sql["cover_in_flight"],
        *(campaign.tenant_id, campaign.id, tests, [test for test, _ in ended], [number for _, number in ended]),
        *(NARROWEST_BUCKET, WIDEST_BUCKET, BUCKETS_WANTED),
    )


async def draw(connection: Connection, campaign: Campaign, drawn: Mapping[int, tuple[Sequence[Bucket], int]]) -> None:
    """Store devices that were sent to, by the number of the test: its changed buckets, and how many devices."""
    buckets = [(test, each) for test, (changed, _) in drawn.items() for each in changed]
    await connection.execute(
        _sql["draw"],
        *(campaign.tenant_id, campaign.id),
        *([test for test, _ in buckets], [each.first for _, each in buckets], [each.dispatched for _, each in buckets]),
        *(list(drawn), [devices for _, devices in drawn.values()]),
    )


async def count(connection: Connection, campaign: AnyCampaign, counted: Sequence[Counted]) -> None:
    """Store the devices that have ended."""
    buckets = [(each.test.number, bucket) for each in counted for bucket in each.buckets]
    await connection.execute(
        _sql["count"],
        *(campaign.tenant_id, campaign.id),
        *([test for test, _ in buckets], [each.first for _, each in buckets], [each.dispatched for _, each in buckets]),
        *([each.finished for _, each in buckets], [each.failed for _, each in buckets]),
        *([each.test.number for each in counted], [each.finished for each in counted]),
        [each.failed for each in counted],
    )


async def match_counters(connection: Connection, campaign: Campaign, names: Sequence[str]) -> None:
    """Raise the numbers of these guardrails' tests to the campaign's counters.

    The guardrails count every failure of the whole campaign. Counters include rows that other SQL changed. Not applied
    to a test that began when devices had been sent to.
    """
    await connection.execute(_sql["match_counters"], campaign.tenant_id, campaign.id, names)


async def in_force(connection: Connection, campaign: Campaign, names: Sequence[str]) -> list[OpenTest]:
    """The tests of guardrails that have not tripped and in which a device has finished, with all of their numbers."""
    rows = await connection.fetch(_sql["in_force"], campaign.tenant_id, campaign.id, names)
    return [OpenTest(row["number"], group_of(row), numbers_of(row)) for row in rows]


async def trip(connection: Connection, campaign: Campaign, test: int, evidence: Mapping[str, object]) -> bool:
    """Record that a test has tripped, with its evidence. False: it has tripped before."""
    arguments = campaign.tenant_id, campaign.id, test, json.dumps(evidence, ensure_ascii=False)
    return await connection.fetchval(_sql["trip"], *arguments) is not None


async def failed_devices(connection: Connection, campaign: Campaign, test: int, found: Trip) -> list[str]:
    """Up to ``MAX_DEVICES_AS_EVIDENCE`` devices of a test that count as failed, by id."""
    rows = await connection.fetch(
        _sql["failed_devices"],
        *(campaign.tenant_id, campaign.id, test, list(found.rule.count)),
        *(None if found.rule.codes is None else list(found.rule.codes), found.wave),
        *(labels_text(found.labels or {}), MAX_DEVICES_AS_EVIDENCE),
    )
    return [row["device_id"] for row in rows]


async def tripped(
    connection: Connection, campaign: Campaign, names: Sequence[str], *, segment: int | None = None
) -> dict[int, str]:
    """The guardrails of tests that have tripped, by the number of the test.

    ``segment``: only those that judge devices of this segment.
    """
    rows = await connection.fetch(_sql["tripped"], campaign.tenant_id, campaign.id, names, segment)
    return {row["number"]: row["guardrail"] for row in rows}


async def tripped_groups(connection: Connection, campaign: Campaign, groups: Sequence[Group]) -> set[Group]:
    """Those of the groups whose test has tripped."""
    rows = await connection.fetch(_sql["tripped_groups"], campaign.tenant_id, campaign.id, *_columns(groups))
    return {groups[row["place"] - 1] for row in rows}


async def begin_anew(connection: Connection, campaign: Campaign, tests: Sequence[int]) -> None:
    """Let tests begin anew: they cover the devices that have not finished yet.

    Those of sequential guardrails need :func:`cover_in_flight` then.
    """
    await connection.execute(_sql["begin_anew"], campaign.tenant_id, campaign.id, tests)


async def replace_rules(
    connection: Connection, campaign: Campaign, *, kept: Sequence[str], anew: Sequence[str], revision: int
) -> dict[str, int]:
    """Delete the tests of all guardrails but the ``kept`` ones.

    Tests of the guardrails ``anew`` then cover the devices that have not finished yet. Returns the numbers of their
    first rows, by guardrail: of those with scope campaign, these are the tests.
    """
    await connection.execute(_sql["forget"], campaign.tenant_id, campaign.id, kept)
    if not anew:
        return {}
    rows = await connection.fetch(_sql["insert_first_rows"], campaign.tenant_id, campaign.id, anew, revision)
    return {row["guardrail"]: row["number"] for row in rows}


def _columns(groups: Sequence[Group]) -> tuple[list[str], list[int], list[str]]:
    return [each.guardrail for each in groups], [each.wave for each in groups], [_key(each.labels) for each in groups]


def _key(labels: str) -> str:
    return "" if labels == NO_LABELS else sha256(labels.encode()).hexdigest()[:32]


def group_of(row: asyncpg.Record) -> Group:
    """The group of devices of a test's row."""
    return Group(row["guardrail"], row["wave"], labels_text(json.loads(row["labels"])))


def numbers_of(row: asyncpg.Record) -> Numbers:
    """The numbers of a test's row that has all of its buckets."""
    return Numbers(row["finished"], row["failed"], row["of_groups"], prefixes(NOTHING_SENT, _buckets(row)))


def _buckets(row: asyncpg.Record) -> list[Bucket]:
    columns = (row[each] or () for each in ("firsts", "sent", "ended", "failures"))
    return [Bucket(*each) for each in zip(*columns, strict=True)]
