"""Settings that travel by environment variables: the operator renders them, a program in a pod reads them.

One type serves both sides: `to_env` and `from_env` are inverse, so a field cannot be spelt in two ways. Each field is
the type's prefix and its name in capitals.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        msg = f"is not JSON: {error}"
        raise ValueError(msg) from error


AS_JSON: Final = BeforeValidator(_from_json)
"""Annotation of a field that travels as JSON: a list or an object."""


class EnvironmentModel(BaseModel):
    """Base of such settings."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    env_prefix: ClassVar[str]
    """What the name of each variable begins with."""

    def to_env(self) -> dict[str, str]:
        """Render as environment variables; fields at None and empty lists are left out."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {
            self.env_prefix + name.upper(): _text(value)
            for name, value in values.items()
            if value != []
        }

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read from environment variables.

        Raises:
            pydantic.ValidationError: a value is missing or malformed; its location is the field's name.
        """
        fields = {
            name: environ[cls.env_prefix + name.upper()]
            for name in cls.model_fields
            if cls.env_prefix + name.upper() in environ
        }
        return cls.model_validate(fields)

    @classmethod
    def describe(cls, error: ValidationError) -> str:
        """Say which variables are wrong and how, without their values."""
        return "; ".join(
            f"{cls.env_prefix}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            if e["loc"]
            else e["msg"]
            for e in error.errors(include_input=False)
        )


def _text(value: Any) -> str:
    return (
        json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else str(value)
    )
