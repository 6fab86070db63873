"""Sessions of the console: a signed cookie with the id of an API key, which is checked on every request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from fastapi import Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from rollwave.domain.role import Role
from rollwave.store import access, console_secret
from rollwave.store.access import Grant
from rollwave.store.database import Pool

LIFETIME = timedelta(hours=12)
"""A session ends so long after its login, however much it was used."""
COOKIE = "rollwave_session"
VISITOR = "rollwave_visitor"
"""The cookie of a browser without a session, to which the login form's token is bound."""
PATH = "/console"

_SECRET_SECONDS = 60.0
"""How long a process uses the secret before it reads it again. A changed secret ends all sessions after this time."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person at the console: the key that they logged in with, and its role now.

    ``nonce`` is random for each login. The tokens in the session's forms are bound to it. ``ends_at``: seconds since
    1970.
    """

    tenant_id: str
    key_id: str
    role: Role
    nonce: str
    ends_at: float

    @property
    def grant(self) -> Grant:
        """The grant as the API's functions take it."""
        return Grant(self.tenant_id, self.key_id, self.role)


class Sealed:
    """Signs and reads cookies and tokens with the installation's secret. ``secret`` is at least 32 characters."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def seal(self, purpose: str, content: object) -> str:
        """``content`` as a signed text. What was sealed for one purpose is not valid for another."""
        return self._serializer(purpose).dumps(content)

    def open(self, purpose: str, text: str | None, max_age: timedelta) -> object | None:
        """The content of a sealed text; None: it is missing, forged, too old or for another purpose."""
        try:
            content: object = self._serializer(purpose).loads(text or "", max_age=int(max_age.total_seconds()))
        except BadData:
            return None
        return content

    def token(self, nonce: str) -> str:
        """The token of the forms of the session, or of the visitor, with this nonce."""
        return hmac.new(self._secret.encode(), f"form\0{nonce}".encode(), hashlib.sha256).hexdigest()

    def _serializer(self, purpose: str) -> URLSafeTimedSerializer:
        salt = f"rollwave.console.{purpose}"
        return URLSafeTimedSerializer(self._secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})


class Keeper:
    """Opens and checks the sessions of one process. ``pool`` is the engine's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sealed: Sealed | None = None
        self._read_at = 0.0

    async def sealed(self) -> Sealed:
        """Signs with the installation's secret, which is read again once a minute."""
        if self._sealed is None or time.monotonic() - self._read_at > _SECRET_SECONDS:
            self._sealed = Sealed(await console_secret.read(self._pool))
            self._read_at = time.monotonic()
        return self._sealed

    async def find(self, request: Request) -> Session | None:
        """The session of a request; None: no cookie, or its key has expired or was revoked, or 12 hours are over."""
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            return None
        content = (await self.sealed()).open("session", cookie, LIFETIME)
        if not isinstance(content, list) or len(content) != 4:
            return None
        tenant_id, key_id, nonce = map(str, content[:3])
        grant = await access.recheck(self._pool, tenant_id, key_id)
        return None if grant is None else Session(tenant_id, key_id, grant.role, nonce, float(content[3]))

    async def begin(self, request: Request, response: Response, grant: Grant) -> None:
        """Let ``response`` set the cookie of a new session."""
        ends_at = time.time() + LIFETIME.total_seconds()
        content = [grant.tenant_id, grant.key_id, secrets.token_hex(16), ends_at]
        cookie = (await self.sealed()).seal("session", content)
        set_cookie(request, response, COOKIE, cookie, max_age=LIFETIME)
        drop_cookie(response, VISITOR)


def set_cookie(request: Request, response: Response, name: str, value: str, *, max_age: timedelta | None) -> None:
    """Set a cookie that scripts cannot read and other sites' forms do not send, over TLS only if this request was.

    Behind a proxy, the scheme is the one in ``X-Forwarded-Proto`` if the server trusts the proxy's address.
    """
    response.set_cookie(
        name,
        value,
        max_age=None if max_age is None else int(max_age.total_seconds()),
        path=PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def drop_cookie(response: Response, name: str) -> None:
    """Delete a cookie of :func:`set_cookie`."""
    response.delete_cookie(name, path=PATH, httponly=True, samesite="lax")


def keeper(request: Request) -> Keeper:
    """The keeper of the application that handles ``request``."""
    found: Keeper = request.app.state.keeper
    return found


async def login_link(pool: Pool, grant: Grant, base_url: str, *, valid_for: timedelta = timedelta(days=30)) -> str:
    """A link that logs in with the key of ``grant``, for a program that starts a console, such as the demo.

    It may be used any number of times in ``valid_for``, until the key ends. Whoever has it can do what the key can do.
    The server redirects to an address without it.

    Args:
        pool: connections to the database of the console.
        base_url: such as ``http://127.0.0.1:8080``.
    """
    ends_at = time.time() + valid_for.total_seconds()
    token = Sealed(await console_secret.read(pool)).seal("link", [grant.tenant_id, grant.key_id, ends_at])
    return f"{base_url.rstrip('/')}/console/login?{urlencode({'link': token})}"


async def of_link(request: Request, token: str) -> Grant | None:
    """The grant of a login link; None: it is invalid or too old, or its key is."""
    content = (await keeper(request).sealed()).open("link", token, timedelta(days=3650))
    if not isinstance(content, list) or len(content) != 3 or float(content[2]) < time.time():
        return None
    return await access.recheck(request.app.state.pool, str(content[0]), str(content[1]))
