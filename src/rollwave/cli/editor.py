"""Lets a person change a text in the editor of their choice."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from rollwave.errors import RollwaveError
from rollwave.settings import editor_command


def edited(text: bytes, *, suffix: str) -> bytes:
    """Open an editor on ``text``, wait until it is closed, and return the text that was saved.

    Raises:
        RollwaveError: the editor cannot be started, or fails.
    """
    command = editor_command()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"rollwave{suffix}"
        file.write_bytes(text)
        try:
            ended = subprocess.run([*shlex.split(command), str(file)], check=False)
        except (OSError, ValueError) as error:
            raise RollwaveError(f"the editor {command} cannot be started", hint="Set VISUAL or EDITOR.") from error
        if ended.returncode != 0:
            raise RollwaveError(f"the editor {command} ended with {ended.returncode}: nothing was changed")
        return file.read_bytes()
