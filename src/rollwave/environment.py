"""Reads settings from variables. An empty value counts as unset. An invalid value raises only when it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler  # pydantic 2.8 has it nowhere else

from rollwave.errors import ConfigurationError


class Environment(BaseModel):
    """Base of settings classes. Each field has a default, and an alias: the name of its environment variable.

    The constructor accepts both names, and does not read the environment.

    Access to a setting with an invalid value raises ``ConfigurationError``. The message names the variable, and does
    not contain the value. :meth:`require` checks settings in advance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerated_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that have their default if their value is invalid."""

    kept_blanks: ClassVar[frozenset[str]] = frozenset()
    """Variables whose values keep blanks at their ends."""

    _faults: dict[str, str] = PrivateAttr(default_factory=dict)
    """The error messages of invalid settings, by field name."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Self:
        """Read the settings from ``variables``. Names may be in any letter case; unknown names are ignored."""
        # Field names are not accepted here: a variable API_KEY or LEASE belongs to another program.
        aliases = {field.alias for field in cls.model_fields.values()}
        by_name = {name.upper(): value for name, value in variables.items() if name.upper() in aliases}
        return cls(**by_name | {name: value for name, value in variables.items() if name in aliases})

    def require(self, needed: Iterable[str]) -> None:
        """Check the settings ``needed``, by field name, before they are used.

        Raises:
            ConfigurationError: one of them is invalid.
        """
        for name in needed:
            getattr(self, name)

    def faults(self) -> list[ConfigurationError]:
        """One error for each invalid setting, except the tolerated ones."""
        return [self._fault(name) for name in self._faults if name not in self.tolerated_fields]

    def tolerated(self) -> list[ConfigurationError]:
        """One error for each invalid setting whose default is used instead."""
        return [self._fault(name) for name in self._faults if name in self.tolerated_fields]

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, given: dict[str, Any], handler: ModelWrapValidatorHandler[Self]) -> Self:
        aliases = {name: field.alias or name for name, field in cls.model_fields.items()}
        by_alias = {aliases.get(name, name): value for name, value in given.items()}
        values = {name: cls._trimmed(name, value) for name, value in by_alias.items()}
        values = {name: value for name, value in values.items() if value != ""}
        try:
            return handler(values)
        except ValidationError as error:
            names = {alias: name for name, alias in aliases.items()}
            wrong = {str(each["loc"][0]): each["msg"] for each in error.errors(include_input=False, include_url=False)}
            if not wrong.keys() <= names.keys():
                raise
            settings = handler({name: value for name, value in values.items() if name not in wrong})
            faults = {names[variable]: _in_words(message) for variable, message in wrong.items()}
            settings._set_aside(faults)  # noqa: SLF001  of this class
            return settings

    @classmethod
    def _trimmed(cls, name: str, value: Any) -> Any:
        if not isinstance(value, str) or (name in cls.kept_blanks and value.strip()):
            return value
        return value.strip()

    def _set_aside(self, faults: dict[str, str]) -> None:
        self._faults = faults
        for name in faults.keys() - self.tolerated_fields:
            del self.__dict__[name]

    if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute

        def __getattr__(self, name: str) -> Any:
            # Python calls this only for missing attributes.
            if name in type(self).model_fields:
                raise self._fault(name)
            return super().__getattr__(name)

    def _fault(self, name: str) -> ConfigurationError:
        field = type(self).model_fields[name]
        instead = f" {field.default} is used instead." if name in self.tolerated_fields else ""
        return ConfigurationError(
            f"{field.alias} {self._faults[name]}",
            hint=f"Correct {field.alias} (in Settings: {name}), or leave it out.{instead}",
        )


def _in_words(message: str) -> str:
    """The message of pydantic, to be appended to the variable's name: "should be a valid number"."""
    words = message.partition(", unable")[0].partition(" ")[2]
    return words if words.startswith("should") else f"cannot be read: {message}"
