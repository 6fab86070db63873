"""Budgets of a policy document: which devices a claim takes, and which wait."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.execution import Cell
from rollwave.domain.ids import DeviceId
from rollwave.domain.policy.budgets import Candidate, Choice, Key, Return, freed, keys_of

NORTH, SOUTH, LINE = Key(1, "north"), Key(1, "south"), Key(2, "line 1")


def candidate(name: str, *keys: Key, in_flight: tuple[int, ...] = (), segment: int = 1, ok: bool = True) -> Candidate:
    return Candidate(DeviceId(name), Cell(0, segment), name, keys, in_flight or (0,) * len(keys), ok)


def names(choice: Choice) -> list[str]:
    return [each.device_id for each in choice.accepted]


def test_a_value_of_a_budget_is_taken_once_each_and_a_device_without_the_label_has_no_limit() -> None:
    choice = Choice([1, 1], room=10)
    looked_at = [candidate("a", NORTH), candidate("b", NORTH), candidate("c"), candidate("d", SOUTH)]
    held, returns = choice.look_at(looked_at)
    assert names(choice) == ["a", "c", "d"]
    assert [(each.candidate.device_id, each.key) for each in held] == [("b", NORTH)]
    assert returns == []
    assert keys_of(["north", None, "x"]) == [NORTH, Key(3, "x")]
    assert keys_of(None) == []


def test_devices_beyond_those_that_the_claim_may_take_are_not_held() -> None:
    choice = Choice([1], room=1)
    assert choice.look_at([candidate("a", NORTH), candidate("b", NORTH)]) == ([], [])
    assert choice.full
    assert choice.look_at([candidate("c", SOUTH)]) == ([], [])


def test_a_device_that_another_budget_blocks_lets_the_next_ones_of_its_first_value_return() -> None:
    choice = Choice([2, 1], room=10)
    blocked = [candidate(each, NORTH, LINE, in_flight=(0, 1), segment=3) for each in "ab"]
    held, returns = choice.look_at(blocked)
    assert [each.key for each in held] == [LINE, LINE]
    assert returns == [Return(NORTH, 3, 4)], "twice as many"


def test_a_device_that_cannot_be_addressed_is_skipped_and_takes_no_place() -> None:
    choice = Choice([1], room=10)
    held, returns = choice.look_at([candidate("a", NORTH, ok=False), candidate("b", NORTH), candidate("c", NORTH)])
    assert names(choice) == ["a", "b"]
    assert [each.candidate.device_id for each in held] == ["c"]
    assert returns == [Return(NORTH, 1, 2)]
    assert choice.taken == {NORTH: 1}
    full = candidate("d", SOUTH, in_flight=(1,), ok=False)
    assert Choice([1], room=10).look_at([full]) == ([], []), "it need not wait for the others"


def test_the_places_that_become_free() -> None:
    assert freed(2, before=2, after=0) == 2
    assert freed(2, before=5, after=2) == 0, "an operator's retry had put more in flight"
    assert freed(2, before=3, after=1) == 1
    assert freed(2, before=1, after=2) == -1


keys = st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=2, max_size=2).map(keys_of)


@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.lists(keys, max_size=12),
    st.dictionaries(
        st.tuples(st.integers(1, 2), st.sampled_from("abc")).map(lambda each: Key(*each)), st.integers(0, 4)
    ),
    st.integers(0, 6),
)
def test_no_value_exceeds_its_budget_and_a_device_is_held_only_for_a_full_value(
    caps: list[int], devices: list[list[Key]], in_flight: dict[Key, int], room: int
) -> None:
    choice = Choice(caps, room)
    of = [
        candidate(f"dev-{number}", *each, in_flight=tuple(in_flight.get(key, 0) for key in each))
        for number, each in enumerate(devices)
    ]
    held = [each for part in (of[:5], of[5:]) for each in choice.look_at(part)[0]]
    after = Counter(in_flight) + Counter(key for each in choice.accepted for key in each.keys)
    for key, number in after.items():
        assert number <= max(caps[key.budget - 1], in_flight.get(key, 0))
    assert len(choice.accepted) <= room
    assert all(after[each.key] >= caps[each.key.budget - 1] for each in held)
    looked_at = len(choice.accepted) + len(held)
    assert choice.full or looked_at == len(of)
    assert {each.device_id for each in (*choice.accepted, *(each.candidate for each in held))} == {
        each.device_id for each in of[:looked_at]
    }, "in the order of the queue"
