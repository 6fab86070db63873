"""Contexts: the installations that an operator works with, each a URL and a key under a name, in one file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rollwave.errors import ConfigurationError, Conflict, NotFound

FILE = "contexts.json"

_PARTS = 3


@dataclass(frozen=True, slots=True)
class Context:
    """One installation. ``key`` is a secret: print ``tenant`` and ``key_id`` instead."""

    name: str
    url: str
    key: str = field(repr=False)

    @property
    def tenant(self) -> str:
        """The tenant that the key belongs to. Empty: it is not a key of Rollwave."""
        return unquote(self._parts[0])

    @property
    def key_id(self) -> str:
        """The key's id, as `rollwave apikey list` shows it. Empty: it is not a key of Rollwave."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        brand, _, rest = self.key.partition(".")
        parts = rest.rsplit(".", 2)  # the tenant may have dots
        return (parts[0], parts[1]) if brand == "rollwave" and len(parts) == _PARTS else ("", "")


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts, in the order in which they were added. ``current``: the name of the one that commands use."""

    path: Path
    current: str | None = None
    by_name: Mapping[str, Context] = field(default_factory=dict)
    readable_by_others: bool = False

    @classmethod
    def read(cls, folder: Path) -> Contexts:
        """The contexts in ``folder``; none, if there is no file.

        Raises:
            ConfigurationError: the file cannot be read. The message does not quote it: it holds keys.
        """
        path = folder / FILE
        try:
            mode, text = path.stat().st_mode, path.read_text("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return cls(path)
        except (OSError, UnicodeError) as error:
            raise _unreadable(path, getattr(error, "strerror", None) or "it is not UTF-8") from error
        try:
            document: dict[str, Any] = json.loads(text)
            found = {
                name: Context(name, str(each["url"]), str(each["key"])) for name, each in document["contexts"].items()
            }
            current = document.get("current")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _unreadable(path, "it is not what `rollwave context add` writes") from None
        return cls(path, current if current in found else None, found, readable_by_others=bool(mode & 0o077))

    def get(self, name: str) -> Context:
        """The context of this name.

        Raises:
            NotFound: there is none.
        """
        try:
            return self.by_name[name]
        except KeyError:
            known = ", ".join(self.by_name) or "none"
            raise NotFound(f"there is no context {name}", hint=f"Known contexts: {known}.") from None

    def present(self) -> Context | None:
        """The current context. None: no context was chosen."""
        return None if self.current is None else self.by_name[self.current]

    def add(self, context: Context, *, use: bool, replace: bool) -> Contexts:
        """These contexts with one more. The first one becomes the current one.

        Raises:
            Conflict: the name is taken, and ``replace`` is false.
        """
        if context.name in self.by_name and not replace:
            raise Conflict(f"there is a context {context.name} already", hint="Add --force to replace it.")
        current = context.name if use or not self.by_name else self.current
        return Contexts(self.path, current, {**self.by_name, context.name: context})

    def use(self, name: str) -> Contexts:
        """These contexts with another current one.

        Raises:
            NotFound: there is no such context.
        """
        return Contexts(self.path, self.get(name).name, self.by_name)

    def remove(self, name: str) -> Contexts:
        """These contexts without one. If it was the current one, there is none then.

        Raises:
            NotFound: there is no such context.
        """
        self.get(name)
        rest = {each: context for each, context in self.by_name.items() if each != name}
        return Contexts(self.path, None if self.current == name else self.current, rest)

    def write(self) -> None:
        """Replace the file. Only its owner can read it.

        Raises:
            ConfigurationError: it cannot be written.
        """
        entries = {name: {"url": each.url, "key": each.key} for name, each in self.by_name.items()}
        text = json.dumps({"current": self.current, "contexts": entries}, indent=2) + "\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self.path, text)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} cannot be written: {error.strerror}", hint="Check the rights of its folder."
            ) from error


def _replace(path: Path, text: str) -> None:
    """Replace the file at once, so that a command that reads it meanwhile sees the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _unreadable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be read: {why}", hint="Correct it, or delete it and add the contexts again."
    )
