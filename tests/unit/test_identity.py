"""The database that an installation belongs to."""

from __future__ import annotations

import pytest

from rollwave.domain.identity import Standing, standing

HERE, THERE = "7300000000000000001/16384", "7300000000000000001/16390"


@pytest.mark.parametrize(
    ("here", "bound_to", "used", "expected"),
    [
        (HERE, [HERE], True, Standing.HERE),
        (HERE, [HERE], False, Standing.HERE),
        (HERE, [None], False, Standing.NEW),
        (HERE, [None], True, Standing.UNBOUND),
        (HERE, [THERE], True, Standing.ELSEWHERE),
        (HERE, [THERE], False, Standing.ELSEWHERE),
        (HERE, [HERE, THERE], True, Standing.ELSEWHERE),  # Rows of a dump, in a new schema.
        (HERE, [None, THERE], False, Standing.ELSEWHERE),
        (HERE, [HERE, None], True, Standing.HERE),
        (HERE, [], False, Standing.UNBOUND),
        (None, [HERE], True, Standing.UNREADABLE),
        (None, [None], False, Standing.UNREADABLE),
    ],
)
def test_a_databases_standing_depends_on_where_it_is_bound(
    here: str | None, bound_to: list[str | None], used: bool, expected: Standing
) -> None:
    found = standing(here, bound_to, used=used)
    assert found is expected
    assert found.decided == (expected in {Standing.HERE, Standing.NEW})
