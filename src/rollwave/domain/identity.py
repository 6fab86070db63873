"""Whether a database is the one that its installation belongs to. A copy has every row of the original, its id too."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Standing(StrEnum):
    """What a database is to the installation whose rows it holds."""

    HERE = "here"
    """The installation is bound to this database."""
    NEW = "new"
    """It is bound to no database, and no worker has listened yet: the first one binds it."""
    ELSEWHERE = "elsewhere"
    """It is bound to another database: this one is a copy, or it was moved."""
    UNBOUND = "unbound"
    """Workers have listened, and nothing says in which database: rows of another database were loaded into this one."""
    UNREADABLE = "unreadable"
    """PostgreSQL does not tell which database this is."""

    @property
    def decided(self) -> bool:
        """Whether the engine may work here."""
        return self in {Standing.HERE, Standing.NEW}


def standing(here: str | None, bound_to: Sequence[str | None], *, used: bool) -> Standing:
    """Judge a database.

    Args:
        here: what PostgreSQL calls this database; None: it does not tell.
        bound_to: for each installation row, the database that it is bound to; None: it is not bound. There is one row,
            or two where the rows of a dump were added to those of a new schema.
        used: a listener that is not here now has held a slot, in this database or in the one that it was copied from.
    """
    if here is None:
        return Standing.UNREADABLE
    if any(each not in {None, here} for each in bound_to):
        return Standing.ELSEWHERE
    if here in bound_to:
        return Standing.HERE
    return Standing.UNBOUND if used or not bound_to else Standing.NEW
