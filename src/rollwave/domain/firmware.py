"""Checks a row of ``firmware_versions``, which any program may have written, and prepares its values for a command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rollwave.errors import InvalidInput, UnreadableRow

_URL = re.compile(r"https?://[^/?#\s]", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_OTHERS = (
    (re.compile(r"(?:md5:)?[0-9a-f]{32}"), "an MD5 sum"),
    (re.compile(r"(?:sha1:)?[0-9a-f]{40}"), "a SHA-1 sum"),
    (re.compile(r"(?:sha512:)?[0-9a-f]{128}"), "a SHA-512 sum"),
    (re.compile(r"(?:sha256-)?[0-9a-z+/_-]{43}=?"), "SHA-256 in base64"),
)
"""Names of values that are written in a checksum's place by mistake. The patterns match lower case."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware that can be sent. ``checksum`` is 64 hex digits in lower case; empty: unknown.

    ``size`` is in bytes; None: unknown.
    """

    url: str
    version: str
    checksum: str
    size: int | None


def read(url: str | None, version: str | None, checksum: str | None, size: object) -> Firmware:
    """Read a row of ``firmware_versions``. The engine pauses a campaign whose firmware cannot be read.

    Blanks and line breaks around a value are dropped. A ``size`` of NULL or 0, or one that is no whole number, counts
    as unknown.

    Raises:
        UnreadableRow: a value would fail on every device. The message names the value and the mistake.
    """
    url = (url or "").strip()
    if not url or version is None:
        raise UnreadableRow("the campaign's firmware version does not exist, or has no file_url")
    if not version.strip():
        raise UnreadableRow("the firmware's version is empty", hint=_HINT)
    if _CONTROL.search(url):
        raise UnreadableRow("the firmware's file_url holds a control character", hint=_HINT)
    if not _URL.match(url):
        raise UnreadableRow("the firmware's file_url is not an http or https URL", hint=_HINT)
    try:
        digest = read_checksum(checksum)
    except InvalidInput as error:
        raise UnreadableRow(str(error), hint=error.hint) from error
    return Firmware(url, version.strip(), digest, size if type(size) is int and size > 0 else None)


def read_checksum(text: str | None) -> str:
    """A SHA-256 as 64 hex digits in lower case; empty if there is none.

    The text may have upper case, the prefix ``sha256:``, and blanks around it.

    Raises:
        InvalidInput: the text is not a SHA-256.
    """
    written = "".join((text or "").split()).lower()
    if not written:
        return ""
    if found := _SHA256.fullmatch(written):
        return found[1]
    kind = next((kind for pattern, kind in _OTHERS if pattern.fullmatch(written)), "")
    raise InvalidInput(
        f"the firmware's checksum_sha256 is {kind or 'not a SHA-256'}: 64 hex digits are needed",
        hint="sha256sum computes it.",
    )


_HINT = "Correct the firmware's row, then start the campaign again."
