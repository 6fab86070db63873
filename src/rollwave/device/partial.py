"""What has come of an artifact so far, on the disk, so that a download that broke off can be resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Partial:
    """The bytes held, and a note of which they are: the URL, the server's ETag, and the file's size in bytes."""

    def __init__(self, artifact: Path) -> None:
        self.path = artifact.with_suffix(".part")
        self.pieced = False
        """Whether what is held came in several answers, which may be of different files."""
        self._note = artifact.with_suffix(".part.json")

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.path.stat().st_size if self.path.exists() else 0

    def resume_headers(self, url: str) -> dict[str, str]:
        """Ask for the rest, if what is held is of ``url`` and the server can tell whether it still is."""
        note = self._noted()
        validator = note.get("validator")
        if note.get("url") == url and isinstance(validator, str) and validator and self.size:
            return {"Range": f"bytes={self.size}-", "If-Range": validator}
        return {}

    def continues(self, start: int, total: int | None, validator: str) -> bool:
        """Whether an answer from the byte ``start`` on follows on what is held, and says nothing of another file."""
        note = self._noted()
        said = ((note.get("total"), total), (note.get("validator"), validator))
        return start == self.size and all(not known or not now or known == now for known, now in said)

    def restart(self, url: str, validator: str, total: int | None) -> None:
        """Drop what is held and note what comes next."""
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")
        self.path.touch()

    def discard(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.pieced = False

    def keep(self, artifact: Path) -> None:
        """It is complete and right: give it its name, once it would survive a loss of power."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(artifact)
        self._note.unlink(missing_ok=True)

    def _noted(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return note if isinstance(note, dict) else {}
