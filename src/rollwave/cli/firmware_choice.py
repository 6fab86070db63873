"""Find the firmware that `--firmware` names: by its version, or by its id, written id:2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rollwave.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from rollwave.client.api import Api

Row: TypeAlias = Mapping[str, Any]

BY_ID = "id:"

_SHOWN = 10


def find_firmware(api: Api, wanted: str) -> Row:
    """The firmware's row.

    Raises:
        NotFound: there is no such firmware.
        InvalidInput: the id is not a number, or several firmwares have this version.
    """
    if not wanted.startswith(BY_ID):
        return choose(wanted, list(api.pages("/firmware", "firmware_versions")))
    number = wanted.removeprefix(BY_ID)
    if not _is_number(number):
        raise InvalidInput(
            f"--firmware {wanted}: {number!r} is not an id", hint="Write an id like this: --firmware id:2."
        )
    row: Row = api.get(f"/firmware/{number}")
    return row


def choose(wanted: str, rows: Sequence[Row]) -> Row:
    """Find the only row with exactly this version. A number is not treated as an id.

    Raises:
        NotFound: there is no such row.
        InvalidInput: there are several.
    """
    found = [row for row in rows if row["version"] == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "; ".join(in_words(row) for row in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        options = " or ".join(f"--firmware {BY_ID}{row['id']}" for row in found[:_SHOWN])
        raise InvalidInput(f"{len(found)} firmwares have the version {wanted}: {listed}{more}", hint=f"Use {options}.")
    by_id = next((row for row in rows if _is_number(wanted) and row["id"] == int(wanted)), None)
    if by_id is not None:
        raise NotFound(
            f"no firmware has the version {wanted}, but one has that id: {in_words(by_id)}",
            hint=f"If you mean that one, use --firmware {BY_ID}{wanted}.",
        )
    raise NotFound(f"no firmware has the version {wanted}", hint="`rollwave firmware list` shows all versions.")


def in_words(row: Row) -> str:
    """Describe a firmware in a sentence: id, version, device type and URL."""
    kind = f"device type {row['device_type']}" if row.get("device_type") else "any device type"
    return f"firmware {row['id']}, version {row['version']}, for {kind}, at {row['file_url']}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < len(str(2**63))
