"""Firmware in requests and responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rollwave.api.fields import MAX_JSON_INTEGER, WHOLE, ArtifactUrl, LongText, Moment, Sha256, Word
from rollwave.api.schemas import RequestModel


class FirmwareIn(RequestModel):
    """A firmware version to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "2.1.0",
                    "file_url": "https://files.example/fw-2.1.0.bin",
                    "checksum_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "file_size_bytes": 1048576,
                    "device_type": "gateway",
                    "description": "Faster boot",
                }
            ]
        }
    )

    version: Word
    file_url: ArtifactUrl = Field(description="http or https URL from which devices download the artifact")
    checksum_sha256: Sha256 | None = Field(
        None,
        description="SHA-256: 64 hex digits, with or without the prefix `sha256:`; stored without it, in lower case",
    )
    file_size_bytes: Annotated[int, Field(ge=0, le=MAX_JSON_INTEGER), WHOLE] | None = None
    device_type: Word | None = Field(None, description="Device type for which the firmware is; null: all types")
    description: LongText | None = None


class Firmware(BaseModel):
    """A firmware version."""

    id: int
    tenant_id: str
    version: str | None
    description: str | None
    file_url: str | None
    file_size_bytes: int | None
    checksum_sha256: str | None
    device_type: str | None
    created_at: Moment | None
    created_by: str | None = Field(description="Id of the API key that registered it")


class FirmwareList(BaseModel):
    """One page of firmware, newest first."""

    firmware_versions: list[Firmware]
    total: int = Field(description="Over all pages")
    next_cursor: int | None = Field(description="`cursor` of the next page; null: this is the last one")
