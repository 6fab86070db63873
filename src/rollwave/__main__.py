"""The program, as `rollwave` and as `python -m rollwave`."""

from __future__ import annotations

import sys
from typing import NoReturn

from rollwave.errors import MissingExtra
from rollwave.extras import require


def run() -> NoReturn:
    """Run the command line, or say what to install for it. A host installs Rollwave without a command line."""
    try:
        require("cli", "the program `rollwave`")
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    from rollwave.cli.main import run as command_line  # noqa: PLC0415  it needs the extra

    command_line()


if __name__ == "__main__":
    run()
