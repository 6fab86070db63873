"""The database that an installation belongs to."""

from __future__ import annotations

import pytest

from rollwave.domain.identity import Standing, standing

THIS_DATABASE, OTHER_DATABASE = "7300000000000000001/16384", "7300000000000000001/16390"


@pytest.mark.parametrize(
    ("here", "bound_to", "used", "expected"),
    [
        (THIS_DATABASE, [THIS_DATABASE], True, Standing.HERE),
        (THIS_DATABASE, [THIS_DATABASE], False, Standing.HERE),
        (THIS_DATABASE, [None], False, Standing.NEW),
        (THIS_DATABASE, [None], True, Standing.UNBOUND),
        (THIS_DATABASE, [OTHER_DATABASE], True, Standing.ELSEWHERE),
        (THIS_DATABASE, [OTHER_DATABASE], False, Standing.ELSEWHERE),
        (THIS_DATABASE, [THIS_DATABASE, OTHER_DATABASE], True, Standing.ELSEWHERE),  # Rows of a dump, in a new schema.
        (THIS_DATABASE, [None, OTHER_DATABASE], False, Standing.ELSEWHERE),
        (THIS_DATABASE, [THIS_DATABASE, None], True, Standing.HERE),
        (THIS_DATABASE, [], False, Standing.UNBOUND),
        (None, [THIS_DATABASE], True, Standing.UNREADABLE),
        (None, [None], False, Standing.UNREADABLE),
    ],
)
def test_a_databases_standing_depends_on_where_it_is_bound(
    here: str | None, bound_to: list[str | None], used: bool, expected: Standing
) -> None:
    found = standing(here, bound_to, used=used)
    assert found is expected
    assert found.decided == (expected in {Standing.HERE, Standing.NEW})
