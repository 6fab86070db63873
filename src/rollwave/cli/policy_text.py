"""Policy documents in files, and what is wrong with them, shown with the line and a caret."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rollwave.cli.output import complain
from rollwave.domain.policy.document.model import PolicyDocument
from rollwave.domain.policy.document.problems import InvalidPolicy, Problem, parse
from rollwave.domain.policy.document.text import Format
from rollwave.errors import InvalidInput

MAX_SHOWN = 100
"""Characters of a line that are shown before the one that is wrong, and after it."""


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a document and where it is from."""

    name: str
    text: bytes
    form: Format

    def parse(self) -> PolicyDocument:
        """Read the document. What is wrong is printed on standard error, each problem with its line.

        Raises:
            InvalidInput: it breaks a rule. The message says how many problems there are.
        """
        try:
            return parse(self.text, self.form)
        except InvalidPolicy as error:
            lines = self.text.decode("utf-8-sig", "replace").splitlines()
            for problem in error.problems:
                for line in _in_its_line(self.name, problem, lines):
                    complain(line)
            number = len(error.problems)
            message = f"{self.name} has {number} {'problem' if number == 1 else 'problems'}"
            raise InvalidInput(message, hint="`rollwave policy schema` describes each key.") from error


def _in_its_line(name: str, problem: Problem, lines: list[str]) -> Iterator[str]:
    named = f"{problem.where}: " if problem.path else ""
    if problem.position is None:
        yield f"{name}: {named}{problem.message}"
    else:
        line, column = problem.position.line, problem.position.column
        yield f"{name}:{line}:{column}: {named}{problem.message}"
        if line <= len(lines):
            begin = max(0, column - 1 - MAX_SHOWN)
            margin = " " * len(str(line))
            yield f"  {line} | {lines[line - 1][begin : column - 1 + MAX_SHOWN]}".replace("\t", " ")
            yield f"  {margin} | {' ' * (column - 1 - begin)}^"
    if problem.hint:
        yield f"    {problem.hint}"


def read_source(name: str) -> Source:
    """Read a file; ``-``: standard input. A name that ends with ``.json`` is JSON, any other YAML.

    Raises:
        InvalidInput: the file cannot be read.
    """
    if name == "-":
        return Source("standard input", sys.stdin.buffer.read(), Format.YAML)
    try:
        text = Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}") from error
    return Source(name, text, Format.JSON if name.lower().endswith(".json") else Format.YAML)


def is_file(given: str) -> bool:
    """Whether ``--policy`` names a file, and not a preset or a stored policy."""
    return given == "-" or "/" in given or given.lower().endswith((".yaml", ".yml", ".json")) or Path(given).is_file()
