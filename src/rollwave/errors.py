"""The errors that Rollwave raises.

    RollwaveError
    ├── ConfigurationError    a setting is missing or cannot be read
    ├── MissingExtra          a package is not installed that a command needs
    ├── DatabaseUnavailable   PostgreSQL cannot be reached
    ├── SchemaMismatch        the database's schema, roles or grants are not what this program needs
    ├── IdentityUndecided     the database was copied or moved, and the operator must say which
    ├── BrokerUnavailable     the MQTT broker cannot be reached, or refused
    │   └── MessageTooLarge   it takes no message of this size
    ├── ApiUnavailable        the HTTP API cannot be reached, or answers with a server error
    ├── InvalidInput          a value that the caller gave breaks a rule of the contract
    ├── UnreadableRow         a value that a stored row holds breaks a rule of the contract
    ├── NotFound              no such row for this tenant
    ├── Forbidden             the caller's role does not allow this
    └── Conflict              the row exists, but is not in a state that allows this
        └── Outdated          the caller has seen an older version of it than the present one

The message says what is wrong. ``hint`` says what to do next.
"""

from __future__ import annotations


class RollwaveError(Exception):
    """Base of all errors of Rollwave. ``hint`` is one sentence that says what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback shows it too


class ConfigurationError(RollwaveError):
    """A setting is missing or cannot be read."""


class MissingExtra(RollwaveError):
    """A command needs a package that is not installed. The message names the extra that contains it."""


class DatabaseUnavailable(RollwaveError):
    """PostgreSQL cannot be reached."""


class SchemaMismatch(RollwaveError):
    """The schema is older or newer than this version needs, or a role or a grant is missing."""


class IdentityUndecided(RollwaveError):
    """The installation belongs to another database. This one is a copy, or was moved: the operator must say which."""


class BrokerUnavailable(RollwaveError):
    """The MQTT broker cannot be reached, closed the session, or refused a request."""


class MessageTooLarge(BrokerUnavailable):
    """The broker does not accept a message of this size."""


class ApiUnavailable(RollwaveError):
    """The HTTP API cannot be reached, or answers with a server error."""


class InvalidInput(RollwaveError):
    """A value that the caller gave breaks a rule of the contract, or of the host's own table. The API answers 422.

    ``field`` is the value's name in the API, with which the message begins; empty: the message says which value it is.
    ``fault`` is the message without it.
    """

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field
        self.fault = message


class UnreadableRow(RollwaveError):
    """A value that a stored row holds breaks a rule of the contract: a host's SQL wrote it, and no caller gave it.

    The engine pauses a campaign whose policy or firmware cannot be read. The message names the column.
    """


class NotFound(RollwaveError):
    """The tenant has no such row. A row of another tenant gives the same error."""


class Conflict(RollwaveError):
    """The row exists, but its state does not allow the request."""


class Outdated(Conflict):
    """The caller changes a version that is not the present one. The API answers 412."""


class Forbidden(RollwaveError):
    """The caller is known, and may not do this. The API answers 403."""
