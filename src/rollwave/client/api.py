"""The HTTP API as an operator's program calls it. Problem documents come out as our errors."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx2

from rollwave.client.address import base_url
from rollwave.errors import (
    ApiUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    RollwaveError,
)

_ERRORS: dict[int, type[RollwaveError]] = {
    HTTPStatus.UNAUTHORIZED: ConfigurationError,
    HTTPStatus.FORBIDDEN: ConfigurationError,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidInput,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidInput,
}

_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Set ROLLWAVE_API_KEY to a valid key: `rollwave apikey create` prints one.",
    HTTPStatus.FORBIDDEN: "This takes a key with a larger role: viewer < operator < approver < admin.",
}


class Api:
    """One connection to ``/api/v1/customer``. Every method raises :class:`RollwaveError` as answered."""

    def __init__(self, url: str, key: str, *, timeout: float = 30.0) -> None:
        self._url = base_url(url)
        try:
            self._http = httpx2.Client(
                base_url=f"{self._url}/api/v1/customer",
                headers={"Authorization": f"Bearer {key}"},
                timeout=timeout,
            )
        except (httpx2.InvalidURL, UnicodeError) as error:  # its message may quote the key
            raise ConfigurationError(
                "the API's URL or key cannot be used",
                hint="Check ROLLWAVE_API_URL and ROLLWAVE_API_KEY for stray characters.",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Any:
        """Read a resource; a ``query`` value of None is left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._call("GET", path, query=given)

    def pages(self, path: str, key: str, **query: str | int | None) -> Iterator[Any]:
        """Every row of a list, however many pages it takes; ``key`` is what the answer calls them."""
        cursor = None
        while True:
            answer = self.get(path, **query, limit=1000, cursor=cursor)
            yield from answer[key]
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._call("POST", path, body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("PUT", path, body)

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: dict[str, str | int] | None = None,
    ) -> Any:
        try:
            response = self._http.request(method, path, json=body, params=query)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ApiUnavailable(
                f"the API at {self._url} cannot be reached: {error}",
                hint="Start it with `rollwave serve`, or set ROLLWAVE_API_URL to where it is.",
            ) from error
        if response.is_success:
            return _document(response)
        raise _error(response)


def _document(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ApiUnavailable(
            f"{response.url} answered with something that is not JSON",
            hint="Is ROLLWAVE_API_URL the address of a Rollwave API?",
        ) from None


def _error(response: httpx2.Response) -> RollwaveError:
    """The problem document (RFC 9457) of an answer as one of our errors."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    told = problem.get("detail") or problem.get("title") or f"the API answered {response.status_code}"
    mistakes = "; ".join(f"{each['field']}: {each['detail']}" for each in problem.get("errors") or [])
    hint = problem.get("hint") or _HINTS.get(response.status_code, "")
    kind = _ERRORS.get(response.status_code, ApiUnavailable if response.is_server_error else RollwaveError)
    return kind(f"{told}: {mistakes}" if mistakes else told, hint=hint)
