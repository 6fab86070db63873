"""Devices and device groups in requests and responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rollwave.api.fields import Attributes, Identifier, Moment, TimeZone, Word
from rollwave.api.schemas import RequestModel

MAX_GROUP = 100_000
MAX_PART = 10_000


class DescribedDevice(RequestModel):
    """The type and attributes of a device. They replace the stored ones: a missing key is deleted."""

    device_type: Word | None = None
    attributes: Attributes = Field(
        default_factory=dict,
        description="Any JSON object. Its keys are labels; `time_zone` and `version` stand in for empty fields",
    )


class DeviceIn(DescribedDevice):
    """The type, attributes and fields of a device. They replace the stored ones: a missing key is deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"device_type": "gateway", "attributes": {"site": "north"}, "time_zone": "Europe/Zurich"}]
        }
    )

    time_zone: TimeZone | None = None
    version: Word | None = Field(
        None, description="Version of the firmware that the device runs. Left out: the stored version stays"
    )


class Device(BaseModel):
    """A registered device."""

    device_id: str
    device_type: str | None
    attributes: dict[str, Any]
    time_zone: str | None
    version: str | None = Field(description="The last one given, reported, or updated to with success")
    last_seen: Moment | None = Field(description="Of its last report; up to an hour old while it reports")
    created_at: Moment | None


class DeviceList(BaseModel):
    """One page of devices, ordered by id."""

    devices: list[Device]
    total: int = Field(description="Over all pages, for the same filter")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")


class MemberIn(DescribedDevice):
    """A member of a group, with its type and attributes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_id": "gw-0003", "attributes": {"site": "north"}}]}
    )

    device_id: Identifier


class GroupIn(RequestModel):
    """All members of a group."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"device_ids": ["gw-0001", "gw-0002"]}]})

    device_ids: list[Identifier] = Field(
        max_length=MAX_GROUP, description="Duplicates count once; new devices are registered"
    )
    devices: list[MemberIn] = Field(
        default_factory=list,
        max_length=MAX_GROUP,
        description="More members, with a new type and new attributes; of duplicates, the last one counts",
    )


class ImportPart(RequestModel):
    """Some of the devices of an import."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"devices": [{"device_id": "gw-0003", "attributes": {"site": "north"}}]}]}
    )

    device_ids: list[Identifier] = Field(
        default_factory=list, max_length=MAX_PART, description="New devices are registered"
    )
    devices: list[MemberIn] = Field(
        default_factory=list,
        max_length=MAX_PART,
        description="More devices, with a new type and new attributes; of duplicates, the last one counts",
    )


class GroupImport(BaseModel):
    """An import that has not been applied yet."""

    import_id: int
    group_id: str
    devices: int = Field(description="Number of devices received so far; duplicates count once")
    expires_at: Moment = Field(description="When the import is deleted, unless a part is added or it is applied")


class GroupChange(BaseModel):
    """The changes that replacing a group's members made."""

    group_id: str
    total: int = Field(description="Number of members after the change")
    added: int
    removed: int
    registered: int = Field(description="Number of members that were not registered as devices before")


class Group(BaseModel):
    """A group of devices."""

    group_id: str
    total: int = Field(description="Number of members")
    created_at: Moment | None


class GroupDetail(Group):
    """A group with one page of its members, ordered by id."""

    device_ids: list[str]
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")


class GroupList(BaseModel):
    """One page of groups, ordered by id."""

    device_groups: list[Group]
    total: int = Field(description="Over all pages")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")
