"""A policy document as the body of a request or a response: JSON, or YAML by its Content-Type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from starlette.exceptions import HTTPException

from rollwave.domain.policy.advice import Advice
from rollwave.domain.policy.document.emit import to_yaml
from rollwave.domain.policy.document.schema import json_schema
from rollwave.domain.policy.document.text import Format
from rollwave.engine.policy_preview import PolicyPreview

YAML_TYPE = "application/yaml"
"""The media type of YAML (RFC 9512)."""

_FORMATS: Mapping[str, Format] = {
    "": Format.JSON,
    "application/json": Format.JSON,
    **dict.fromkeys((YAML_TYPE, "application/x-yaml", "text/yaml", "text/x-yaml"), Format.YAML),
}

REQUEST: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The document, as JSON or YAML",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Policy"}},
            YAML_TYPE: {"schema": {"$ref": "#/components/schemas/Policy"}},
        },
    }
}
"""The OpenAPI description of a request whose body is a document."""

AS_YAML: Mapping[str, Any] = {YAML_TYPE: {"schema": {"type": "object"}}}
"""The OpenAPI description of a response as YAML."""

Shape = Annotated[Literal["json", "yaml"], Query(alias="format", description="`yaml`: the document alone, as YAML")]
DryRun = Annotated[bool, Query(description="Check everything and change nothing")]


def form_of(request: Request) -> Format:
    """The format of the body.

    Raises:
        HTTPException: 415 if it is neither JSON nor YAML.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in _FORMATS:
        raise HTTPException(415, f"a policy is application/json or {YAML_TYPE}, and not {media_type[:100]}")
    return _FORMATS[media_type]


def yaml_response(data: Any, headers: Mapping[str, str] | None = None) -> Response:
    """The data as YAML."""
    return Response(to_yaml(data), media_type=YAML_TYPE, headers=dict(headers or {}))


def advice_fields(advice: Advice) -> dict[str, Any]:
    """What the author of a policy is told, as fields of an answer."""
    return {
        "warnings": list(advice.warnings),
        "next_openings": [{"start": each.start, "end": each.end} for each in advice.openings],
    }


def preview_fields(preview: PolicyPreview) -> dict[str, Any]:
    """The fields of the answer to a dry run."""
    return {
        "policy": preview.data,
        "flat": preview.flat,
        **advice_fields(Advice(preview.warnings, preview.openings)),
        "waves": [{"name": each.name, "devices": each.devices} for each in preview.waves],
        "segments": preview.segments,
        "exposed_devices": preview.exposed,
        "at_start": asdict(preview.at_start),
        "also_in": [each.to_json() for each in preview.also_in],
    }


def describe_policies(schemas: dict[str, Any]) -> None:
    """Add the schema of a document and its parts to OpenAPI, and refer to it where a request has a document."""
    found = dict(json_schema("#/components/schemas/Policy.{model}"))
    found.pop("$schema")
    parts: dict[str, Any] = found.pop("$defs")
    schemas.update({"Policy": found, **{f"Policy.{name}": part for name, part in parts.items()}})
    given = schemas["CampaignIn"]["properties"]["policy"]["anyOf"]
    given[given.index({"type": "object"})] = {"$ref": "#/components/schemas/Policy"}
