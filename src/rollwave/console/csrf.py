"""Form tokens: a form is accepted only from a page that this server made for the same session."""

from __future__ import annotations

import hmac
import secrets

from fastapi import Request
from starlette.exceptions import HTTPException

from rollwave.console.addresses import from_elsewhere
from rollwave.console.session import VISITOR, Session, keeper

FIELD = "csrf_token"
_MASKED_BYTES = 64
HEADER = "X-CSRF-Token"
"""Scripts may send the token in this header instead of the field."""


class StaleForm(HTTPException):
    """A form without the token of this session: it was made before the login, or by another site."""

    def __init__(self) -> None:
        super().__init__(403, "This form is out of date. Load the page again and repeat the action.")


def nonce(request: Request) -> str:
    """What the tokens of this request's pages are bound to: the session, or the cookie of a visitor without one."""
    session: Session | None = getattr(request.state, "session", None)
    if session is not None:
        return session.nonce
    if not hasattr(request.state, "visitor"):
        request.state.visitor = request.cookies.get(VISITOR) or secrets.token_hex(16)
    visitor: str = request.state.visitor
    return visitor


def masked(token: str) -> str:
    """``token`` in another form each time: the size of a compressed page then says nothing about it."""
    secret = bytes.fromhex(token)
    mask = secrets.token_bytes(len(secret))
    return (mask + _xor(mask, secret)).hex()


def _unmasked(given: str) -> str:
    try:
        both = bytes.fromhex(given)
    except ValueError:
        return ""
    half = len(both) // 2
    return _xor(both[:half], both[half:]).hex() if len(both) == _MASKED_BYTES else given


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


async def require(request: Request) -> None:
    """Check the token of a request that changes something.

    Raises:
        StaleForm: it has none, or another one, or another site sent it.
    """
    if from_elsewhere(request):
        raise StaleForm
    given: object = request.headers.get(HEADER)
    if given is None:
        given = (await request.form()).get(FIELD)
    expected = (await keeper(request).sealed()).token(nonce(request))
    if not isinstance(given, str) or not hmac.compare_digest(_unmasked(given).encode(), expected.encode()):
        raise StaleForm
