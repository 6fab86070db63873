"""The JSON Schema of the policy document, generated from its models."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.units import Share, write_share

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """No key may have the value null: a key that is left out has its default."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        default = schema.get("default")
        found = self.generate_inner(schema["schema"]) if isinstance(default, Share) else super().default_schema(schema)
        if isinstance(default, Share):
            found["default"] = write_share(default)
        elif not default and default is not False:
            found.pop("default", None)  # described in words
        return found

    def get_title_from_name(self, name: str) -> str:
        return name.strip("_")


@cache
def json_schema(ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """The schema, in the dialect of 2020-12. Rules between keys are not part of it.

    ``ref_template``: where other documents have the definitions of its parts.
    """
    found = PolicyDocument.model_json_schema(by_alias=True, ref_template=ref_template, schema_generator=_Generator)
    return {"$schema": DIALECT, **found, "title": "Rollwave policy"}
