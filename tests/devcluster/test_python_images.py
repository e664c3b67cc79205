"""Requirements of images come from the distribution's own extras."""

import pytest

from canarium_devcluster import python_image
from canarium_devcluster.errors import DevclusterError

OPTIONAL = {
    "operator": ["kopf>=1"],
    "runtime": ["fastapi>=0.115"],
    "onnx": ["onnxruntime>=1"],
    "all": ["canarium[operator, runtime]", "canarium[onnx,all]", "httpx"],
}


def test_an_extra_brings_its_requirements_and_no_others() -> None:
    """The operator's image has no runtime in it."""
    assert python_image.expand(OPTIONAL, {"operator"}) == {"kopf>=1"}


def test_extras_may_name_extras() -> None:
    """Even in a circle."""
    expected = {"kopf>=1", "fastapi>=0.115", "onnxruntime>=1", "httpx"}
    assert python_image.expand(OPTIONAL, {"all"}) == expected


def test_an_unknown_extra_is_named() -> None:
    """A typing error does not make an image without dependencies."""
    with pytest.raises(DevclusterError, match="no extra 'oonx'"):
        python_image.expand(OPTIONAL, {"oonx"})
