"""Parameters and documented errors that routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request

from rollwave.api.fields import Cursor, Identifier, RowId, Text
from rollwave.api.problems import MEDIA_TYPE
from rollwave.domain.ids import ID_RULE
from rollwave.settings import Settings
from rollwave.store.database import Pool


def _pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


DbPool = Annotated[Pool, Depends(_pool)]
ServerSettings = Annotated[Settings, Depends(_settings)]

FirmwareId = Annotated[RowId, Path(description="Id of a firmware version")]
CampaignNumber = Annotated[RowId, Path(description="Id of a campaign")]
_AN_ID = f"{ID_RULE}. Percent-encode it, also `.` and `..` (`%2E`), which clients and proxies would remove from a path"
DeviceName = Annotated[Identifier, Path(description=_AN_ID, examples=["gw-0001"])]
GroupName = Annotated[Identifier, Path(description=_AN_ID, examples=["site-north"])]
ImportNumber = Annotated[RowId, Path(description="Id of an import")]

Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of rows per page")]
RowCursor = Annotated[RowId | None, Query(description="`next_cursor` of the previous page")]
TextCursor = Annotated[Cursor | None, Query(description="`next_cursor` of the previous page")]
Select = Annotated[
    str | None,
    Query(
        description="Only devices whose labels match this selector, such as `site == north and version < 2.0`",
        examples=["site == north and not has(bench)"],
    ),
]
DeviceType = Annotated[Text | None, Query(description="Only rows of this device type")]

_MEANINGS: Mapping[int, str] = {
    401: "No API key, or one that is unknown, expired or revoked",
    403: "The key's role does not allow this",
    404: "The tenant has no object with this id",
    409: "The object's state, or a table of the service that embeds Rollwave, does not allow this",
    412: "The object is not the version that `If-Match` names",
    413: "The body is too large",
    415: "The body has another media type than this route takes",
    422: "A value is not valid; `errors` says which",
    429: "Too many streams are open; try again after `Retry-After` seconds",
    503: "The database is unavailable; try again after `Retry-After` seconds",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for ``statuses`` and for the statuses that every customer route may return, by status."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _MEANINGS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({401, 403, 413, 422, 503, *statuses})
    }
