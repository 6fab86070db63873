"""Buckets of a guardrail's test: a device is counted in the bucket of its dispatch number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollwave.domain.policy.sequential import Prefix
from rollwave.domain.policy.trials import Bucket, EndedTrial, draw, end, prefixes, width


def drawn(claims: list[list[int]]) -> list[Bucket]:
    buckets: list[Bucket] = []
    for numbers in claims:
        for each in draw(buckets[-1] if buckets else None, sum(b.dispatched for b in buckets), numbers):
            if buckets and buckets[-1].first == each.first:
                buckets[-1] = each
            else:
                buckets.append(each)
    return buckets


def test_a_bucket_holds_a_fortieth_of_the_devices_within_25_and_1000() -> None:
    assert [width(n) for n in (0, 1000, 1040, 20_000, 40_000, 10_000_000)] == [25, 25, 26, 500, 1000, 1000]


def test_a_claim_fills_the_last_bucket_and_begins_others() -> None:
    assert drawn([list(range(1, 11))]) == [Bucket(1, 10)]
    assert drawn([list(range(1, 11)), list(range(11, 61))]) == [Bucket(1, 25), Bucket(26, 25), Bucket(51, 10)]


def test_a_test_that_covers_some_devices_has_buckets_over_gaps() -> None:
    assert drawn([list(range(7, 207, 4))]) == [Bucket(7, 25), Bucket(107, 25)]


def test_a_number_that_is_drawn_again_stays_in_the_last_bucket() -> None:
    assert drawn([list(range(1, 26)), [1], [26]]) == [Bucket(1, 26), Bucket(26, 1)]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_every_device_is_in_one_bucket_and_no_bucket_is_wider_than_its_width(claims: list[int]) -> None:
    numbers = iter(range(1, sum(claims) + 1))
    buckets = drawn([[next(numbers) for _ in range(size)] for size in claims])
    assert sum(each.dispatched for each in buckets) == sum(claims)
    before = 0
    for each, following in zip(buckets, [*buckets[1:], None], strict=True):
        assert each.first == before + 1
        assert each.dispatched == width(before) if following else each.dispatched <= width(before)
        before += each.dispatched


def test_devices_that_end_are_counted_in_their_bucket() -> None:
    buckets = [Bucket(10, 25), Bucket(35, 25)]
    ended = [
        EndedTrial(10, finished=True, failed=True),
        EndedTrial(34, finished=True, failed=False),
        EndedTrial(59, True, True),
    ]
    assert end(buckets, ended) == {0: Bucket(10, 25, 2, 1), 1: Bucket(35, 25, 1, 1)}
    assert end(buckets, [EndedTrial(9, finished=True, failed=True)]) == {}, "of a test before this one"
    assert end(buckets, [EndedTrial(35, finished=False, failed=True)]) == {1: Bucket(35, 25, 1, 1)}


def test_a_prefix_ends_with_each_bucket() -> None:
    found = prefixes(Prefix(100, 3, 20), [Bucket(101, 25, 25, 1), Bucket(126, 10, 4, 2)])
    assert found == [Prefix(125, 4, 20), Prefix(135, 6, 26)]
