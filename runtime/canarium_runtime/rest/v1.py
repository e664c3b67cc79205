"""Bodies of KServe's protocol V1: `instances` in, `predictions` out, one for each row."""

from typing import Any

import orjson

from canarium_runtime.batching.merge import Outputs
from canarium_runtime.rest.codec import WRITE_ARRAYS, Call
from canarium_runtime.rest.plain import PredictCodec, writable
from canarium_runtime.service import Marks


class V1Codec(PredictCodec):
    """`{"instances": [row, ...]}`, and by columns as `{"inputs": ...}`, read as `/predict` reads them."""

    def encode(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> tuple[bytes, int | None]:
        """Write `{"predictions": [...]}`: a row's value for a model with one output, else an object by name of output.
        Several outputs of a model without rows are given by name.
        """
        columns: dict[str, Any] = {
            name: writable(self.datatypes[name], array)
            for name, array in zip(call.inputs.outputs, outputs.arrays, strict=True)
        }
        predictions: Any
        if len(columns) == 1:
            (predictions,) = columns.values()
        elif self.spec.batchable:
            # As lists, by the writer of the arrays, so that NaN becomes null in all of them.
            lists = orjson.loads(orjson.dumps(columns, option=WRITE_ARRAYS))
            predictions = [
                dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)
            ]
        else:
            predictions = columns
        document = {"predictions": predictions, **(marks or {})}
        return orjson.dumps(document, option=WRITE_ARRAYS), None
