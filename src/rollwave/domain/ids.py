"""Ids: their types, and the rule for a tenant or device id.

Such an id is one level of an MQTT topic that a person can type (ADR 29). Ids are compared as they are given, character
by character: nothing is normalised.
"""

from __future__ import annotations

import re
from typing import NewType
from urllib.parse import quote

TenantId = NewType("TenantId", str)
DeviceId = NewType("DeviceId", str)
CampaignId = NewType("CampaignId", int)

MAX_ID_CHARACTERS = 128

ID_RULE = (
    f"1 to {MAX_ID_CHARACTERS} characters, none of / + # and no control characters, no $ at the beginning and "
    "no blank at either end"
)
"""The rule for an id, as a text for error messages."""

UNSENDABLE = f"device id cannot be an MQTT topic level: it has to be {ID_RULE}"

MAX_BIGINT = 2**63 - 1

_BMP = r"/+#\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff"
"""Characters that no id may contain: level separators, wildcards, control characters and non-characters. MQTT allows
brokers to end the connection for the last two. In each plane after the first, the last two are non-characters."""
_PLANES = range(0x1FFFE, 0x110000, 0x10000)
_NEVER = rf"{_BMP}\ud800-\udfff" + "".join(rf"\U{last:08x}\U{last + 1:08x}" for last in _PLANES)
_BLANKS = r" \u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
"""Invisible characters: blanks of every width, also zero, line separators, direction marks."""


def _pattern(never: str) -> str:
    return f"[^{never}{_BLANKS}$](?:[^{never}]{{0,{MAX_ID_CHARACTERS - 2}}}[^{never}{_BLANKS}])?"


ID_PATTERN = f"^{_pattern(_BMP + ''.join(chr(last) + chr(last + 1) for last in _PLANES))}$"
"""A pattern that matches an id, for ECMA 262 (with the flag ``u``) and Rust: without ``\\U`` and without surrogates."""

UNADDRESSABLE = rf"^$|^[$]|^[{_BLANKS}]|[{_NEVER}]|[{_BLANKS}]$"
"""A pattern that PostgreSQL finds in a string of at most ``MAX_ID_CHARACTERS`` that is no id. A pattern that matches
ids would take 17 times as long."""

_common = re.compile(f"[A-Za-z0-9:._-]{{1,{MAX_ID_CHARACTERS}}}")  # the usual ids, several times as fast
_any = re.compile(_pattern(_NEVER))


def is_valid_id(text: str) -> bool:
    """Whether ``text`` may be a tenant or device id, and so a level of a topic."""
    return _common.fullmatch(text) is not None or _any.fullmatch(text) is not None


def in_path(an_id: str) -> str:
    """Percent-encode an id as one level of a URL's path. The dots of ``.`` and ``..`` are encoded too."""
    return "%2E" * len(an_id) if an_id in {".", ".."} else quote(an_id, safe="")
