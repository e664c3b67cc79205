"""A model that is a Python class: it finds out how long a text takes to read, and refuses texts without words."""

import re

import numpy as np

from canarium_runtime.model import InvalidInput, Tensor

WORD = re.compile(r"\w+")
WORDS_A_MINUTE = 240


class Model:
    """Gives minutes for each text of a batch."""

    inputs = [Tensor("text", "BYTES", [-1])]
    outputs = [Tensor("minutes", "FP32", [-1]), Tensor("level", "BYTES", [-1])]

    def preprocess(self, inputs):
        """From texts to numbers of words; runs once for the whole batch."""
        counts = [len(WORD.findall(text)) for text in inputs["text"]]
        if 0 in counts:
            raise InvalidInput(f"text {counts.index(0)} has no words", input="text")
        return {"words": np.array(counts, np.float32)}

    def predict(self, inputs):
        """The model itself."""
        return {"minutes": inputs["words"] / WORDS_A_MINUTE}

    def postprocess(self, outputs):
        """Say it in words, too."""
        return {**outputs, "level": ["short" if m < 1 else "long" for m in outputs["minutes"]]}
