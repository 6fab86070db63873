"""The HTTP status for each error."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import httpx2
import pytest
from fastapi import FastAPI

from rollwave.api import problems
from rollwave.errors import InvalidInput, RollwaveError, UnreadableRow


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (InvalidInput("is below 1", field="rollout_rate"), HTTPStatus.UNPROCESSABLE_ENTITY, "rollout_rate: is below 1"),
        (UnreadableRow("rollout_rate 0 is below 1"), HTTPStatus.INTERNAL_SERVER_ERROR, None),
    ],
)
def test_a_callers_invalid_value_gets_422_and_a_stored_one_500(
    error: RollwaveError, status: HTTPStatus, detail: str | None
) -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    async def get() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://api") as client:
            return await client.get("/")

    response = asyncio.run(get())

    assert response.status_code == status
    assert response.json().get("detail") == detail
