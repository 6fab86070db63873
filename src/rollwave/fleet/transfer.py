"""Fetching an artifact without keeping it: the bytes really come and are really checked."""

from __future__ import annotations

import hashlib
from http import HTTPStatus

import httpx2

from rollwave.device.promise import DownloadFailed, Promise
from rollwave.mqtt.payload import Command

_TRIES = 3


async def transfer(client: httpx2.AsyncClient, command: Command) -> int:
    """Fetch and check the command's artifact; the number of its bytes.

    Raises:
        DownloadFailed: it cannot be had, or it is something else than promised.
    """
    promise = Promise.of(command)
    size, digest = await _try(client, promise, _TRIES)
    promise.check(size, digest)
    return size


async def _try(client: httpx2.AsyncClient, promise: Promise, tries: int) -> tuple[int, str]:
    try:
        return await _hash(client, promise)
    except httpx2.TransportError as error:
        if tries > 1:
            return await _try(client, promise, tries - 1)
        raise DownloadFailed(f"download broke off: {str(error) or type(error).__name__}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise DownloadFailed(f"cannot download: {error}") from error


async def _hash(client: httpx2.AsyncClient, promise: Promise) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    async with client.stream("GET", promise.url, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code != HTTPStatus.OK:
            raise DownloadFailed(f"cannot download: HTTP {response.status_code}")
        promise.check_headers(response.headers)
        async for chunk in response.aiter_raw():
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
