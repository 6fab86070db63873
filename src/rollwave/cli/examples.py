"""Examples below the help text of a command."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """The text of an epilog: each of ``lines`` is one command that can be pasted."""
    return "\n".join(["[bold]Examples[/bold]", *(f"  {line}".replace("[", r"\[") for line in lines)])
