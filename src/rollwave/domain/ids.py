"""Names of things, and which strings may be one.

A tenant or device id is one level of an MQTT topic that a person can type (ADR 29). Ids are compared as they are given,
character by character: nothing is normalised.
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
"""Which strings may be an id, for people."""

UNSENDABLE = f"device id cannot be an MQTT topic level: it has to be {ID_RULE}"

MAX_BIGINT = 2**63 - 1

_BMP = r"/+#\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff"
"""What separates levels, is a wildcard, a control character or a non-character. MQTT lets brokers end the connection
over the last two. Non-characters are also the last two of each of the planes after the first."""
_PLANES = range(0x1FFFE, 0x110000, 0x10000)
_NEVER = rf"{_BMP}\ud800-\udfff" + "".join(rf"\U{last:08x}\U{last + 1:08x}" for last in _PLANES)
_BLANKS = r" \u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
"""Characters that show nothing: blanks of every width, zero included, line separators, marks of direction."""


def _pattern(never: str) -> str:
    return f"[^{never}{_BLANKS}$](?:[^{never}]{{0,{MAX_ID_CHARACTERS - 2}}}[^{never}{_BLANKS}])?"


ID_PATTERN = f"^{_pattern(_BMP + ''.join(chr(last) + chr(last + 1) for last in _PLANES))}$"
"""What matches an id, as ECMA 262 (with the flag ``u``) and Rust read it: without ``\\U``, and without surrogates."""

UNADDRESSABLE = rf"^$|^[$]|^[{_BLANKS}]|[{_NEVER}]|[{_BLANKS}]$"
"""What PostgreSQL finds in a string of at most ``MAX_ID_CHARACTERS`` that is no id. A pattern that matches ids takes it
17 times as long."""

_common = re.compile(f"[A-Za-z0-9:._-]{{1,{MAX_ID_CHARACTERS}}}")  # nearly always, and several times as fast
_any = re.compile(_pattern(_NEVER))


def is_valid_id(text: str) -> bool:
    """Whether ``text`` may be a tenant or device id (and so a level of a topic)."""
    return _common.fullmatch(text) is not None or _any.fullmatch(text) is not None


def in_path(an_id: str) -> str:
    """An id as one level of a URL's path. ``.`` and ``..`` would be steps of the path: their dots are encoded too."""
    return "%2E" * len(an_id) if an_id in {".", ".."} else quote(an_id, safe="")
