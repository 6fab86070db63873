"""A terminal of a given size in which the installed ``rollwave`` runs, and what it shows at the end."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby

import pyte

from tests.support import environment, program


def shown(
    *arguments: str, env: Mapping[str, str], columns: int, lines: int = 40, utf8: bool = True
) -> tuple[int, pyte.Screen]:
    """Run a command on a terminal. Returns its exit code and the screen."""
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    if not utf8:
        stream.select_other_charset("@")
    keyboard, terminal = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
    encoding = {"PYTHONIOENCODING": "utf-8" if utf8 else "ascii"}
    with os.fdopen(keyboard, "rb", buffering=0) as output:
        running = subprocess.Popen(
            [program(), *arguments],
            env=environment(**env) | size | encoding,
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        with suppress(OSError):  # The terminal raises this when the other end is closed.
            while part := output.read(4096):
                stream.feed(part)
    return running.wait(30), screen


def text_of(screen: pyte.Screen) -> str:
    """The lines of the screen, without blanks at their ends."""
    return "\n".join(line.rstrip() for line in screen.display).rstrip("\n") + "\n"


def colours_of(screen: pyte.Screen) -> Iterator[str]:
    """The coloured parts of the screen, one a line: line number, colour, text."""
    for number in range(screen.lines):
        row = [screen.buffer[number][column] for column in range(screen.columns)]
        for colour, cells in groupby(row, key=lambda cell: cell.fg):
            text = "".join(cell.data for cell in cells).strip()
            if colour != "default" and text:
                yield f"{number + 1}: {colour} {text}"
