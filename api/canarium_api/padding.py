"""`spec.model.padding`: which inputs may differ in length within one run of the model."""

from typing import Annotated

from pydantic import Field

from canarium_api.base import ApiModel


class PaddingSpec(ApiModel):
    """An axis of an input along which requests may differ and share a run all the same: shorter ones are padded to the
    longest. Only for a model that gives a padded row the same answer.
    """

    input: str = Field(min_length=1, max_length=256)
    """Name of the input."""
    axis: int = Field(default=1, ge=1, le=31)
    """Axis, counted from 0; the first is the rows'."""
    value: float = 0.0
    """What is put behind the shorter ones."""
    multiple: int = Field(default=1, ge=1, le=4096)
    """Lengths are rounded up to a multiple of this, so that the model sees fewer of them."""
    outputs: dict[str, Annotated[int, Field(ge=1, le=31)]] | None = Field(
        default=None, max_length=64
    )
    """Axis by name of output that is cut back to each request's own length. Default: the axes whose dimension has the
    same name in the model; needed where dimensions have no names."""
