"""A client of the HTTP API. Problem documents are raised as Rollwave's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx2

from rollwave.client.address import base_url
from rollwave.client.proxy import Proxy
from rollwave.errors import (
    ApiUnavailable,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    Outdated,
    RollwaveError,
)

_ERRORS: dict[int, type[RollwaveError]] = {
    HTTPStatus.UNAUTHORIZED: ConfigurationError,
    HTTPStatus.FORBIDDEN: ConfigurationError,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.PRECONDITION_FAILED: Outdated,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidInput,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidInput,
}

_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "Set ROLLWAVE_API_KEY to a valid key: `rollwave apikey create` prints one.",
    HTTPStatus.FORBIDDEN: "Use a key with a higher role: viewer < operator < approver < admin.",
}


class Api:
    """A client of ``/api/v1/customer``. Every method raises a :class:`RollwaveError` for an error of the API."""

    def __init__(self, url: str, key: str, *, timeout: float = 30.0, proxy: Proxy | None = None) -> None:
        self._url = base_url(url)
        self._proxy = proxy
        try:
            self._http = httpx2.Client(
                base_url=f"{self._url}/api/v1/customer",
                headers={"Authorization": f"Bearer {key}"},
                timeout=timeout,
                proxy=proxy.url if proxy else None,
                trust_env=False,  # the caller chooses the proxy, so that errors can name its variable
                verify=httpx2.create_ssl_context(),  # reads SSL_CERT_FILE and SSL_CERT_DIR
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
        return _document(self._call("GET", path, query=given))

    def get_text(self, path: str, **query: str | int | None) -> tuple[str, str | None]:
        """Read a resource as text, and its entity tag; a ``query`` value of None is left out."""
        given = {key: value for key, value in query.items() if value is not None}
        response = self._call("GET", path, query=given)
        return response.text, response.headers.get("ETag")

    def put_text(
        self, path: str, text: bytes, media_type: str, *, if_match: str | None = None, **query: str | None
    ) -> Any:
        """Replace a resource by a text of ``media_type``. ``if_match``: the entity tag that it must have now."""
        headers = {"Content-Type": media_type} | ({} if if_match is None else {"If-Match": if_match})
        given: dict[str, str | int] = {key: value for key, value in query.items() if value is not None}
        return _document(self._call("PUT", path, query=given, content=text, headers=headers))

    def pages(self, path: str, key: str, **query: str | int | None) -> Iterator[Any]:
        """Every row of a list, over all pages. ``key`` is the name of the list in the answer."""
        cursor = None
        while True:
            answer = self.get(path, **query, limit=1000, cursor=cursor)
            yield from answer[key]
            cursor = answer["next_cursor"]
            if cursor is None:
                return

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Mapping[str, str | int | None] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Run an action, or create a resource. A ``query`` value of None is left out.

        ``timeout`` is in seconds; default: that of the client.
        """
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return _document(self._call("POST", path, body, query=given, timeout=timeout))

    def create(self, path: str, body: dict[str, Any]) -> tuple[Any, bool]:
        """Create a resource. Returns it, and whether it is new."""
        response = self._call("POST", path, body)
        return _document(response), response.status_code == HTTPStatus.CREATED

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return _document(self._call("PUT", path, body))

    def delete(self, path: str, **query: str | int | None) -> Any:
        """Delete a resource. Returns the answer; None: it has none. A ``query`` value of None is left out."""
        given = {key: value for key, value in query.items() if value is not None}
        response = self._call("DELETE", path, query=given)
        return None if response.status_code == HTTPStatus.NO_CONTENT else _document(response)

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: dict[str, str | int] | None = None,
        *,
        timeout: float | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        try:
            response = self._http.request(
                method,
                path,
                json=body,
                params=query,
                content=content,
                headers=headers,
                timeout=timeout or self._http.timeout,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        except UnicodeEncodeError as error:
            raise InvalidInput(
                "a value contains bytes that are not text in the encoding of the terminal",
                hint="Set LANG or LC_ALL to the encoding that the terminal uses.",
            ) from error
        if response.is_success:
            return response
        raise self._error(response)

    def _unreachable(self, error: Exception) -> ApiUnavailable:
        if self._proxy is None:
            return ApiUnavailable(
                f"the API at {self._url} cannot be reached: {error}",
                hint="Start it with `rollwave serve`, or set ROLLWAVE_API_URL to its URL.",
            )
        return ApiUnavailable(
            f"the API at {self._url} cannot be reached through the proxy {self._proxy.address}: {error}",
            hint=self._about_proxy(),
        )

    def _about_proxy(self) -> str:
        assert self._proxy is not None
        name = self._proxy.variable
        return f"{name} names this proxy: correct or unset it, or name the API's host in NO_PROXY."

    def _error(self, response: httpx2.Response) -> RollwaveError:
        error, by_api = _error(response)
        if self._proxy is not None and not by_api:
            error.hint = self._about_proxy()
        return error


def _document(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ApiUnavailable(
            f"{response.url} answered with something that is not JSON",
            hint="Check that ROLLWAVE_API_URL is the URL of a Rollwave API.",
        ) from None


def _error(response: httpx2.Response) -> tuple[RollwaveError, bool]:
    """The error for a response, and whether the response is a problem document (RFC 9457)."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = problem.get("detail") or problem.get("title") or f"the API answered {response.status_code}"
    mistakes = "; ".join(f"{each['field']}: {each['detail']}" for each in problem.get("errors") or [])
    hint = problem.get("hint") or _HINTS.get(response.status_code, "")
    kind = _ERRORS.get(response.status_code, ApiUnavailable if response.is_server_error else RollwaveError)
    return kind(mistakes or detail, hint=hint), bool(problem)
