"""The style guide draws every sample campaign with the console's own templates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import styleguide
from scripts.console_samples import campaigns


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the style guide by name."""
    folder: Path = tmp_path_factory.mktemp("styleguide")
    styleguide.write(folder)
    return {path.stem: path.read_text("utf-8") for path in (folder / styleguide.PAGES).glob("*.html")}


def test_every_state_is_drawn_in_both_themes(pages: dict[str, str]) -> None:
    names = {"components", *(f"campaign-{name}" for name in campaigns())}
    drawn = {f"{name}-{theme}" for name in names for theme in styleguide.THEMES}
    assert set(pages) == drawn | {"index"}
    assert all(f'href="{name}.html"' in pages["index"] for name in drawn)


def test_no_page_has_inline_styles_scripts_or_handlers(pages: dict[str, str]) -> None:
    """The content security policy would block them."""
    for name, page in pages.items():
        assert not re.search(r"<[^>]*\sstyle=", page), name
        assert not re.search(r"<[^>]*\son[a-z]+=", page), name
        assert not re.search(r"<style\b", page), name
        assert re.findall(r"<script\b[^>]*>([^<]*)</script>", page).count("") == page.count("<script"), name


def test_no_character_is_drawn_as_an_emoji(pages: dict[str, str]) -> None:
    emoji = re.compile("[\\u23e9-\\u23fa\\u25b6\\u2600-\\u26ff\\U0001f300-\\U0001faff]")
    for name, page in pages.items():
        assert emoji.findall(page) == [], name


def test_ids_are_unique_and_labels_name_their_fields(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids)), (name, sorted(each for each in ids if ids.count(each) > 1))
        for each in re.findall(r'\s(?:for|aria-describedby|aria-labelledby)="([^"]+)"', page):
            assert each in ids, (name, each)


def test_a_final_campaign_keeps_the_heading_of_every_panel(pages: dict[str, str]) -> None:
    headings = {name: re.findall(r"<h2[^>]*>([^<]+)</h2>", page) for name, page in pages.items()}
    assert headings["campaign-completed-light"] == headings["campaign-running-light"]
    assert "Nothing waits." in pages["campaign-completed-light"]
