"""Checks the URL of an artifact.

Devices get a URL byte for byte as it was registered, and many use a client that encodes nothing. So it must
be ASCII: other characters are percent-encoded in the path, and an internationalised host has its ASCII form.
Any other URL is refused, with an error message that gives the correct form. A URL is never rewritten.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

_SCHEME = re.compile("https?://", re.IGNORECASE)
_HOST = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?"
_IPV6 = r"\[[0-9A-Fa-f:.]{2,45}\]"
_PORT = r"(:[0-9]{1,5})?"
_REST = r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]"

URL_PATTERN = rf"^[Hh][Tt][Tt][Pp][Ss]?://({_HOST}|{_IPV6}){_PORT}([/?#]{_REST}*)?$"
"""Regular expression of the accepted URLs."""

_url, _host, _one = re.compile(URL_PATTERN), re.compile(f"{_HOST}|{_IPV6}"), re.compile(_REST)


def fault(text: str) -> str | None:
    """The first mistake in ``text``, as a sentence that begins with "Should"; None if it is a correct URL."""
    if _url.fullmatch(text):
        return None
    for number, character in enumerate(text, 1):
        if unicodedata.category(character) in {"Cc", "Cs"}:
            return f"Should not contain {_code(character)}, at character {number}"
    if text != text.strip():
        return "Should have no blank at either end"
    scheme = _SCHEME.match(text)
    if scheme is None:
        return "Should begin with http:// or https://"
    authority = re.split("[/?#]", text[scheme.end() :], maxsplit=1)[0]
    return _authority_fault(authority) or _rest_fault(text, scheme.end() + len(authority))


def _authority_fault(authority: str) -> str | None:
    if "@" in authority:
        return "Should not contain a user name and password"
    if authority.startswith("[") and "]" not in authority:
        return "Should close the bracket around the IPv6 address of the host"
    host, port = (authority, None) if authority.endswith("]") else _split(authority)
    if not host.isascii():
        ascii_form = _in_ascii(host)
        return f"Should name the host as {ascii_form}" if ascii_form else "Should name the host in ASCII, as xn--…"
    if not _host.fullmatch(host):
        return "Should name a host, of A-Z a-z 0-9 . _ -"
    if port is not None and not re.fullmatch("[0-9]{1,5}", port):
        return "Should have a port of 1 to 5 digits"
    return None


def _split(authority: str) -> tuple[str, str | None]:
    host, colon, port = authority.rpartition(":")
    return (host, port) if colon else (authority, None)


def _in_ascii(host: str) -> str | None:
    """The host in the ASCII form that DNS uses; None where IDNA 2003 and 2008 disagree about it."""
    try:
        name = host.encode("idna").decode("ascii")
        certain = name.encode("ascii").decode("idna") == host.lower()
    except UnicodeError:
        return None
    return name if certain and _host.fullmatch(name) else None


def _rest_fault(text: str, start: int) -> str:
    at = next(index for index in range(start, len(text)) if not _one.fullmatch(text[index]))
    return f"Should have {_shown(text[at])} at character {at + 1} written as {quote(text[at], safe='')}"


def _shown(character: str) -> str:
    if character == " ":
        return "the blank"
    return f'"{character}"' if character.isprintable() else _code(character)


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
