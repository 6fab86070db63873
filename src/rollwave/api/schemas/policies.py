"""Policies in responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rollwave.api.fields import Moment
from rollwave.domain.campaign import CampaignStatus

Document = dict[str, Any]
"""A policy document."""


class PolicyInForce(BaseModel):
    """The policy of a campaign."""

    policy: Document = Field(description="The document: docs/reference/policy.md explains each key")
    flat: bool = Field(description="The campaign follows its flat columns, shown here as a document")
    revision: int | None = Field(description="Number of the revision, from 1; null: flat")
    by: str | None = Field(description="Id of the API key that wrote it; null: flat, or written by other SQL")
    by_name: str | None = Field(description="Name of that key; null: it has none")
    at: Moment | None = Field(description="When it was written; null: flat")
    reason: str | None = Field(description="Why it was edited")


class Opening(BaseModel):
    """A time in which devices may be sent to."""

    start: Moment
    end: Moment | None = Field(description="null: not within 400 days")


class Advised(BaseModel):
    """What the author of a policy is told."""

    warnings: list[str] = Field(description="What you may not have meant: limits that are missing, keys without effect")
    next_openings: list[Opening] = Field(
        description="The next five, for devices without a time zone; empty: the policy has no windows"
    )


class SavedPolicy(PolicyInForce, Advised):
    """The policy of a campaign, as it was saved."""


class WavePreview(BaseModel):
    """A wave as a dry run counts it."""

    name: str
    devices: int = Field(description="Number of devices that it would have")


class AtStart(BaseModel):
    """What starting a campaign does now."""

    text: str = Field(description="In sentences. It may have texts of operators, so escape it")
    at_once: bool = Field(description="Whether devices are sent to immediately")
    sends_at: Moment | None = Field(description="When devices are sent to first; null: at once, or nobody can say")


class AlsoIn(BaseModel):
    """Another unfinished campaign that has devices of the group."""

    campaign_id: int
    name: str | None
    version: str | None = Field(description="Version of its firmware")
    status: CampaignStatus
    devices: int = Field(description="Devices of the group that wait or are in progress there")
    text: str = Field(description="As a sentence. It has texts of operators, so escape it")


class PolicyPreview(Advised):
    """The answer of a dry run."""

    policy: Document = Field(description="The document as it would be stored")
    flat: bool = Field(description="The campaign would follow its flat columns")
    waves: list[WavePreview] = Field(description="Devices of each wave; of an edit: only those never sent to")
    segments: int = Field(description="Number of segments; without a policy document: 0")
    exposed_devices: int | None = Field(
        description="The most devices that are sent to before a guardrail can act, if all of them fail; null: none acts"
    )
    at_start: AtStart = Field(description="What starting it would do now, if reports can be received")
    also_in: list[AlsoIn] = Field(
        description="The three unfinished campaigns with most devices of the group, of its first 2,000; of an edit: []"
    )


class StoredPolicyName(BaseModel):
    """A policy that the tenant has stored."""

    name: str
    changed_at: Moment | None
    changed_by: str | None = Field(description="Id of the API key that stored it")
    changed_by_name: str | None = Field(None, description="Name of that key, in the list; null: it has none")


class StoredPolicy(StoredPolicyName):
    """A policy with a name: a preset, or stored by the tenant."""

    preset: bool = Field(description="Every tenant has it, and it cannot be changed")
    policy: Document = Field(description="The document")


class SavedStoredPolicy(StoredPolicy, Advised):
    """A policy with a name, as it was saved."""


class StoredPolicyList(BaseModel):
    """One page of the tenant's policies, ordered by name."""

    policies: list[StoredPolicyName]
    presets: list[str] = Field(description="Names of the presets, which are not among `policies`")
    total: int = Field(description="Stored policies, over all pages")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this is the last one")
