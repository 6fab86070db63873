"""The style guide of the console: its real templates with sample campaigns, in every state and both themes.

python -m scripts.styleguide          serves it at http://127.0.0.1:8100/console/styleguide/, until Ctrl-C
python -m scripts.styleguide FOLDER   writes it into a folder

It is for development: `rollwave serve` does not have it, and the wheel does not contain its samples.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader

from rollwave.console.pages import NAVIGATION, Can, environment
from rollwave.domain.role import Role
from scripts import console_sample_data as data
from scripts.console_sample_parts import Document
from scripts.console_samples import campaigns

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "src" / "rollwave" / "console" / "static"
THEMES = ("light", "dark")
PORT = 8100
PAGES = "console/styleguide"
"""The folder of the pages. Beside it are the static files and the data, at the addresses that the pages use."""


def templates() -> Environment:
    """The console's templates, and that of the style guide."""
    made = environment().overlay()
    assert made.loader is not None
    made.loader = ChoiceLoader([made.loader, FileSystemLoader(Path(__file__).parent / "styleguide_templates")])
    return made


def frame(theme: str, role: Role | None = Role.ADMIN) -> dict[str, Any]:
    """What every page gets beside its own values."""
    session = {"tenant_id": "acme", "role": role, "key_id": "k7f3q2"} if role else None
    return {
        "can": Can.of(role),
        "csrf_token": "token",
        "flash": "",
        "here": "/console/campaigns/7",
        "login": "/console/login",
        "navigation": NAVIGATION,
        "path": "/console/campaigns/7",
        "request_id": "r",
        "section": "/console/campaigns",
        "session": session,
        "theme": theme,
        "themes": ("system", "light", "dark"),
    }


def write(folder: Path) -> None:
    """Write all pages with an index, the static files, and the data that the pages' scripts read."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / PAGES
    pages.mkdir(parents=True)
    made = templates()
    static = folder / made.globals["static"]("console.css").lstrip("/")  # type: ignore[operator]
    shutil.copytree(STATIC, static.parent)
    for theme in THEMES:
        (pages / f"components-{theme}.html").write_text(
            made.get_template("styleguide.html").render(frame(theme) | {"samples": campaigns()}), "utf-8"
        )
        for name, overview in campaigns().items():
            page = made.get_template("campaign.html").render(frame(theme) | values(overview))
            (pages / f"campaign-{name}-{theme}.html").write_text(page, "utf-8")
    names = sorted(path.stem for path in pages.glob("*.html"))
    index = made.get_template("index.html").render(frame("system") | {"pages": names})
    (pages / "index.html").write_text(index, "utf-8")
    for overview in campaigns().values():
        place = folder / "console" / "campaigns" / str(overview["campaign_id"])
        place.mkdir(parents=True, exist_ok=True)
        (place / "timeline").write_text(json.dumps(data.timeline(overview)), "utf-8")
        (place / "field").write_bytes(data.field(overview))


def values(overview: Document) -> dict[str, Any]:
    """The values of the campaign page, as its route gives them. The page is not live."""
    name = overview["name"] or f"campaign {overview['campaign_id']}"
    return {
        "overview": overview,
        "devices": data.devices(overview),
        "title": f"{name} · Rollwave",
        "sequence": "",
        "final": True,
    }


def serve() -> None:
    """Serve the style guide until Ctrl-C."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        handler = partial(SimpleHTTPRequestHandler, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", PORT), handler) as server:
            print(f"http://127.0.0.1:{PORT}/{PAGES}/")
            server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    else:
        serve()
