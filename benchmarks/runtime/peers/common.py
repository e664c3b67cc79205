"""What all peers' servers share: their settings, and the model.

These files run in the peers' own environments, so they import nothing of this repository. Settings come by environment
variables, since some servers start processes that no argument reaches.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

MODEL = os.environ["BENCH_MODEL"]
HOST = "127.0.0.1"
PORT = int(os.environ["BENCH_PORT"])
PROCESSES = int(os.environ.get("BENCH_PROCESSES", "1"))
BATCH_MS = float(os.environ.get("BENCH_BATCH_MS", "0"))
"""Longest wait for a fuller batch; 0: no batching."""
MAX_BATCH = 32
FOLDER = os.environ["BENCH_FOLDER"]
"""A folder of this server alone."""


def open_session() -> onnxruntime.InferenceSession:
    """Open the model with the same options as Canarium: one thread that does not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


def open_model() -> Callable[[Any], Any]:
    """Open the model; a function from rows [N, columns] to answers [N, classes], both float32."""
    session = open_session()

    def run(rows: Any) -> Any:
        return session.run(["y"], {"x": np.ascontiguousarray(rows, np.float32)})[0]

    return run
