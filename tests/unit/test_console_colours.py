"""The colours of the console, from its stylesheet: everybody can tell them apart, and texts are readable."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations

import pytest

from tests.colours import SIGHTS, contrast, distance

CSS = (files("rollwave.console") / "static" / "console.css").read_text("utf-8")
STATES = ("pending", "downloading", "installing", "success", "failed", "skipped")
SURFACES = ("background", "panel")
TEXTS = ("ink", "muted", "attention", "danger", "good")
THEMES = ("light", "dark")


def token(name: str, theme: str) -> str:
    """The value of a token in a theme."""
    found = re.search(rf"--{name}: light-dark\((#[0-9a-f]{{6}}), (#[0-9a-f]{{6}})\);", CSS)
    assert found, f"--{name} is no token with two values"
    return found[1 + THEMES.index(theme)]


def test_the_distance_is_that_of_the_published_examples() -> None:
    assert distance("#000000", "#ffffff", "normal") == pytest.approx(100, abs=0.01)
    assert distance("#777777", "#777777", "protan") == 0
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize(("theme", "least"), [("light", 14.4), ("dark", 14.9)])
def test_any_two_states_are_told_apart_with_every_kind_of_sight(theme: str, least: float) -> None:
    distances = {
        (one, other, sight): distance(token(one, theme), token(other, theme), sight)
        for one, other in combinations(STATES, 2)
        for sight in SIGHTS
    }
    closest = min(distances, key=lambda pair: distances[pair])
    assert round(distances[closest], 1) >= least, (closest, distances[closest])


@pytest.mark.parametrize("theme", THEMES)
def test_fills_are_seen_on_the_surfaces(theme: str) -> None:
    """The fill of PENDING is that of the track, whose outline is seen instead."""
    seen = [*(name for name in STATES if name != "pending"), "outline"]
    contrasts = {
        (name, surface): contrast(token(name, theme), token(surface, theme)) for name in seen for surface in SURFACES
    }
    faintest = min(contrasts, key=lambda pair: contrasts[pair])
    assert round(contrasts[faintest], 2) >= 3.05, (faintest, contrasts[faintest])


@pytest.mark.parametrize("theme", THEMES)
def test_letters_are_read_on_their_marks(theme: str) -> None:
    contrasts = {name: contrast(token(name, theme), token(f"{name}-letter", theme)) for name in STATES}
    faintest = min(contrasts, key=lambda name: contrasts[name])
    assert round(contrasts[faintest], 2) >= 4.97, (faintest, contrasts[faintest])


@pytest.mark.parametrize("theme", THEMES)
def test_texts_are_read_where_they_stand(theme: str) -> None:
    pairs = [(text, surface) for text in TEXTS for surface in (*SURFACES, "hover")]
    pairs += [("attention", "attention-surface"), ("on-ink", "ink"), ("on-ink", "danger")]
    contrasts = {pair: contrast(*(token(name, theme) for name in pair)) for pair in pairs}
    faintest = min(contrasts, key=lambda pair: contrasts[pair])
    assert contrasts[faintest] >= 4.5, (faintest, contrasts[faintest])


def test_no_colour_stands_outside_the_tokens() -> None:
    rules = CSS.partition("/* ---- elements")[2]
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?!-)", re.sub(r"#[a-z]+-[a-z-]+", "", rules)) == []
