"""Names of things, and which strings may be one.

An id is a level of an MQTT topic and part of a log line, so the alphabet is narrow on purpose.
"""

from __future__ import annotations

import re
from typing import NewType

TenantId = NewType("TenantId", str)
DeviceId = NewType("DeviceId", str)
CampaignId = NewType("CampaignId", int)

ID_LEVEL = "[A-Za-z0-9:._-]{1,128}"
"""Which strings can be a level of a topic that holds an id, but for two dots in a row."""

ID_PATTERN = rf"^(?!.*\.\.){ID_LEVEL}$"
"""Which strings can be a tenant or device id."""

UNADDRESSABLE = r"^$|[^A-Za-z0-9:._-]|\.\."
"""What SQL finds in a string of at most 128 characters that cannot be one. PostgreSQL takes 60 times as long over
ID_PATTERN."""

UNSENDABLE = "device id cannot be an MQTT topic level: use 1 to 128 of A-Z a-z 0-9 : . _ - and no two dots in a row"

MAX_BIGINT = 2**63 - 1

_id = re.compile(ID_PATTERN.rstrip("$"))


def is_valid_id(text: str) -> bool:
    """Whether ``text`` may be a tenant or device id (and so a level of a topic)."""
    return _id.fullmatch(text) is not None
