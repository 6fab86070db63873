"""HTML and SVG as trees of elements. Every text is escaped."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

Content: TypeAlias = "str | Element"

_EMPTY = frozenset({"meta", "rect", "path", "line", "polyline", "use", "circle"})
"""Elements without content, which close themselves."""


class Element:
    """An element with attributes and content. An attribute of None is left out; ``_`` in its name stands for ``-``.

    ``raw``: text of our own at its end that is not escaped, such as a stylesheet.
    """

    def __init__(self, name: str, /, *content: Content | None, **attributes: str | float | None) -> None:
        self.raw = ""
        self._name = name
        self._content = [each for each in content if each is not None]
        self._attributes = {
            key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None
        }

    def __str__(self) -> str:
        attributes = "".join(f' {key}="{escape(_text(value))}"' for key, value in self._attributes.items())
        if self._name in _EMPTY and not self._content:
            return f"<{self._name}{attributes}/>"
        inner = "".join(str(each) if isinstance(each, Element) else escape(each) for each in self._content)
        return f"<{self._name}{attributes}>{inner}{self.raw}</{self._name}>"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
