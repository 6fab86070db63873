"""Which segments an edit of the document puts under quarantine, since devices of others under quarantine enter them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from rollwave.domain.policy.quarantined import QuarantinedSegment

Labels: TypeAlias = Mapping[str, object]


class Carried(NamedTuple):
    """A segment that gets the quarantine of the segment ``source``, and why."""

    number: int
    source: int
    reason: str


def carried(
    new: Mapping[int, Labels],
    moved: Iterable[tuple[int, int]],
    entered: Mapping[int, Labels],
    quarantined: Sequence[QuarantinedSegment],
) -> list[Carried]:
    """The segments that get the quarantine of another one: of several, the first in the order of ``quarantined``.

    ``new``: the labels of new segments, by number. Those with all labels of one under quarantine get its quarantine.
    ``moved``: pairs of a segment under quarantine that devices have left, and the one that they have ``entered``. This
    gets the quarantine too, unless a label has another value: with fewer labels, it is wider.
    """
    found: dict[int, Carried] = {}
    places = _by_labels(quarantined)
    for number, labels in new.items():
        covering = [
            place
            for keys, of_values in places.items()
            if all(key in labels for key in keys)
            and (place := of_values.get(tuple(labels[key] for key in keys))) is not None
        ]
        if covering:
            source = quarantined[min(covering)]
            found[number] = Carried(number, source.number, source.reason)
    by_number = {each.number: (place, each) for place, each in enumerate(quarantined)}
    pairs = [(*by_number[left], number, entered[number]) for left, number in moved if left in by_number]
    for _, source, number, labels in sorted(pairs, key=lambda pair: (not _has_all(pair[3], pair[1].labels), pair[0])):
        if number not in found and all(labels.get(key, value) == value for key, value in source.labels.items()):
            found[number] = Carried(number, source.number, _reason(source, labels))
    return [found[number] for number in sorted(found)]


def _by_labels(
    quarantined: Sequence[QuarantinedSegment],
) -> dict[tuple[str, ...], dict[tuple[object, ...], int]]:
    """The first place in the sequence of the values of labels, by the keys of the labels: these are few."""
    found: dict[tuple[str, ...], dict[tuple[object, ...], int]] = {}
    for place, each in enumerate(quarantined):
        keys = tuple(sorted(each.labels))
        found.setdefault(keys, {}).setdefault(tuple(each.labels[key] for key in keys), place)
    return found


def _has_all(labels: Labels, others: Labels) -> bool:
    return others.items() <= labels.items()


def _reason(source: QuarantinedSegment, labels: Labels) -> str:
    if _has_all(labels, source.labels):
        return source.reason
    return (
        f"has devices of segment {source.number}, which was under quarantine when the policy was edited: "
        f"{source.reason}"
    )
