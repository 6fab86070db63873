"""Decides whether an installation belongs to this database. A copy has every row of the original, also its id."""

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
    """Bound to no database, but workers have listened: the rows of another database were loaded into this one."""
    UNREADABLE = "unreadable"
    """PostgreSQL does not tell the identifier of this database."""

    @property
    def decided(self) -> bool:
        """Whether the engine may work here."""
        return self in {Standing.HERE, Standing.NEW}


def standing(here: str | None, bound_to: Sequence[str | None], *, used: bool) -> Standing:
    """Decide which standing this database has.

    Args:
        here: PostgreSQL's identifier of this database; None: it does not tell.
        bound_to: for each installation row, the identifier of its database; None: not bound. There is one row, or two
            if the rows of a dump were added to those of a new schema.
        used: whether a session that no longer exists has held a slot, here or in the database that was copied.
    """
    if here is None:
        return Standing.UNREADABLE
    if any(each not in {None, here} for each in bound_to):
        return Standing.ELSEWHERE
    if here in bound_to:
        return Standing.HERE
    return Standing.UNBOUND if used or not bound_to else Standing.NEW
