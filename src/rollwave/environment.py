"""How settings are read: empty is unset, and a value that cannot be read stops only what needs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler  # pydantic 2.8 has it nowhere else

from rollwave.errors import ConfigurationError


class Environment(BaseModel):
    """Settings of which each has a default and an alias, the name of its variable.

    Made in a program, a setting is given by the name of its field or of its variable, and the environment is not read.

    Reading a setting whose value cannot be read raises ``ConfigurationError``, which names the variable and never its
    value. A part that must not start without its settings asks for them first: :meth:`require`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerated_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that have their default where they cannot be read."""

    kept_blanks: ClassVar[frozenset[str]] = frozenset()
    """Variables whose value may begin or end with a blank."""

    _faults: dict[str, str] = PrivateAttr(default_factory=dict)
    """What is wrong with the settings that cannot be read, by the names of their fields."""

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Self:
        """Read ``variables``, of which the names of settings, in any letter case, and no others mean something."""
        # Names of fields are not names of variables: API_KEY or LEASE in the environment are somebody else's.
        aliases = {field.alias for field in cls.model_fields.values()}
        by_name = {name.upper(): value for name, value in variables.items() if name.upper() in aliases}
        return cls(**by_name | {name: value for name, value in variables.items() if name in aliases})

    def require(self, needed: Iterable[str]) -> None:
        """Fail now rather than when one of ``needed`` is read.

        Raises:
            ConfigurationError: one of them cannot be read.
        """
        for name in needed:
            getattr(self, name)

    def faults(self) -> list[ConfigurationError]:
        """What is wrong with each setting that cannot be read, but for the tolerated ones."""
        return [self._fault(name) for name in self._faults if name not in self.tolerated_fields]

    def tolerated(self) -> list[ConfigurationError]:
        """What is wrong with each setting that has its default instead."""
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

    if not TYPE_CHECKING:  # else every name would be taken for a setting

        def __getattr__(self, name: str) -> Any:
            # Python comes here for what is not there.
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
    """The message of pydantic, to go after the variable's name: "should be a valid number"."""
    words = message.partition(", unable")[0].partition(" ")[2]
    return words if words.startswith("should") else f"cannot be read: {message}"
