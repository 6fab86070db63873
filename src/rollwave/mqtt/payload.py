"""Command and report bodies, encoded. Reading a report is ``domain.report``'s, as its rules are many."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rollwave.domain.reports.parse import cut
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
        return read_command(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not a command: {type(error).__name__}") from error


def read_command(body: object) -> Command:
    """Read a command's keys. An optional one that cannot be read never costs the command.

    Raises:
        InvalidInput: one is missing, or has the wrong type.
    """
    if not isinstance(body, dict):
        raise InvalidInput("not a command: not a JSON object")
    size = body.get("size")
    match body:
        case {
            "campaign_id": int(campaign_id),
            "firmware_url": str(url),
            "version": str(version),
            "checksum": str(checksum),
            "action": str(action),
        } if not isinstance(campaign_id, bool):
            size = size if type(size) is int and size > 0 else None
            return Command(campaign_id, url, version, checksum, action, size)
    raise InvalidInput("not a command: a key is missing, or has the wrong type")


def encode_report(
    campaign_id: int,
    status: str,
    progress: int | None = None,
    error: str | None = None,
    attempt: int | None = None,
) -> bytes:
    """A report's body; what is None is left out, and of ``error`` what is over 1 KB.

    Characters of ``error`` that cannot be shown become blanks: each would take six bytes on the wire.
    """
    if error is not None:
        error = "".join(each if each.isprintable() else " " for each in cut(error))
    optional = {"progress": progress, "error": error, "attempt": attempt}
    body = {"campaign_id": campaign_id, "status": status} | {
        key: value for key, value in optional.items() if value is not None
    }
    return json.dumps(body, ensure_ascii=False).encode()
