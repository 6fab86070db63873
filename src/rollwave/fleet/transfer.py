"""Downloads and verifies an artifact without storing it."""

from __future__ import annotations

import hashlib
from http import HTTPStatus

import httpx2

from rollwave.device.expected import DownloadFailed, ExpectedArtifact
from rollwave.mqtt.payload import Command

_TRIES = 3


async def transfer(client: httpx2.AsyncClient, command: Command) -> int:
    """Download and verify the artifact of a command. Returns its size in bytes.

    Raises:
        DownloadFailed: it cannot be downloaded, or is not the expected one.
    """
    expected = ExpectedArtifact.of(command)
    size, digest = await _try(client, expected, _TRIES)
    expected.check(size, digest)
    return size


async def _try(client: httpx2.AsyncClient, expected: ExpectedArtifact, tries: int) -> tuple[int, str]:
    try:
        return await _hash(client, expected)
    except httpx2.TransportError as error:
        if tries > 1:
            return await _try(client, expected, tries - 1)
        raise DownloadFailed(f"download interrupted: {str(error) or type(error).__name__}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise DownloadFailed(f"cannot download: {error}") from error


async def _hash(client: httpx2.AsyncClient, expected: ExpectedArtifact) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    async with client.stream("GET", expected.url, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code != HTTPStatus.OK:
            raise DownloadFailed(f"cannot download: HTTP {response.status_code}")
        expected.check_headers(response.headers)
        async for chunk in response.aiter_raw():
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
