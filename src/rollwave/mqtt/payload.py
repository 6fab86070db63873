"""The bodies of commands and reports: JSON in UTF-8. ``domain/reports/parse`` reads reports."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rollwave.domain.reports.parse import cut
from rollwave.errors import InvalidInput

NOTHING_TO_DO = b'{"action": "none"}'
"""The body of the answer to a device that asks what to do and has nothing to do."""

MAX_CANCEL_BYTES = 1024
"""Maximum size of a message that is read as a cancel command."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to a device: install ``version``, from ``firmware_url``."""

    campaign_id: int
    firmware_url: str
    version: str
    checksum: str
    """SHA-256 in hexadecimal; empty: not known."""
    action: str = "update"
    size: int | None = None
    """Size of the firmware in bytes; None: not known."""
    start_within: int = 0
    """The device begins after a random time of at most this many seconds, so that not all begin at the same moment."""


def encode_command(
    campaign_id: int,
    firmware_url: str,
    version: str,
    checksum: str | None,
    size: int | None = None,
    *,
    start_within: int | None = None,
) -> bytes:
    """The body of a command. It depends only on the campaign: every device and attempt gets the same bytes.

    ``start_within``: seconds; None: the devices begin at once.
    """
    body: dict[str, object] = {
        "campaign_id": campaign_id,
        "firmware_url": firmware_url,
        "version": version,
        "checksum": checksum or "",
        "action": "update",
    }
    if size is not None:
        body["size"] = size
    if start_within is not None:
        body["start_within"] = start_within
    return json.dumps(body, ensure_ascii=False).encode()


def encode_cancel(campaign_id: int) -> bytes:
    """The body of a cancel command: the device is to stop its update of this campaign if it still can."""
    return json.dumps({"action": "cancel", "campaign_id": campaign_id}).encode()


def read_cancel(payload: bytes) -> int | None:
    """The campaign that a cancel command is about; None: the message is no cancel command."""
    if len(payload) > MAX_CANCEL_BYTES:
        return None
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    match body:
        case {"action": "cancel", "campaign_id": int(campaign_id)} if not isinstance(campaign_id, bool):
            return campaign_id
    return None


def decode_command(payload: bytes) -> Command:
    """Parse the body of a command.

    Raises:
        InvalidInput: the bytes are not a command.
    """
    try:
        return read_command(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not a command: {type(error).__name__}") from error


def read_command(body: object) -> Command:
    """Read a command from parsed JSON. An optional key that cannot be read counts as absent.

    Raises:
        InvalidInput: a required key is missing, or has the wrong type.
    """
    if not isinstance(body, dict):
        raise InvalidInput("not a command: not a JSON object")
    size, start_within = body.get("size"), body.get("start_within")
    match body:
        case {
            "campaign_id": int(campaign_id),
            "firmware_url": str(url),
            "version": str(version),
            "checksum": str(checksum),
            "action": str(action),
        } if not isinstance(campaign_id, bool):
            size = size if type(size) is int and size > 0 else None
            start_within = start_within if type(start_within) is int and start_within > 0 else 0
            return Command(campaign_id, url, version, checksum, action, size, start_within)
    raise InvalidInput("not a command: a key is missing, or has the wrong type")


def encode_report(
    campaign_id: int,
    status: str,
    progress: int | None = None,
    error: str | None = None,
    attempt: int | None = None,
    *,
    code: str | None = None,
    version: str | None = None,
) -> bytes:
    """The body of a report. Values that are None are left out; ``error`` is cut to 1 KB.

    Characters of ``error`` that cannot be printed become spaces: in JSON each would take six bytes.
    """
    if error is not None:
        error = "".join(each if each.isprintable() else " " for each in cut(error))
    optional = {"progress": progress, "error": error, "attempt": attempt, "code": code, "version": version}
    body = {"campaign_id": campaign_id, "status": status} | {
        key: value for key, value in optional.items() if value is not None
    }
    return json.dumps(body, ensure_ascii=False).encode()
