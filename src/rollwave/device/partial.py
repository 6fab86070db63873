"""The partial file of a download, which allows an interrupted download to be resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Partial:
    """The bytes received so far, and a JSON file that describes them: URL, ETag, and total size in bytes."""

    def __init__(self, artifact: Path) -> None:
        self.path = artifact.with_suffix(".part")
        self.resumed = False
        """Whether the bytes come from several responses. These may be of different versions of the file."""
        self._description = artifact.with_suffix(".part.json")

    @property
    def size(self) -> int:
        """Number of bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def resume_headers(self, url: str) -> dict[str, str]:
        """The headers that request the rest. Empty if the partial file is of another URL, or has no ETag to compare."""
        described = self._read_description()
        validator = described.get("validator")
        if described.get("url") == url and isinstance(validator, str) and validator and self.size:
            return {"Range": f"bytes={self.size}-", "If-Range": validator}
        return {}

    def continues(self, start: int, total: int | None, validator: str) -> bool:
        """Whether a response that begins at byte ``start`` continues the partial file, with the same size and ETag."""
        described = self._read_description()
        said = ((described.get("total"), total), (described.get("validator"), validator))
        return start == self.size and all(not known or not now or known == now for known, now in said)

    def restart(self, url: str, validator: str, total: int | None) -> None:
        """Delete the received bytes, and begin a download of ``total`` bytes (None: unknown) from ``url``."""
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._description.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")
        self.path.touch()

    def discard(self) -> None:
        """Delete the partial file and its description."""
        self.path.unlink(missing_ok=True)
        self._description.unlink(missing_ok=True)
        self.resumed = False

    def keep(self, artifact: Path) -> None:
        """Rename the complete, verified file to ``artifact``, after its content is flushed to disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(artifact)
        self._description.unlink(missing_ok=True)

    def _read_description(self) -> dict[str, Any]:
        try:
            described = json.loads(self._description.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return described if isinstance(described, dict) else {}
