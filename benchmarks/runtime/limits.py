"""ONNX Runtime alone, without any server: the limit that a server can come near. Runs in the tools' environment.

`python -m benchmarks.runtime.limits MODEL SECONDS PROCESSES...` prints a line of JSON for each number of processes.
Each process has a session of its own with one thread that does not spin, and a core of its own: what one process for
each core can do at best.
"""

import json
import os
import sys
import time
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import numpy as np
import onnxruntime

BATCHES = (1, 8, 16, 32)
CORES = sorted(os.sched_getaffinity(0))
"""The cores that this process may use, as it began."""
Measured = dict[int, tuple[float, float]]
"""By batch: CPU seconds and wall-clock seconds for one sample."""


def run(path: str, seconds: float, core: int, barrier: Barrier) -> Measured:
    """Run batches of each size for that long on one core, with the others."""
    os.sched_setaffinity(0, {core})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    columns = session.get_inputs()[0].shape[1]
    measured = {}
    for batch in BATCHES:
        rows = np.random.default_rng(1).standard_normal((batch, columns)).astype(np.float32)
        session.run(["y"], {"x": rows})
        barrier.wait(60)
        count = 0
        began, cpu = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) - began < seconds:
            session.run(["y"], {"x": rows})
            count += batch
        measured[batch] = ((time.process_time() - cpu) / count, (now - began) / count)
    return measured


def together(path: str, seconds: float, processes: int) -> dict[str, dict[str, float]]:
    """Run that many processes at once, one on each core; figures by batch."""
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        barrier = manager.Barrier(processes)
        jobs = [(path, seconds, core, barrier) for core in CORES[:processes]]
        runs = pool.starmap(run, jobs, chunksize=1)
    return {
        str(batch): {
            "cpu_us": 1e6 * sum(r[batch][0] for r in runs) / processes,
            "samples_per_second": sum(1 / r[batch][1] for r in runs),
        }
        for batch in BATCHES
    }


def main() -> None:
    """Measure and print."""
    path, seconds, *numbers = sys.argv[1:]
    for number in map(int, numbers):
        if number <= len(CORES):
            print(json.dumps({"processes": number, **together(path, float(seconds), number)}))


if __name__ == "__main__":
    main()
