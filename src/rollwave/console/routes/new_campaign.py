"""A new campaign: the form, its rules as text, the preview of a dry run, and creating it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from rollwave.api.parameters import DbPool, ServerSettings
from rollwave.api.schemas.campaigns import CampaignIn
from rollwave.console import forms, policy_form, policy_values
from rollwave.console.forms import Fields, Messages, first
from rollwave.console.pages import done, page
from rollwave.console.rights import Operator
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.domain.policy.document.emit import to_data, to_yaml
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, parse
from rollwave.domain.policy.document.text import Format
from rollwave.domain.policy.presets import PRESETS
from rollwave.domain.retry import Reason
from rollwave.engine import new_campaign
from rollwave.engine.policy_preview import PolicyPreview
from rollwave.errors import Conflict, InvalidInput, NotFound
from rollwave.settings import Settings
from rollwave.store import devices, firmware, stored_policies
from rollwave.store.database import Pool
from rollwave.store.new_campaigns import NewCampaign

router = APIRouter(route_class=ConsoleRoute)

ADDRESS = "/console/campaigns/new"
FIRST = "standard"
"""The preset that the form begins with."""

OFFERED = 500
"""Maximum number of firmware versions, groups and policies that the form offers."""

_TEXT = "policy_text"
_NAMES = {"firmware_version_id": "firmware", "target_group_id": "group"}
"""The form's fields, by their names in the API."""


@dataclass(slots=True)
class _Draft:
    """What the form has in it. ``as_text``: the rules are in one field, as text."""

    given: Fields
    as_text: bool
    wrong: Messages = field(default_factory=dict)
    notice: str = ""
    preview: PolicyPreview | None = None
    document: PolicyDocument | None = None
    new: NewCampaign | None = None
    status: int = 200


@router.get("/campaigns/new")
async def empty_form(
    request: Request, pool: DbPool, session: Operator, policy: str = FIRST, firmware: str = "", group: str = ""
) -> Response:
    """The form, filled from a preset or a stored policy."""
    about: Fields = {"firmware": [firmware], "group": [group], "name": [""], "form_key": [secrets.token_hex(16)]}
    return await _page(request, pool, session, await _filled(pool, session, about, policy))


@router.post("/campaigns/new")
async def use_form(request: Request, pool: DbPool, settings: ServerSettings, session: Operator) -> Response:
    """Fill the form from a policy, add or remove a wave, show the rules as text, preview, or create the campaign."""
    given = await forms.fields(request)
    action, _, value = first(given, "do").partition(":")
    draft = _Draft(given, as_text=_TEXT in given)
    if action == "fill":
        draft = await _filled(pool, session, given, value)
    elif action == "add":
        _add_wave(given)
    elif action == "remove":
        draft.given = {name: each for name, each in given.items() if not name.startswith(f"wave-{value}-")}
    elif action == "text":
        _to_text(draft)
    else:
        await _read(draft)
        if not draft.wrong and action == "create":
            return await _create(request, pool, session, draft)
        if not draft.wrong:
            await _preview(pool, settings, session, draft)
    return await _page(request, pool, session, draft)


async def _filled(pool: Pool, session: Session, given: Fields, name: str) -> _Draft:
    """The form with the rules of a policy; as text, if the form cannot show all of them."""
    kept = {each: given[each] for each in ("name", "firmware", "group", "form_key") if each in given}
    try:
        found = await stored_policies.get(pool, session.tenant_id, name)
    except (NotFound, Conflict) as error:
        message = f"{error}. {error.hint}"
        return _Draft(kept | policy_values.EMPTY, as_text=False, wrong={policy_form.GENERAL: message}, status=404)
    values = policy_values.values_of(found.document)
    if values is not None:
        return _Draft(kept | values | {"filled": [name]}, as_text=False)
    text = PRESETS.get(name) or to_yaml(to_data(found.document))
    notice = f"The policy {name} has rules that the form lacks, so it is shown as text."
    return _Draft(kept | {_TEXT: [text], "filled": [name]}, as_text=True, notice=notice)


def _add_wave(given: Fields) -> None:
    rows = policy_form.rows_of(given)
    if len(rows) < policy_form.MAX_ROWS:
        row = rows[-1] + 1 if rows else 0
        given[f"wave-{row}-size"] = [""]
        given[f"wave-{row}-name"] = ["canary" if row == 0 else f"wave-{row + 1}"]


def _to_text(draft: _Draft) -> None:
    """Write the rules as text. Rules that cannot be read stay in the form."""
    document, messages = policy_form.read(draft.given)
    draft.wrong, draft.status = dict(messages), 422 if messages else 200
    if document is not None:
        draft.given[_TEXT] = [to_yaml(to_data(document))]
        draft.as_text = True


async def _read(draft: _Draft) -> None:
    """Check all fields, and say beside each what is wrong."""
    given = draft.given
    about = {
        "name": first(given, "name"),
        "firmware_version_id": first(given, "firmware"),
        "target_group_id": first(given, "group"),
    }
    read = forms.check(CampaignIn, about)
    if isinstance(read, CampaignIn):
        draft.new = NewCampaign(read.name, read.firmware_version_id, read.target_group_id)
    else:
        draft.wrong = {_NAMES.get(name, name): message for name, message in read.items()}
    if draft.as_text:
        try:
            draft.document = await asyncio.to_thread(parse, "\n".join(given[_TEXT]), Format.YAML)
        except InvalidPolicy as error:
            draft.wrong[_TEXT] = "\n".join(str(each) for each in error.problems)
    else:
        draft.document, messages = policy_form.read(given)
        draft.wrong |= messages
    draft.status = 422 if draft.wrong else 200


async def _preview(pool: Pool, settings: Settings, session: Session, draft: _Draft) -> None:
    assert draft.new is not None
    try:
        draft.preview = await new_campaign.preview_campaign(
            pool, settings, session.tenant_id, draft.new, policy=draft.document
        )
    except (NotFound, InvalidInput, Conflict) as error:
        _refuse(draft, error)


async def _create(request: Request, pool: Pool, session: Session, draft: _Draft) -> Response:
    """Create the campaign. Sending the same form twice creates it once."""
    assert draft.new is not None
    key = first(draft.given, "form_key")[:64]
    sent_once = f"console-{key}-{draft.new.digest(draft.document)}" if key.isalnum() and key.isascii() else None
    try:
        campaign_id = await new_campaign.create_campaign(
            pool,
            session.tenant_id,
            draft.new,
            actor=session.key_id,
            policy=draft.document,
            idempotency_key=sent_once,
        )
    except (NotFound, InvalidInput, Conflict) as error:
        _refuse(draft, error)
        return await _page(request, pool, session, draft)
    text = f"“{draft.new.name}” is created. Nothing is sent until it is started."
    return await done(request, text, f"/console/campaigns/{campaign_id}")


def _openings_for(document: PolicyDocument | None) -> str:
    """For which devices the openings of the preview are, and in which zone their times are shown."""
    schedule = document.schedule if document is not None else None
    if schedule is None or not any(each.differs_by_device for each in schedule.windows):
        return "For all devices, in UTC"
    zone = schedule.time_zone or "UTC"
    return f"For devices without a time zone, which count as in {zone}; in UTC. Others: in their own zone"


def _refuse(draft: _Draft, error: NotFound | InvalidInput | Conflict) -> None:
    """Say beside its field what the engine refuses."""
    beside = "group" if "group" in str(error) else "firmware" if "firmware" in str(error) else policy_form.GENERAL
    if isinstance(error, InvalidInput) and error.field:
        draft.wrong |= forms.refused(error, _NAMES)
    else:
        draft.wrong[beside] = f"{error}. {error.hint}"
    draft.status = 409 if isinstance(error, Conflict) else 422


async def _page(request: Request, pool: Pool, session: Session, draft: _Draft) -> Response:
    versions = await firmware.find(pool, session.tenant_id, device_type=None, limit=OFFERED)
    groups = await devices.find_groups(pool, session.tenant_id, limit=OFFERED)
    stored = await stored_policies.find(pool, session.tenant_id, limit=OFFERED)
    values: dict[str, Any] = {
        "given": draft.given,
        "wrong": draft.wrong,
        "notice": draft.notice,
        "preview": draft.preview,
        "openings_for": _openings_for(draft.document),
        "as_text": draft.as_text,
        "rows": policy_form.rows_of(draft.given),
        "may_add": len(policy_form.rows_of(draft.given)) < policy_form.MAX_ROWS,
        "presets": list(PRESETS),
        "stored": [row["name"] for row in stored.rows],
        "versions": versions.rows,
        "groups": groups.rows,
        "all_groups": groups.next_cursor is None,
        "reasons": [each.value for each in Reason if each is not Reason.OVERDUE],
        "first_of": first,
    }
    template = "new_campaign_text.html" if draft.as_text else "new_campaign.html"
    return await page(request, template, values, status=draft.status)
