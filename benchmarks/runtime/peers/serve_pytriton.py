"""PyTriton: NVIDIA's Triton with its Python backend, on the CPU."""

import os
import socket
import sysconfig

import numpy as np
from common import BATCH_MS, FOLDER, HOST, MAX_BATCH, PORT, PROCESSES, open_session
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def make_function():
    """Open a session of its own for one process; its function."""
    session = None

    def infer(x):
        nonlocal session
        if session is None:  # in the process that runs it
            session = open_session()
        return [session.run(["y"], {"x": x})[0]]

    def infer_one(requests):
        return [{"y": infer(r["x"])[0]} for r in requests]

    return batch(infer) if BATCH_MS else infer_one


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


def shape(values) -> tuple[int, ...]:
    """A tensor's shape: without batching the first axis belongs to it."""
    return (values.shape[1],) if BATCH_MS else (1, values.shape[1])


if __name__ == "__main__":
    os.environ["PYTRITON_HOME"] = FOLDER
    # Triton's Python stub must load the library of this interpreter, not one of the system's.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    session = open_session()
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    if BATCH_MS:
        batcher = DynamicBatcher(max_queue_delay_microseconds=round(BATCH_MS * 1000))
        config = ModelConfig(max_batch_size=MAX_BATCH, batcher=batcher)
    else:
        config = ModelConfig(batching=False)
    ports = TritonConfig(
        http_address=HOST,
        http_port=PORT,
        grpc_address=HOST,
        grpc_port=free_port(),
        metrics_address=HOST,
        metrics_port=free_port(),
        log_verbose=0,
    )
    with Triton(config=ports, workspace=FOLDER + "/triton") as triton:
        triton.bind(
            model_name="m",
            infer_func=[make_function() for _ in range(PROCESSES)],
            inputs=[Tensor(name="x", dtype=np.float32, shape=shape(x))],
            outputs=[Tensor(name="y", dtype=np.float32, shape=shape(y))],
            config=config,
        )
        triton.serve()
