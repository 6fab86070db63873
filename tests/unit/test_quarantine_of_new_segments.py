"""Segments that an edit puts under quarantine, since devices of segments under quarantine are in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.quarantine import Carried, carried
from rollwave.domain.policy.quarantined import QuarantinedSegment

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", None]))


@given(st.lists(LABELS, min_size=1, max_size=6), st.lists(LABELS, max_size=6), st.data())
def test_the_first_segment_whose_labels_cover_a_new_one_gives_it_its_quarantine(
    new: list[dict[str, object]], old: list[dict[str, object]], data: st.DataObject
) -> None:
    quarantined = [
        QuarantinedSegment(number, labels, f"reason {number}") for number, labels in enumerate(old, start=100)
    ]
    pairs = st.tuples(st.sampled_from(range(100, 107)), st.sampled_from(range(len(new))))
    moved = data.draw(st.lists(pairs, max_size=4, unique=True))
    is_new = {number: labels for number, labels in enumerate(new) if number % 2}
    found = {each.number: each for each in carried(is_new, moved, dict(enumerate(new)), quarantined)}
    for number, labels in enumerate(new):
        sources = [
            each
            for each in quarantined
            if (number in is_new and each.labels.items() <= labels.items()) or (each.number, number) in moved
        ]
        covering = [each for each in sources if each.labels.items() <= labels.items()]
        wider = [each for each in sources if {**each.labels, **labels} == {**labels, **each.labels}]
        expected = next(iter(covering or wider), None)
        assert (found[number].source if number in found else None) == (None if expected is None else expected.number)
        if covering:
            assert found[number] == Carried(number, covering[0].number, covering[0].reason)
