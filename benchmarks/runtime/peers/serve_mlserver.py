"""MLServer with the shortest custom model; in one process it is quickest without parallel workers."""

import json
import os
import socket
import sys
from pathlib import Path

from common import BATCH_MS, FOLDER, HOST, MAX_BATCH, PORT, PROCESSES, open_session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    """Decodes the input, runs the session and encodes the output."""

    async def load(self) -> bool:
        """Open the model."""
        self.session = open_session()
        return True

    async def predict(self, payload):
        """Answer one request, or one batch of them."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        (y,) = self.session.run(["y"], {"x": rows})
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("y", y)],
        )


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    settings = {
        "debug": False,
        "host": HOST,
        "http_port": PORT,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": PROCESSES if PROCESSES > 1 else 0,
    }
    batching = {"max_batch_size": MAX_BATCH, "max_batch_time": BATCH_MS / 1000} if BATCH_MS else {}
    model = {
        "name": "m",
        "implementation": "serve_mlserver.Model",
        "parameters": {"version": "1"},
        **batching,
    }
    folder = Path(FOLDER)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    program = Path(sys.executable).parent / "mlserver"
    os.execv(program, [str(program), "start", FOLDER])  # noqa: S606
