"""What all API types share: camelCase on the wire, immutable in memory, unknown fields ignored.

Unknown fields are dropped rather than refused, because during an upgrade an older operator must read objects
that a newer schema admitted. The API server's own schema refuses typing errors (with `kubectl
--validate=strict`, the default).
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of all types that appear in a manifest or a status."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def to_manifest(self) -> dict[str, Any]:
        """Render as the API server wants it: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_manifest(cls, value: Any) -> Self:
        """Read from a manifest's part; raises pydantic's ValidationError."""
        return cls.model_validate(value)


def rules(*conditions: tuple[str, str] | tuple[str, str, str]) -> ConfigDict:
    """CEL rules, as (expression that must hold, message with the remedy), and where the message needs values, a third:
    the expression that gives it. The second then stands for it where that cannot be evaluated.
    """
    fields = ("rule", "message", "messageExpression")
    return ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                dict(zip(fields, condition, strict=False)) for condition in conditions
            ]
        }
    )
