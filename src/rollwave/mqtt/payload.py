"""Command and report bodies, encoded. Reading a report is ``domain.report``'s, as its rules are many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollwave.errors import InvalidInput

NOTHING_TO_DO = b'{"action": "none"}'
"""The answer to a device that asks and has nothing to do."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a device is told: bring yourself to ``version``, whose bytes are at ``firmware_url``."""

    campaign_id: int
    firmware_url: str
    version: str
    checksum: str
    action: str = "update"
    size: int | None = None
    """Bytes of the firmware; None: not known."""


def encode_command(
    campaign_id: int, firmware_url: str, version: str, checksum: str | None, size: int | None = None
) -> bytes:
    """The command's body. It depends on the campaign alone: every device and attempt gets the same bytes."""
    body: dict[str, object] = {
        "campaign_id": campaign_id,
        "firmware_url": firmware_url,
        "version": version,
        "checksum": checksum or "",
        "action": "update",
    }
    if size is not None:
        body["size"] = size
    return json.dumps(body, ensure_ascii=False).encode()


def decode_command(payload: bytes) -> Command:
    """Read a command as a device does.

    Raises:
        InvalidInput: the bytes are not a command.
    """
    try:
        body = json.loads(payload)
        command = Command(
            body["campaign_id"], body["firmware_url"], body["version"], body["checksum"], body["action"], _size(body)
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"not a command: {type(error).__name__}") from error
    texts = (command.firmware_url, command.version, command.checksum, command.action)
    if type(command.campaign_id) is not int or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("not a command: a value has the wrong type")
    return command


def _size(body: Mapping[str, Any]) -> int | None:
    """The firmware's ``size`` where a body has one that can be read: an optional key never costs the command."""
    size = body.get("size")
    return size if type(size) is int and size > 0 else None


def encode_report(
    campaign_id: int,
    status: str,
    progress: int | None = None,
    error: str | None = None,
    attempt: int | None = None,
) -> bytes:
    """A report's body; what is None is left out."""
    optional = {"progress": progress, "error": error, "attempt": attempt}
    body = {"campaign_id": campaign_id, "status": status} | {
        key: value for key, value in optional.items() if value is not None
    }
    return json.dumps(body).encode()
