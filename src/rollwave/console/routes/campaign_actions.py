"""What a person does to a campaign: the questions before it, and the actions. Each answer says what was done."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Form, Query, Request, Response

from rollwave.api.fields import LongText
from rollwave.api.live.hub import Hub
from rollwave.api.parameters import CampaignNumber, DbPool, ServerSettings
from rollwave.console import brief, questions
from rollwave.console.formats import count
from rollwave.console.pages import done, page
from rollwave.console.questions import Question
from rollwave.console.rights import Operator
from rollwave.console.route import ConsoleRoute
from rollwave.console.session import Session
from rollwave.domain.policy.document.fields import CODE_PATTERN
from rollwave.domain.policy.document.model import MAX_COUNT
from rollwave.engine import operations, promote, retry
from rollwave.errors import Conflict, Forbidden, InvalidInput, NotFound
from rollwave.log import get_logger
from rollwave.store.moments import Document
from rollwave.store.retries import Which

router = APIRouter(prefix="/campaigns/{campaign_id}", route_class=ConsoleRoute)

T = TypeVar("T")

_log = get_logger("console")

Reason = Annotated[LongText, Form()]
Typed = Annotated[str, Form(max_length=2000)]
FailureCode = Annotated[str | None, Query(pattern=CODE_PATTERN)]


async def _answer(request: Request, campaign_id: int, text: str) -> Response:
    return await done(request, text, f"/console/campaigns/{campaign_id}")


async def _ask(
    request: Request, campaign_id: int, question: Question, *, wrong: str = "", reason: str = ""
) -> Response:
    values = {"campaign_id": campaign_id, "question": question, "wrong": wrong, "given_reason": reason}
    return await page(request, "confirm/campaign.html", values, status=422 if wrong else 200)


@router.get("/confirm/{action}")
async def ask(
    request: Request,
    pool: DbPool,
    session: Operator,
    campaign_id: CampaignNumber,
    action: Literal["abort", "cancel", "retry", "promote"],
    wave: Annotated[str, Query(max_length=200)] = "",
    code: FailureCode = None,
) -> Response:
    """The question before an action, with the numbers of now."""
    if action == "promote":
        return await _ask(request, campaign_id, await _promotion(request, session, campaign_id, wave))
    found = await brief.read(pool, session.tenant_id, campaign_id)
    if found is not None and not found["actions"][action]:
        return await _answer(request, campaign_id, f"Cannot {action} campaign {campaign_id}: it is {found['status']}.")
    return await _ask(request, campaign_id, _question(found, campaign_id, action, code=code))


def _question(found: Document | None, campaign_id: int, action: str, *, code: str | None = None) -> Question:
    if found is None:
        return questions.without_numbers(campaign_id, action, hidden={"code": code} if code else {})
    match action:
        case "abort":
            return questions.abort(found)
        case "cancel":
            return questions.cancel(found)
        case _:
            devices = found["actions"]["retry"] if code is None else None
            return questions.retry(found, code=code, devices=devices)


async def _promotion(request: Request, session: Session, campaign_id: int, wave: str) -> Question:
    """The question before a wave is opened, which says what the wave before it still waits for.

    Raises:
        NotFound: there is no such campaign or wave, or it is the last one.
    """
    hub: Hub = request.app.state.hub
    try:
        overview = (await hub.read(session.tenant_id, campaign_id)).document
    except NotFound:
        raise
    except Exception:  # noqa: BLE001  what breaks the overview must not keep a person from opening the wave
        _log.warning("console_overview_not_read", campaign_id=campaign_id, exc_info=True)
        return questions.without_numbers(campaign_id, "promote", hidden={"wave": wave})
    found = questions.promote(overview, wave)
    if found is None:
        raise NotFound("This wave opens no other one.")
    return found


async def _refusable(action: Awaitable[T]) -> tuple[T | None, str]:
    """The result of an action, or why it was refused: somebody else was faster, or the key may not."""
    try:
        return await action, ""
    except (Conflict, Forbidden, InvalidInput) as error:
        return None, f"{error} {error.hint}".strip()


@router.post("/start")
@router.post("/resume")
async def start(request: Request, pool: DbPool, session: Operator, campaign_id: CampaignNumber) -> Response:
    """Start or resume the campaign."""
    resumed = request.url.path.endswith("/resume")
    action = operations.start_campaign(pool, session.tenant_id, campaign_id, actor=session.key_id, role=session.role)
    _, refusal = await _refusable(action)
    if refusal:
        return await _answer(request, campaign_id, refusal)
    found = await brief.read(pool, session.tenant_id, campaign_id)
    return await _answer(request, campaign_id, questions.started(found, resumed=resumed))


@router.post("/pause")
async def pause(request: Request, pool: DbPool, session: Operator, campaign_id: CampaignNumber) -> Response:
    """Pause the campaign: the emergency brake, without a question."""
    action = operations.pause_campaign(pool, session.tenant_id, campaign_id, actor=session.key_id)
    _, refusal = await _refusable(action)
    text = refusal or questions.paused(await brief.read(pool, session.tenant_id, campaign_id))
    return await _answer(request, campaign_id, text)


@router.post("/abort")
@router.post("/cancel")
async def stop(
    request: Request,
    pool: DbPool,
    session: Operator,
    campaign_id: CampaignNumber,
    typed: Typed = "",
    reason: Reason = "",
    asked: Annotated[int | None, Form(ge=0, le=MAX_COUNT)] = None,
) -> Response:
    """Abort the campaign, or cancel it. Where many devices are affected, its name must have been typed."""
    cancels = request.url.path.endswith("/cancel")
    before = await brief.read(pool, session.tenant_id, campaign_id)
    question = _question(before, campaign_id, "cancel" if cancels else "abort")
    if not questions.is_typed(question, typed):
        return await _ask(request, campaign_id, question, wrong=f"Type {question.name} to confirm.", reason=reason)
    act = operations.cancel_campaign if cancels else operations.abort_campaign
    action = act(pool, session.tenant_id, campaign_id, actor=session.key_id, reason=reason.strip() or None)
    _, refusal = await _refusable(action)
    if not refusal:
        after = await brief.read(pool, session.tenant_id, campaign_id)
        refusal = questions.stopped(before, after, cancelled=cancels, asked=asked)
    return await _answer(request, campaign_id, refusal)


@router.post("/retry")
async def retry_failed(
    request: Request,
    pool: DbPool,
    session: Operator,
    campaign_id: CampaignNumber,
    code: Annotated[str | None, Form(pattern=CODE_PATTERN)] = None,
) -> Response:
    """Give failed devices another attempt."""
    which = Which(None, code or None)
    action = retry.retry_failed(pool, session.tenant_id, campaign_id, actor=session.key_id, which=which)
    found, refusal = await _refusable(action)
    text = refusal if found is None else f"{count(found.devices, 'failed device')} will be tried again."
    return await _answer(request, campaign_id, text)


@router.post("/promote")
async def promote_wave(
    request: Request,
    pool: DbPool,
    settings: ServerSettings,
    session: Operator,
    campaign_id: CampaignNumber,
    wave: Annotated[str, Form(max_length=200)],
    reason: Reason = "",
) -> Response:
    """Open the wave after this one."""
    action = promote.promote_wave(
        pool,
        settings,
        session.tenant_id,
        campaign_id,
        wave,
        actor=session.key_id,
        role=session.role,
        reason=reason.strip() or None,
    )
    _, refusal = await _refusable(action)
    text = refusal or questions.opened(await brief.read(pool, session.tenant_id, campaign_id), wave)
    return await _answer(request, campaign_id, text)


@router.post("/release")
async def release(
    request: Request,
    pool: DbPool,
    settings: ServerSettings,
    session: Operator,
    campaign_id: CampaignNumber,
    segment: Annotated[int, Form(ge=1, le=MAX_COUNT)],
) -> Response:
    """Release a segment from quarantine."""
    action = operations.release_segment(pool, settings, session.tenant_id, campaign_id, segment, actor=session.key_id)
    _, refusal = await _refusable(action)
    text = refusal or f"Segment {segment} is released: its devices are sent to again, and its guardrails begin anew."
    return await _answer(request, campaign_id, text)
