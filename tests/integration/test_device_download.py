"""Downloads from a server that drops connections, changes the file, or sends wrong headers."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwave.device.download import DownloadRefused, Limits, fetch
from rollwave.device.expected import DownloadFailed, ExpectedArtifact, NotAsExpected
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


async def test_an_interrupted_download_is_resumed_at_its_last_byte(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.cuts = [100_000, 50_000]
    seen: list[tuple[int, int | None]] = []
    await fetch(
        client,
        ExpectedArtifact(url, checksum),
        tmp_path / "fw.bin",
        limits=QUICK,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["fw.bin"]


async def test_a_new_process_resumes_the_download_of_a_killed_one(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="interrupted"):
        await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)
    await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)
    assert server.requests[-1] == "bytes=100000-"
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT


async def test_parts_of_another_url_or_version_are_not_used(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    other = CONTENT[::-1]
    server.put(other)
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    another_url, checksum = server.put(other, "other.bin")
    await fetch(client, ExpectedArtifact(another_url, checksum), tmp_path / "fw.bin", limits=QUICK)
    assert server.requests[4] == "bytes=100000-"
    assert server.requests[-1] is None
    assert (tmp_path / "fw.bin").read_bytes() == other


@pytest.mark.parametrize(("ranges", "etag"), [(False, True), (True, False)])
async def test_without_ranges_or_a_validator_a_download_starts_again(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, ranges: bool, etag: bool
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.ranges, server.script.etag = ranges, etag
    server.script.cuts = [100_000]
    await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT


async def test_bytes_with_a_wrong_checksum_are_deleted(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, actual = server.put(CONTENT)
    with pytest.raises(DownloadFailed, match=f"^checksum mismatch: expected {'0' * 64}, got {actual}$"):
        await fetch(client, ExpectedArtifact(url, "0" * 64), tmp_path / "fw.bin", limits=QUICK)
    assert list(tmp_path.iterdir()) == []


async def test_a_busy_server_is_tried_again(server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path) -> None:
    url, checksum = server.put(CONTENT)
    server.script.statuses = [503, 429]
    await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)
    assert len(server.requests) == 3


async def test_a_server_that_refuses_is_not_tried_again(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        await fetch(client, ExpectedArtifact(server.url("missing")), tmp_path / "fw.bin", limits=QUICK)
    assert len(server.requests) == 1


@pytest.mark.parametrize("etag", ["fixed", True])
async def test_parts_of_two_different_files_are_replaced_by_a_fresh_download(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, etag: bool | str
) -> None:
    url, _ = server.put(CONTENT)
    server.script.etag = etag
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="interrupted"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    other = CONTENT[::-1]
    _, checksum = server.put(other)
    await fetch(client, ExpectedArtifact(url, checksum, len(other)), tmp_path / "fw.bin", limits=QUICK)
    assert (tmp_path / "fw.bin").read_bytes() == other
    assert server.requests[4:] == ["bytes=100000-", *([None] if etag == "fixed" else [])]


@pytest.mark.parametrize("total", [len(CONTENT) - 1, len(CONTENT) + 5])
async def test_a_resumed_part_of_another_total_length_is_discarded(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, total: int
) -> None:
    url, _ = server.put(CONTENT)
    server.script.etag = "fixed"
    server.script.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="interrupted"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    other = (CONTENT[::-1] * 2)[:total]
    server.put(other)
    await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    assert (tmp_path / "fw.bin").read_bytes() == other


async def test_a_resumed_file_with_a_wrong_checksum_is_downloaded_anew_once(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    server.script.cuts = [100_000]
    with pytest.raises(NotAsExpected, match="checksum mismatch"):
        await fetch(client, ExpectedArtifact(url, "0" * 64), tmp_path / "fw.bin", limits=QUICK)
    assert server.requests == [None, "bytes=100000-", None]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("length", [True, False])
async def test_an_empty_file_is_never_accepted(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, size: int | None, length: bool
) -> None:
    url, checksum = server.put(b"")
    server.script.length = length
    with pytest.raises(DownloadFailed, match=r"0 bytes|interrupted: received 0 of 7 bytes"):
        await fetch(client, ExpectedArtifact(url, checksum, size), tmp_path / "fw.bin", limits=QUICK)
    assert not (tmp_path / "fw.bin").exists()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("held", [len(CONTENT) // 2, len(CONTENT) + 1])
async def test_a_file_of_another_size_than_expected_is_refused(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, length: bool, held: int
) -> None:
    url, _ = server.put((CONTENT * 2)[:held])
    server.script.length = length
    with pytest.raises(DownloadFailed, match=r"size mismatch|interrupted: received \d+ bytes"):
        await fetch(client, ExpectedArtifact(url, size=len(CONTENT)), tmp_path / "fw.bin", limits=QUICK)
    assert not (tmp_path / "fw.bin").exists()
    assert len(server.requests) == 1 or not length


async def test_half_a_file_is_completed_when_its_size_is_known(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    server.script.length = False  # The end of the connection is the only sign of the end of the file.
    server.script.cuts = [100_000]
    seen: list[int | None] = []
    await fetch(
        client,
        ExpectedArtifact(url, size=len(CONTENT)),
        tmp_path / "fw.bin",
        limits=QUICK,
        on_progress=lambda _, total: seen.append(total),
    )
    assert (tmp_path / "fw.bin").read_bytes() == CONTENT
    assert set(seen) == {len(CONTENT)}


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "br", "gzip, identity"])
async def test_an_unrequested_content_encoding_is_refused(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, encoding: str
) -> None:
    url, _ = server.put(gzip.compress(CONTENT))
    server.script.headers = {"Content-Encoding": encoding}
    with pytest.raises(NotAsExpected, match=f"Content-Encoding {encoding}, not requested"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    assert list(tmp_path.iterdir()) == []


async def test_the_content_encoding_identity_is_accepted(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, checksum = server.put(CONTENT)
    server.script.headers = {"Content-Encoding": "identity"}
    await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)


async def test_a_web_page_is_refused_unless_the_checksum_matches(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    page = b"<html>Log in</html>"
    url, checksum = server.put(page)
    server.script.headers = {"Content-Type": "Text/HTML; charset=utf-8"}
    with pytest.raises(NotAsExpected, match=r"web page \(text/html\)"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    await fetch(client, ExpectedArtifact(url, checksum), tmp_path / "fw.bin", limits=QUICK)
    named, _ = server.put(page, "help.html")
    await fetch(client, ExpectedArtifact(named), tmp_path / "fw.bin", limits=QUICK)


async def test_a_tls_failure_fails_the_download(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    url, _ = server.put(CONTENT)
    with pytest.raises(DownloadFailed, match="interrupted"):
        await fetch(client, ExpectedArtifact(url.replace("http:", "https:")), tmp_path / "fw.bin", limits=QUICK)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_http_refusal_has_its_own_error(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, status: int
) -> None:
    url, _ = server.put(CONTENT)
    server.script.statuses = [status]
    with pytest.raises(DownloadRefused, match=f"HTTP {status}"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)


@pytest.mark.parametrize("to", ["/fw.bin", "file:///etc/passwd", "http://["])
async def test_redirects_are_limited_and_stay_on_http(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, to: str
) -> None:
    url, _ = server.put(CONTENT)
    server.script.redirect = to
    with pytest.raises(DownloadFailed):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)
    assert len(server.requests) <= 6
    assert not (tmp_path / "fw.bin").exists()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "", "http://[", "x", "http://", "HTTP://\x00"])
async def test_a_url_that_is_not_http_is_refused(client: httpx2.AsyncClient, tmp_path: Path, url: str) -> None:
    with pytest.raises((DownloadFailed, ValueError)):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=QUICK)


@pytest.mark.parametrize("length", [True, False])
async def test_a_download_stops_at_the_maximum_number_of_bytes(
    server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path, length: bool
) -> None:
    url, _ = server.put(CONTENT)
    server.script.length = length
    with pytest.raises(DownloadFailed, match="larger than 1000 bytes"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=Limits(size=1000))


async def test_a_stalled_download_is_ended(server: ArtifactServer, client: httpx2.AsyncClient, tmp_path: Path) -> None:
    url, _ = server.put(CONTENT)
    server.script.hold_at = 1000
    with pytest.raises(DownloadFailed, match=r"not complete after 0\.2 s"):
        await fetch(client, ExpectedArtifact(url), tmp_path / "fw.bin", limits=Limits(seconds=0.2))


async def test_a_server_that_refuses_connections_fails_the_download(client: httpx2.AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="interrupted"):
        await fetch(client, ExpectedArtifact("http://127.0.0.1:9/fw"), tmp_path / "fw.bin", limits=QUICK)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ArtifactServer]:
    with ArtifactServer() as server:
        yield server


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(min_size=1, max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    statuses=st.lists(st.sampled_from([500, 429, 416]), max_size=2),
    ranges=st.booleans(),
    etag=st.booleans(),
)
def test_after_any_interruptions_the_file_is_complete_or_absent(
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
            await fetch(client, ExpectedArtifact(url, checksum), artifact, limits=limits)
        return artifact.read_bytes()

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(attempt(folder)) == content
