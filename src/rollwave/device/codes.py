"""The codes of failures that the reference device reports, for guardrails and retries."""

from __future__ import annotations

DOWNLOAD = "E_DOWNLOAD"
"""The artifact cannot be downloaded."""
CONTENT = "E_CONTENT"
"""The download is not the expected one: it is empty, has another size, or is a web page."""
CHECKSUM = "E_CHECKSUM"
"""The download has another SHA-256."""
DISK = "E_DISK"
"""A file cannot be written."""
INSTALL = "E_INSTALL"
"""The install command failed, or did not end in time."""
CANCELLED = "CANCELLED"
"""A cancel command stopped the update."""
AGENT = "E_AGENT"
"""Any other error."""


def code_of(failure: Exception) -> str:
    """The code of a failure: the one that its class has, or else by its kind."""
    code = getattr(failure, "code", None)
    if isinstance(code, str):
        return code
    return DISK if isinstance(failure, OSError) else AGENT
