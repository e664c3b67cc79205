"""BentoML: one service; with batching on, its adaptive batcher."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
from common import BATCH_MS, FOLDER, HOST, MAX_BATCH, PORT, PROCESSES, open_model

_BATCHING = {"batchable": True, "max_batch_size": MAX_BATCH} if BATCH_MS else {}


@bentoml.service(name="bench", workers=PROCESSES, logging={"access": {"enabled": False}})
class Bench:
    """Rows in, answers out."""

    def __init__(self) -> None:
        self.run = open_model()

    @bentoml.api(route="/predict", **_BATCHING)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Run the rows of one request, or of a batch."""
        return self.run(rows)


if __name__ == "__main__":
    os.environ |= {"BENTOML_HOME": FOLDER, "BENTOML_DO_NOT_TRACK": "True"}
    folder = str(Path(__file__).parent)
    command = ["-m", "bentoml", "serve", "serve_bentoml:Bench", "--working-dir", folder]
    place = ["--host", HOST, "--port", str(PORT)]
    os.execv(sys.executable, [sys.executable, *command, *place])  # noqa: S606
