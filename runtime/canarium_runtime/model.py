"""What the code of a Python model imports from this server: `from canarium_runtime.model import InvalidInput, Tensor`.

    class Model:
        inputs = [Tensor("text", "BYTES", [-1])]
        outputs = [Tensor("score", "FP32", [-1])]

        def load(self, directory): ...                       once, before ready
        def preprocess(self, inputs): return inputs          optional
        def predict(self, inputs): return {"score": ...}     over a batch: arrays by name; may `yield` pieces
        def postprocess(self, outputs): return outputs       optional
        def warm_up(self): ...                               optional
        def close(self): ...                                 optional

Nothing but these two names is needed, so such a class can be tested without the server.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class InvalidInput(ValueError):  # noqa: N818 - reads as what it says where it is raised
    """Raise it from a model to refuse a request: the client gets 422 and the message.

    Args:
        message: one sentence for the client.
        input: name of the input that is wrong, when it is one.
    """

    def __init__(self, message: str, *, input: str | None = None) -> None:  # noqa: A002 - the word for it
        super().__init__(message)
        self.message = message
        self.input = input


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: name, datatype of the Open Inference Protocol, and shape with -1 for any size."""

    name: str
    datatype: str
    shape: Sequence[int]
