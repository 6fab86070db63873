"""Answers errors with a page that says what failed and what to do; htmx gets the same as a line."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from rollwave.api.problems import RETRY_AFTER, status_of
from rollwave.console.addresses import page_of, with_next
from rollwave.console.pages import page
from rollwave.console.route import SignedOut
from rollwave.errors import RollwaveError
from rollwave.log import get_logger
from rollwave.store.outage import FOREIGN_TEXT

_log = get_logger("console")


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a page."""
    app.add_exception_handler(SignedOut, _signed_out)
    app.add_exception_handler(RollwaveError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for each in FOREIGN_TEXT:
        app.add_exception_handler(each, _foreign_text)
    app.add_exception_handler(Exception, _unexpected)


async def _signed_out(request: Request, error: Exception) -> Response:
    assert isinstance(error, SignedOut)
    login = with_next(page_of(request))
    if "HX-Request" in request.headers or "text/event-stream" in request.headers.get("Accept", ""):
        return await page(request, "signed_out.html", {"login": login}, status=401)
    if error.expired:
        login += ("&" if "?" in login else "?") + "expired=1"
    return RedirectResponse(login, 303)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, RollwaveError)
    status = status_of(error)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return await _answer(request, status, str(error), error.hint)
    _log.warning("console_request_failed", status=status.value, error=str(error), request_id=_id(request))
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        text = "A service that the console needs is unavailable."
        return await _answer(request, status, text, "Campaigns keep their state. Try again in a few seconds.")
    return await _answer(request, status, "The server failed.")


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place, *path = [str(each) for each in first["loc"]]
    if place == "path":
        return await _answer(request, HTTPStatus.NOT_FOUND, "There is no such page.")
    return await _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{'.'.join(path) or place}: {first['msg']}.")


async def _foreign_text(request: Request, _error: Exception) -> Response:
    text = "The database cannot hold a character of this text."
    return await _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, text)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    text = error.detail
    if status is HTTPStatus.NOT_FOUND and text == status.phrase:
        text = "There is no such page."
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        text = "This address takes forms only." if request.method == "GET" else "This address takes no forms."
    return await _answer(request, status, text, headers=dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    # The server logs the traceback, and does not know the id that the page shows.
    _log.error("console_request_failed", status=500, error=repr(error), request_id=_id(request))
    return await _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed. This is a defect of it.")


async def _answer(
    request: Request, status: int, text: str, hint: str = "", *, headers: dict[str, str] | None = None
) -> Response:
    """The page of an error. Where nobody is logged in, it shows no navigation."""
    phrase = HTTPStatus(status).phrase
    part = "HX-Request" in request.headers
    wait = {"Retry-After": RETRY_AFTER} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    values = {
        "phrase": phrase,
        "text": text,
        "hint": hint,
        "retry": page_of(request)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.FORBIDDEN
        else "",
        "status": int(status),
    }
    if not part:
        return await page(request, "error.html", values, status=status, headers={**(headers or {}), **wait})
    # Beside the list that could not be read again: it stays, and so does its asking.
    place = {"HX-Retarget": "#problem", "HX-Reswap": "innerHTML"} if request.method == "GET" else {}
    return await page(request, "error.html", values, status=status, headers={**wait, **place}, block="error")


def _id(request: Request) -> str:
    return str(request.state.request_id)
