"""Which addresses a person may be sent back to after logging in, and which origin may send forms."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from fastapi import Request

HOME = "/console/campaigns"
LOGIN = "/console/login"


def safe_next(wanted: str | None) -> str:
    """``wanted`` if it is a page of the console at this server, else the list of campaigns.

    Browsers take two slashes, backslashes, and a slash after a tab for the beginning of another server's address, and
    they resolve ``..``, also percent-encoded.
    """
    if not wanted or len(wanted) > 2000 or "\\" in wanted or not wanted.isprintable() or " " in wanted:
        return HOME
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return HOME
    segments = unquote(parts.path).split("/")
    if parts.scheme or parts.netloc or not wanted.startswith("/console/") or "" in segments[1:] or ".." in segments:
        return HOME
    return HOME if segments[2] in {"login", "logout", "static", "theme"} else wanted


def here(request: Request) -> str:
    """The path and query of a request, to come back to."""
    path: str = request.scope["path"]
    query = request.scope["query_string"].decode("ascii", "replace")
    return quote(path, safe="/:@!$&'()*+,;=~-._") + (f"?{query}" if query else "")


def page_of(request: Request) -> str:
    """The page on which a form or a partial request was made; for a plain GET, the request's own address."""
    shown = request.headers.get("HX-Current-URL") or request.headers.get("Referer")
    if request.method == "GET" and "HX-Request" not in request.headers:
        return safe_next(here(request))
    try:
        parts = urlsplit(shown or "")
    except ValueError:
        return HOME
    return safe_next(parts.path + (f"?{parts.query}" if parts.query else ""))


def with_next(address: str) -> str:
    """The login page that leads back to ``address``."""
    return LOGIN if address == HOME else f"{LOGIN}?next={quote(address, safe='')}"


def from_elsewhere(request: Request) -> bool:
    """Whether a browser says that another site sent this request."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:  # browsers send it over HTTPS and to localhost; no script can set it
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
    except ValueError:
        return True
