"""What a command promises of an artifact, held against what a server sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rollwave.errors import RollwaveError
from rollwave.mqtt.payload import Command

_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class DownloadFailed(RollwaveError):
    """The artifact cannot be had, or is not what was promised. The message is fit for a report."""


class NotAsPromised(DownloadFailed):
    """The bytes are others than those promised."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is known of the artifact at ``url`` before it comes.

    ``checksum`` is SHA-256 in hexadecimal, or empty; ``size`` is bytes, or None: not known.
    """

    url: str
    checksum: str = ""
    size: int | None = None

    @classmethod
    def of(cls, command: Command) -> Promise:
        """The promise that a command makes."""
        return cls(command.firmware_url, command.checksum.strip().lower(), command.size)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Look at an answer before its body.

        Raises:
            NotAsPromised: it is encoded, though that was not asked for; or a web page where there is no checksum that
                could tell it from the firmware.
        """
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity"}:
            raise NotAsPromised(f"cannot download: the server sends it with Content-Encoding {encoding[:40]}, unasked")
        if not self.checksum and _kind(headers) in _PAGES and not self._is_page:
            raise NotAsPromised(f"cannot download: the server sends a web page ({_kind(headers)}), not the firmware")

    def check_total(self, total: int | None) -> None:
        """Look at how many bytes the server says there are.

        Raises:
            NotAsPromised: none, or not as many as promised.
        """
        if total == 0:
            raise NotAsPromised("cannot download: the server has 0 bytes")
        if None not in {total, self.size} and total != self.size:
            raise NotAsPromised(f"size mismatch: expected {self.size} bytes, the server has {total}")

    def check(self, size: int, digest: str) -> None:
        """Look at what has come, all of it. ``digest`` is its SHA-256.

        Raises:
            NotAsPromised: it is empty, or something else than promised.
        """
        if size == 0:
            raise NotAsPromised("cannot download: 0 bytes came")
        if self.size is not None and size != self.size:
            raise NotAsPromised(f"size mismatch: expected {self.size} bytes, got {size}")
        if self.checksum and digest != self.checksum:
            raise NotAsPromised(f"checksum mismatch: expected {self.checksum[:64]}, got {digest}")

    @property
    def _is_page(self) -> bool:
        return urlsplit(self.url).path.lower().endswith((".html", ".htm", ".xhtml"))


def _kind(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
