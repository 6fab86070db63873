"""Parameters of the console's routes: the session, with the role that the route needs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from rollwave.console.session import Session
from rollwave.domain.role import Role
from rollwave.errors import Forbidden


def _session(request: Request) -> Session:
    session: Session = request.state.session
    return session


def require(session: Session, needed: Role) -> Session:
    """The session, if its key has this role or a higher one.

    Raises:
        Forbidden: it has not.
    """
    if not session.role.covers(needed):
        raise Forbidden(f"This needs the role {needed}; your key is {_article(session.role)} {session.role}.")
    return session


def _article(role: Role) -> str:
    return "an" if role[0] in "aeiou" else "a"


def _operator(session: Annotated[Session, Depends(_session)]) -> Session:
    return require(session, Role.OPERATOR)


def _approver(session: Annotated[Session, Depends(_session)]) -> Session:
    return require(session, Role.APPROVER)


def _admin(session: Annotated[Session, Depends(_session)]) -> Session:
    return require(session, Role.ADMIN)


Viewer = Annotated[Session, Depends(_session)]
"""Parameter of a route that reads."""
Operator = Annotated[Session, Depends(_operator)]
"""Parameter of a route that changes something."""
Approver = Annotated[Session, Depends(_approver)]
Admin = Annotated[Session, Depends(_admin)]
