"""Fetching an artifact over HTTP: resumed where it broke off, bounded, and checked before it is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from rollwave.device.backoff import delays
from rollwave.errors import RollwaveError

_TRY_LATER = frozenset({408, 425, 429})
_LENGTH = re.compile(r"\d{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:(\d{1,18})|\*)")

Progress = Callable[[int, int | None], None]
"""Told the bytes held so far and the bytes in all, where the server says."""


class DownloadFailed(RollwaveError):
    """The artifact cannot be had, or is not what was promised. The message is fit for a report."""


class _BrokeOff(Exception):
    """One request brought no complete artifact."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download: seconds in all, bytes, and tries in a row that bring nothing new."""

    seconds: float = 3600.0
    size: int = 4 * 1024**3
    tries: int = 8
    first_wait: float = 0.5


class Partial:
    """What has come so far, and a note of which bytes they are: the URL, and the server's ETag."""

    def __init__(self, artifact: Path) -> None:
        self.path = artifact.with_suffix(".part")
        self._note = artifact.with_suffix(".part.json")

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.path.stat().st_size if self.path.exists() else 0

    def resume_headers(self, url: str) -> dict[str, str]:
        """Ask for the rest, if what is held is of ``url`` and the server can tell whether it still is."""
        try:
            note = json.loads(self._note.read_bytes())
            if note["url"] == url and note["validator"] and self.size:
                return {"Range": f"bytes={self.size}-", "If-Range": note["validator"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {}

    def restart(self, url: str, validator: str) -> None:
        """Drop what is held and note what comes next."""
        self.discard()
        self._note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def keep(self, artifact: Path) -> None:
        """It is complete and right: give it its name."""
        self.path.replace(artifact)
        self._note.unlink(missing_ok=True)


async def fetch(
    client: httpx2.AsyncClient,
    url: str,
    artifact: Path,
    *,
    checksum: str = "",
    limits: Limits = Limits(),
    on_progress: Progress = lambda _done, _total: None,
) -> None:
    """Bring ``url`` to the file ``artifact``; what an earlier, broken-off call left is used.

    ``checksum`` is SHA-256 in hexadecimal, or empty where there is none to check.

    Raises:
        DownloadFailed: it cannot be had within the limits, or it is something else than promised.
    """
    _require_http(url)
    partial = Partial(artifact)
    try:
        async with asyncio.timeout(limits.seconds):
            await _complete(client, url, partial, limits, on_progress)
            digest = await asyncio.to_thread(_sha256, partial.path)
    except TimeoutError:
        raise DownloadFailed(f"download not complete after {limits.seconds:g} s") from None
    except OSError as error:
        raise DownloadFailed(f"cannot write the download: {error.strerror}") from error
    if checksum and digest != checksum.strip().lower():
        partial.discard()
        raise DownloadFailed(f"checksum mismatch: expected {checksum[:64]}, got {digest}")
    partial.keep(artifact)


async def _complete(
    client: httpx2.AsyncClient, url: str, partial: Partial, limits: Limits, on_progress: Progress
) -> None:
    waits, furthest, fruitless = delays(limits.first_wait), partial.size, 0
    while True:
        try:
            return await _request(client, url, partial, limits, on_progress)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise DownloadFailed(f"cannot download: {error}") from error
        except (httpx2.HTTPError, _BrokeOff) as error:
            size = partial.size
            fruitless = 0 if size > furthest else fruitless + 1
            furthest = max(size, furthest)
            if fruitless >= limits.tries:
                raise DownloadFailed(f"download broke off: {str(error) or type(error).__name__}") from error
        await asyncio.sleep(next(waits))


async def _request(
    client: httpx2.AsyncClient, url: str, partial: Partial, limits: Limits, on_progress: Progress
) -> None:
    # As stored, not compressed on the way: offsets and the checksum are of the file.
    headers = {"Accept-Encoding": "identity"} | partial.resume_headers(url)
    async with client.stream("GET", url, headers=headers, follow_redirects=True) as response:
        done, total = _begin(response, url, partial)
        _require_size(total or 0, limits)
        with partial.path.open("ab") as file:
            async for chunk in response.aiter_raw():
                done += len(chunk)
                _require_size(done, limits)
                file.write(chunk)
                on_progress(done, total)
    if total is not None and done != total:
        raise _BrokeOff(f"{done} of {total} bytes came")


def _begin(response: httpx2.Response, url: str, partial: Partial) -> tuple[int, int | None]:
    """Bytes held that count, and bytes in all if known; the file is made to agree."""
    code = response.status_code
    if code == HTTPStatus.OK:
        partial.restart(url, _validator(response))
        partial.path.touch()
        matched = _LENGTH.fullmatch(response.headers.get("content-length", ""))
        return 0, int(matched[0]) if matched else None
    if code == HTTPStatus.PARTIAL_CONTENT:
        matched = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if matched and int(matched[1]) == partial.size:
            return partial.size, int(matched[2]) if matched[2] else None
    if code in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
        partial.discard()
        raise _BrokeOff("the server has other bytes than those asked for")
    if code in _TRY_LATER or code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _BrokeOff(f"HTTP {code}")
    raise DownloadFailed(f"cannot download: HTTP {code}")


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
