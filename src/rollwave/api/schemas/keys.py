"""API keys in requests and responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rollwave.api.fields import WHOLE, Moment, Text
from rollwave.api.schemas import RequestModel
from rollwave.domain.role import Role

MAX_DAYS = 3650


class ApiKeyIn(RequestModel):
    """A key to create."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "build server", "role": "operator", "expires_in_days": 90}]}
    )

    name: Text | None = Field(None, description="A note, such as the name of the program that uses the key")
    role: Annotated[Role, Field(strict=False)]
    expires_in_days: Annotated[int, Field(ge=1, le=MAX_DAYS), WHOLE] | None = Field(
        None, description="How long the key is valid; null: until it is revoked"
    )


class ApiKey(BaseModel):
    """A key without its secret."""

    key_id: str
    name: str
    role: Role
    created_at: Moment
    expires_at: Moment | None = Field(description="null: it does not expire")
    revoked_at: Moment | None = Field(description="null: it is not revoked")
    last_used_at: Moment | None = Field(description="Up to an hour old while it is used; null: not used yet")


class CreatedApiKey(BaseModel):
    """A new key, shown only once: the database stores its hash."""

    key_id: str
    key: str = Field(description="The whole key, for `Authorization: Bearer`")


class ApiKeyList(BaseModel):
    """The keys of the tenant."""

    api_keys: list[ApiKey] = Field(description="Oldest first")
