"""Serves the console's scripts, styles and icons from the wheel, compressed and for ever cacheable."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

router = APIRouter()

_TYPES: Mapping[str, str] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. ``gzipped`` None: compression does not make it smaller."""

    body: bytes
    gzipped: bytes | None
    media_type: str


@dataclass(frozen=True, slots=True)
class StaticFiles:
    """The files by their path under ``static/``.

    ``version`` is a hash of all of them. It is part of every URL, so a browser may keep each file for ever; and as all
    files share it, scripts can import each other by relative paths.
    """

    version: str
    files: Mapping[str, Asset]

    def url(self, name: str) -> str:
        """The URL of a file.

        Raises:
            KeyError: there is no such file.
        """
        if name not in self.files:
            raise KeyError(name)
        return f"/console/static/{self.version}/{name}"


@cache
def load() -> StaticFiles:
    """All files under ``static/``, read once."""
    found = dict(sorted(_walk(files("rollwave.console") / "static", "")))
    digest = hashlib.sha256()
    for name, body in found.items():
        digest.update(f"{name}\0{len(body)}\0".encode())
        digest.update(body)
    return StaticFiles(digest.hexdigest()[:16], {name: _asset(name, body) for name, body in found.items()})


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{prefix}{each.name}/")
        elif not each.name.startswith("."):
            yield f"{prefix}{each.name}", each.read_bytes()


def _asset(name: str, body: bytes) -> Asset:
    extension = name.rpartition(".")[2]
    media_type = _TYPES.get(extension) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    small = gzip.compress(body, mtime=0)
    return Asset(body, small if len(small) < len(body) else None, media_type)


@router.get("/static/{version}/{name:path}")
async def static_file(request: Request, version: str, name: str) -> Response:
    """A file of the console. During an upgrade, a page of another version gets this version's file, uncached."""
    known: StaticFiles = request.app.state.static_files
    asset = known.files.get(name)
    if asset is None:
        raise HTTPException(404)
    headers = {
        "Cache-Control": _FOREVER if version == known.version else "no-cache",
        "Content-Type": asset.media_type,
        "Vary": "Accept-Encoding",
    }
    if asset.gzipped is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
        return Response(asset.gzipped, headers=headers | {"Content-Encoding": "gzip"})
    return Response(asset.body, headers=headers)
