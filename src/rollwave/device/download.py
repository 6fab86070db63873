"""Fetching an artifact over HTTP: resumed where it broke off, bounded, and checked before it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from rollwave.device.backoff import delays
from rollwave.device.partial import Partial
from rollwave.device.promise import DownloadFailed, NotAsPromised, Promise
from rollwave.log import get_logger

_TRY_LATER = frozenset({408, 425, 429})
_REFUSALS = frozenset({401, 403, 404, 410})
_LENGTH = re.compile(r"\d{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:(\d{1,18})|\*)")

Progress = Callable[[int, int | None], None]
"""Told the bytes held so far and the bytes in all, where the server or the command says."""

_log = get_logger("device")


class DownloadRefused(DownloadFailed):
    """The server does not give out the artifact at this URL, or no longer: a signed URL may have expired."""


class _BrokeOff(Exception):
    """One request brought no complete artifact."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download: seconds in all, bytes, and tries in a row that bring nothing new."""

    seconds: float = 3600.0
    size: int = 4 * 1024**3
    tries: int = 8
    first_wait: float = 0.5


@dataclass(frozen=True, slots=True)
class _Download:
    """One call of :func:`fetch`."""

    client: httpx2.AsyncClient
    promise: Promise
    partial: Partial
    limits: Limits
    on_progress: Progress


async def fetch(
    client: httpx2.AsyncClient,
    promise: Promise,
    artifact: Path,
    *,
    limits: Limits = Limits(),
    on_progress: Progress = lambda _done, _total: None,
) -> None:
    """Bring what is promised to the file ``artifact``; what an earlier, broken-off call left is used.

    Raises:
        DownloadRefused: the server does not give it out at this URL.
        DownloadFailed: it cannot be had within the limits, or it is something else than promised.
    """
    _require_http(promise.url)
    partial = Partial(artifact)
    download = _Download(client, promise, partial, limits, on_progress)
    try:
        async with asyncio.timeout(limits.seconds):
            await _fetch(download)
        partial.keep(artifact)
    except NotAsPromised:
        _discard(partial)
        raise
    except TimeoutError:
        raise DownloadFailed(f"download not complete after {limits.seconds:g} s") from None
    except OSError as error:
        _discard(partial)  # on a full disk it is in the way of all else
        raise DownloadFailed(f"cannot write the download: {error.strerror or error}") from error


def matches(promise: Promise, artifact: Path) -> bool:
    """Whether the file ``artifact`` is there, and what is promised."""
    try:
        promise.check(artifact.stat().st_size, _sha256(artifact))
    except (OSError, NotAsPromised):
        return False
    return True


async def _fetch(download: _Download) -> None:
    try:
        await _complete(download)
    except NotAsPromised as error:
        if not download.partial.pieced:
            raise
        # The pieces may be of two files: what counts is what comes in one.
        _log.warning("device_download_restarted", reason=str(error))
        download.partial.discard()
        await _complete(download)


async def _complete(download: _Download) -> None:
    partial, limits = download.partial, download.limits
    waits, furthest, fruitless = delays(limits.first_wait), partial.size, 0
    while True:
        try:
            await _request(download)
            break
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise DownloadFailed(f"cannot download: {error}") from error
        except (httpx2.HTTPError, _BrokeOff) as error:
            size = partial.size
            fruitless = 0 if size > furthest else fruitless + 1
            furthest = max(size, furthest)
            if fruitless >= limits.tries:
                raise DownloadFailed(f"download broke off: {str(error) or type(error).__name__}") from error
        await asyncio.sleep(next(waits))
    download.promise.check(partial.size, await asyncio.to_thread(_sha256, partial.path))


async def _request(download: _Download) -> None:
    promise, partial, limits = download.promise, download.partial, download.limits
    # As stored, not compressed on the way: offsets, size and checksum are of the file.
    headers = {"Accept-Encoding": "identity"} | partial.resume_headers(promise.url)
    async with download.client.stream("GET", promise.url, headers=headers, follow_redirects=True) as response:
        done, total = _begin(response, promise, partial)
        _require_size(total or 0, limits)
        with partial.path.open("ab") as file:
            async for chunk in response.aiter_raw():
                done += len(chunk)
                _require_size(done, limits)
                if total is not None and done > total:
                    raise NotAsPromised(f"size mismatch: expected {total} bytes, and more came")
                file.write(chunk)
                download.on_progress(done, total)
    if total is not None and done < total:
        raise _BrokeOff(f"{done} of {total} bytes came")


def _begin(response: httpx2.Response, promise: Promise, partial: Partial) -> tuple[int, int | None]:
    """Bytes held that count, and bytes in all if known; the file is made to agree."""
    code = response.status_code
    if code == HTTPStatus.OK:
        promise.check_headers(response.headers)
        matched = _LENGTH.fullmatch(response.headers.get("content-length", ""))
        total = int(matched[0]) if matched else None
        promise.check_total(total)
        partial.restart(promise.url, _validator(response), total)
        return 0, total if total is not None else promise.size
    if code == HTTPStatus.PARTIAL_CONTENT:
        matched = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        total = int(matched[2]) if matched and matched[2] else None
        if matched and partial.continues(int(matched[1]), total, _validator(response)):
            partial.pieced = True
            promise.check_headers(response.headers)
            promise.check_total(total)
            return partial.size, total if total is not None else promise.size
    if code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        held = partial.size
        partial.discard()
        raise _BrokeOff(f"{held} bytes came, and the server has no more")
    if code == HTTPStatus.PARTIAL_CONTENT:
        partial.discard()
        raise _BrokeOff("the server has other bytes than those asked for")
    if code in _TRY_LATER or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _BrokeOff(f"HTTP {code}")
    refused = DownloadRefused if code in _REFUSALS else DownloadFailed
    raise refused(f"cannot download: HTTP {code}")


def _validator(response: httpx2.Response) -> str:
    """Only a strong ETag promises the same bytes; a weak one, or a date with its one second, does not."""
    tag: str = response.headers.get("etag", "")
    return "" if tag.startswith("W/") else tag


def _require_http(url: str) -> None:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"http", "https"}:
        raise DownloadFailed("cannot download: only http and https URLs are followed")


def _require_size(size: int, limits: Limits) -> None:
    if size > limits.size:
        raise DownloadFailed(f"artifact larger than {limits.size} bytes")


def _discard(partial: Partial) -> None:
    with contextlib.suppress(OSError):
        partial.discard()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
