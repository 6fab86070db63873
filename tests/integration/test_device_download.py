"""Downloads from a server that breaks off, changes its mind, and lies."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwave.device.download import DownloadFailed, Limits, fetch
from tests.artifact_server import ArtifactServer

CONTENT = bytes(range(256)) * 1000
QUICK = Limits(seconds=10, tries=3, first_wait=0.001)


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(max_redirects=5, trust_env=False) as client:
        yield client


async def test_a_download_that_breaks_off_is_resumed_where_it_was(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.cuts = [100_000, 50_000]
    seen: list[tuple[int, int | None]] = []
    await fetch(
        client,
        url,
        tmp_path / "fw.bin",
        checksum=checksum.upper(),
        limits=QUICK,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["fw.bin"]


async def test_another_process_resumes_what_a_killed_one_left(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="broke off"):
        await fetch(client, url, tmp_path / "fw.bin", checksum=checksum, limits=QUICK)
    await fetch(client, url, tmp_path / "fw.bin", checksum=checksum, limits=QUICK)
    assert server.requests[-1] == "bytes=100000-"
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT


async def test_what_was_fetched_of_another_url_or_version_is_not_used(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        await fetch(client, url, tmp_path / "fw.bin", limits=QUICK)
    other = CONTENT[::-1]
    server.put(other)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        await fetch(client, url, tmp_path / "fw.bin", limits=QUICK)
    another_url, checksum = server.put(other, "other.bin")
    await fetch(client, another_url, tmp_path / "fw.bin", checksum=checksum, limits=QUICK)
    assert server.requests[4] == "bytes=100000-"
    assert server.requests[-1] is None
    assert (tmp_path / "fw.bin").read_bytes() == other


@pytest.mark.parametrize(("ranges", "etag"), [(False, True), (True, False)])
async def test_without_ranges_or_a_validator_it_starts_again(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, ranges: bool, etag: bool
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.ranges, server.script.etag = ranges, etag
    server.script.cuts = [100_000]
    await fetch(client, url, tmp_path / "fw.bin", checksum=checksum, limits=QUICK)
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT


async def test_other_bytes_than_promised_are_not_kept(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, actual = server.put(CONTENT)
    with pytest.raises(DownloadFailed, match=f"^checksum mismatch: expected {'0' * 64}, got {actual}$"):
        await fetch(client, url, tmp_path / "fw.bin", checksum="0" * 64, limits=QUICK)
    assert list(tmp_path.iterdir()) == []


async def test_a_busy_server_is_asked_again(server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path) -> None:
    url, checksum = server.put(CONTENT)
    server.script.statuses = [503, 429]
    await fetch(client, url, tmp_path / "fw.bin", checksum=checksum, limits=QUICK)
    assert len(server.requests) == 3


async def test_a_server_that_says_no_is_not_asked_again(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        await fetch(client, server.url("missing"), tmp_path / "fw.bin", limits=QUICK)
    assert len(server.requests) == 1


@pytest.mark.parametrize("to", ["/fw.bin", "file:///etc/passwd", "http://["])
async def test_redirects_are_bounded_and_stay_on_http(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, to: str
) -> None:
    url, _ = server.put(CONTENT)
    server.script.redirect = to
    with pytest.raises(DownloadFailed):
        await fetch(client, url, tmp_path / "fw.bin", limits=QUICK)
    assert len(server.requests) <= 6
    assert not (tmp_path / "fw.bin").exists()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "", "http://[", "x", "http://", "HTTP://\x00"])
async def test_what_is_no_http_url_is_not_followed(client: httpx2.AsyncClient, tmp_path: Path, url: str) -> None:
    with pytest.raises((DownloadFailed, ValueError)):
        await fetch(client, url, tmp_path / "fw.bin", limits=QUICK)


@pytest.mark.parametrize("length", [True, False])
async def test_no_more_bytes_come_than_allowed(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, length: bool
) -> None:
    url, _ = server.put(CONTENT)
    server.script.length = length
    with pytest.raises(DownloadFailed, match="larger than 1000 bytes"):
        await fetch(client, url, tmp_path / "fw.bin", limits=Limits(size=1000))


async def test_a_download_that_stands_still_ends(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    server.script.hold_at = 1000
    with pytest.raises(DownloadFailed, match=r"not complete after 0\.2 s"):
        await fetch(client, url, tmp_path / "fw.bin", limits=Limits(seconds=0.2))


async def test_nothing_listening(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="broke off"):
        await fetch(client, "http://127.0.0.1:9/fw", tmp_path / "fw.bin", limits=QUICK)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    statuses=st.lists(st.sampled_from([500, 429, 416]), max_size=2),
    ranges=st.booleans(),
    etag=st.booleans(),
)
def test_whatever_the_cuts_the_bytes_are_those_served_or_there_are_none(
    shared_server: ArtifactServer,
    content: bytes,
    cuts: list[int],
    statuses: list[int],
    ranges: bool,
    etag: bool,
) -> None:
    url, checksum = shared_server.put(content)
    script = shared_server.script
    script.cuts, script.statuses, script.ranges, script.etag = cuts, statuses, ranges, etag
    script.release = threading.Event()

    async def attempt(folder: str) -> bytes:
        artifact = Path(folder) / "fw.bin"
        async with httpx2.AsyncClient(trust_env=False) as client:
            limits = Limits(seconds=10, tries=9, first_wait=0.0001)
            await fetch(client, url, artifact, checksum=checksum, limits=limits)
        return artifact.read_bytes()

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(attempt(folder)) == content
