"""Downloads an artifact over HTTP: resumes an interrupted download, enforces limits, and verifies the result."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from rollwave.device import codes
from rollwave.device.backoff import delays
from rollwave.device.expected import DownloadFailed, ExpectedArtifact, NotAsExpected
from rollwave.device.partial import Partial
from rollwave.log import get_logger

_REDIRECTS = 5
_TRY_LATER = frozenset({408, 425, 429})
_REFUSALS = frozenset({401, 403, 404, 410})
_LENGTH = re.compile(r"\d{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:(\d{1,18})|\*)")

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes received, and the total number of bytes or None if it is unknown."""

_log = get_logger("device")


class DownloadRefused(DownloadFailed):
    """The server refuses this URL (HTTP 401, 403, 404 or 410), for example because a signed URL has expired."""


class NotWritten(DownloadFailed):
    """The artifact cannot be written to the disk."""

    code = codes.DISK


class _Interrupted(Exception):
    """One request ended without the complete artifact. It is retried."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one download.

    ``seconds``: total time. ``size``: bytes. ``tries``: consecutive requests without new bytes. ``first_wait``: seconds
    before the first retry.
    """

    seconds: float = 3600.0
    size: int = 4 * 1024**3
    tries: int = 8
    first_wait: float = 0.5


@dataclass(frozen=True, slots=True)
class _Download:
    """One call of :func:`fetch`."""

    client: httpx2.AsyncClient
    expected: ExpectedArtifact
    partial: Partial
    limits: Limits
    on_progress: Progress


async def fetch(
    client: httpx2.AsyncClient,
    expected: ExpectedArtifact,
    artifact: Path,
    *,
    limits: Limits = Limits(),
    on_progress: Progress = lambda _done, _total: None,
) -> None:
    """Download the expected artifact to the file ``artifact``. Resumes what an interrupted call has left.

    Raises:
        DownloadRefused: the server refuses this URL.
        DownloadFailed: the download does not succeed within the limits, or the content is not the expected one.
    """
    _require_http(expected.url)
    partial = Partial(artifact)
    download = _Download(client, expected, partial, limits, on_progress)
    try:
        async with asyncio.timeout(limits.seconds):
            await _fetch(download)
        partial.keep(artifact)
    except NotAsExpected:
        _discard(partial)
        raise
    except TimeoutError:
        raise DownloadFailed(f"download not complete after {limits.seconds:g} s") from None
    except OSError as error:
        _discard(partial)  # frees the space: the disk may be full
        raise NotWritten(f"cannot write the download: {error.strerror or error}") from error


@asynccontextmanager
async def http_client() -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client that uses the proxies and certificates of the environment.

    Raises:
        DownloadFailed: the environment names a proxy or certificate that cannot be used.
    """
    try:
        client = httpx2.AsyncClient(max_redirects=_REDIRECTS, timeout=30.0)
    except (ValueError, OSError, ImportError) as error:
        raise DownloadFailed(f"cannot download: invalid proxy or certificates in the environment: {error}") from error
    async with client:
        yield client


def matches(expected: ExpectedArtifact, artifact: Path) -> bool:
    """Whether the file ``artifact`` exists and has the expected content."""
    try:
        expected.check(artifact.stat().st_size, _sha256(artifact))
    except (OSError, NotAsExpected):
        return False
    return True


async def _fetch(download: _Download) -> None:
    try:
        await _complete(download)
    except NotAsExpected as error:
        if not download.partial.resumed:
            raise
        # The parts may belong to two versions of the file: download it once more, in one part.
        _log.warning("device_download_restarted", reason=str(error))
        download.partial.discard()
        await _complete(download)


async def _complete(download: _Download) -> None:
    partial, limits = download.partial, download.limits
    waits, furthest, without_progress = delays(limits.first_wait), partial.size, 0
    while True:
        try:
            await _request(download)
            break
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise DownloadFailed(f"cannot download: {error}") from error
        except (httpx2.HTTPError, _Interrupted) as error:
            size = partial.size
            without_progress = 0 if size > furthest else without_progress + 1
            furthest = max(size, furthest)
            if without_progress >= limits.tries:
                raise DownloadFailed(f"download interrupted: {str(error) or type(error).__name__}") from error
        await asyncio.sleep(next(waits))
    download.expected.check(partial.size, await asyncio.to_thread(_sha256, partial.path))


async def _request(download: _Download) -> None:
    expected, partial, limits = download.expected, download.partial, download.limits
    # No compression in transit: offsets, size and checksum are those of the stored file.
    headers = {"Accept-Encoding": "identity"} | partial.resume_headers(expected.url)
    async with download.client.stream("GET", expected.url, headers=headers, follow_redirects=True) as response:
        done, total = _begin(response, expected, partial)
        _require_size(total or 0, limits)
        with partial.path.open("ab") as file:
            async for chunk in response.aiter_raw():
                done += len(chunk)
                _require_size(done, limits)
                if total is not None and done > total:
                    raise NotAsExpected(f"size mismatch: expected {total} bytes, got more")
                file.write(chunk)
                download.on_progress(done, total)
    if total is not None and done < total:
        raise _Interrupted(f"received {done} of {total} bytes")


def _begin(response: httpx2.Response, expected: ExpectedArtifact, partial: Partial) -> tuple[int, int | None]:
    """Prepare the partial file for this response.

    Returns:
        The number of bytes that are kept, and the total number of bytes, or None if it is unknown.
    """
    code = response.status_code
    if code == HTTPStatus.OK:
        expected.check_headers(response.headers)
        matched = _LENGTH.fullmatch(response.headers.get("content-length", ""))
        total = int(matched[0]) if matched else None
        expected.check_total(total)
        partial.restart(expected.url, _validator(response), total)
        return 0, total if total is not None else expected.size
    if code == HTTPStatus.PARTIAL_CONTENT:
        matched = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        total = int(matched[2]) if matched and matched[2] else None
        if matched and partial.continues(int(matched[1]), total, _validator(response)):
            partial.resumed = True
            expected.check_headers(response.headers)
            expected.check_total(total)
            return partial.size, total if total is not None else expected.size
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        held = partial.size
        partial.discard()
        raise _Interrupted(f"received {held} bytes, and the server has no more")
    if code == HTTPStatus.PARTIAL_CONTENT:
        partial.discard()
        raise _Interrupted("the server sent another range than requested")
    if code in _TRY_LATER or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _Interrupted(f"HTTP {code}")
    refused = DownloadRefused if code in _REFUSALS else DownloadFailed
    raise refused(f"cannot download: HTTP {code}")


def _validator(response: httpx2.Response) -> str:
    """The strong ETag, or empty. A weak ETag or a date does not guarantee identical bytes."""
    tag: str = response.headers.get("etag", "")
    return "" if tag.startswith("W/") else tag


def _require_http(url: str) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"http", "https"}:
        raise DownloadFailed("cannot download: only http and https URLs are supported")


def _require_size(size: int, limits: Limits) -> None:
    if size > limits.size:
        raise DownloadFailed(f"artifact larger than {limits.size} bytes")


def _discard(partial: Partial) -> None:
    with contextlib.suppress(OSError):
        partial.discard()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
