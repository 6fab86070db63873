"""What is known about an artifact before it is downloaded, and the checks of the server's response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rollwave.device import codes
from rollwave.errors import RollwaveError
from rollwave.mqtt.payload import Command

_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class DownloadFailed(RollwaveError):
    """The artifact cannot be downloaded, or is not the expected one. The message is sent in the device's report."""

    code = codes.DOWNLOAD


class NotAsExpected(DownloadFailed):
    """The content is not the expected one."""

    code = codes.CONTENT


class ChecksumMismatch(NotAsExpected):
    """The content has another checksum than expected."""

    code = codes.CHECKSUM


@dataclass(frozen=True, slots=True)
class ExpectedArtifact:
    """What is known about the artifact at ``url`` before it is downloaded.

    ``checksum``: SHA-256 in hexadecimal; empty: unknown. ``size``: bytes; None: unknown.
    """

    url: str
    checksum: str = ""
    size: int | None = None

    @classmethod
    def of(cls, command: Command) -> ExpectedArtifact:
        """Read it from a command."""
        return cls(command.firmware_url, command.checksum.strip().lower(), command.size)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check the headers of a response before its body is read.

        Raises:
            NotAsExpected: the content is encoded, which was not requested; or it is a web page, and there is no
                checksum to tell it from the firmware.
        """
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            raise NotAsExpected(f"cannot download: the server sends Content-Encoding {encoding[:40]}, not requested")
        if not self.checksum and _kind(headers) in _PAGES and not self._is_page:
            raise NotAsExpected(f"cannot download: the server sends a web page ({_kind(headers)}), not the firmware")

    def check_total(self, total: int | None) -> None:
        """Check the size that the server announces.

        Raises:
            NotAsExpected: it is 0, or not the expected size.
        """
        if total == 0:
            raise NotAsExpected("cannot download: the server has 0 bytes")
        if None not in {total, self.size} and total != self.size:
            raise NotAsExpected(f"size mismatch: expected {self.size} bytes, the server has {total}")

    def check(self, size: int, digest: str) -> None:
        """Check the complete content by its size in bytes and its SHA-256 ``digest``.

        Raises:
            NotAsExpected: it is empty, or has another size than expected.
            ChecksumMismatch: it has another checksum.
        """
        if size == 0:
            raise NotAsExpected("cannot download: received 0 bytes")
        if self.size is not None and size != self.size:
            raise NotAsExpected(f"size mismatch: expected {self.size} bytes, got {size}")
        if self.checksum and digest != self.checksum:
            raise ChecksumMismatch(f"checksum mismatch: expected {self.checksum[:64]}, got {digest}")

    @property
    def _is_page(self) -> bool:
        return urlsplit(self.url).path.lower().endswith((".html", ".htm", ".xhtml"))


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
