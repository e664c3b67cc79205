"""What each backend takes more than its library alone, for a tiny model: `python -m benchmarks.runtime.backends`.

CPU time of a call, rounds interleaved, medians. The model gives y = x . [1, 10] and z = 2x for rows of two floats, in
every format, as the tests of the backends have it.
"""

import statistics
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.unit.runtime.backends import worlds

from canarium_runtime.backends.base import Backend
from canarium_runtime.backends.onnx import BoundOnnxBackend, OnnxBackend

ROUNDS = 15
CALLS = 400
NAMES = ["y", "z"]


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        opened = {name: _open(name, Path(folder)) for name in worlds.WORLDS}
        torch.set_num_threads(1)
        for rows in (1, 32):
            x = np.tile(np.array([[3, 4]], np.float32), (rows, 1))
            print(f"{rows} rows, microseconds of CPU a call")
            for name, found in _measure(_cases(opened, Path(folder), x)).items():
                print(f"  {name:28}{found:8.1f}")


def _open(name: str, folder: Path) -> Backend:
    own = folder / name.replace(" ", "-")
    own.mkdir()
    return worlds.WORLDS[name].open(own)


def _cases(opened: dict[str, Backend], folder: Path, x: Any) -> dict[str, Callable[[], object]]:
    module = types.ModuleType("model")
    exec(worlds.CODE, module.__dict__)  # noqa: S102 - the tests' own
    plain = module.Model()
    program = torch.export.load(worlds.write_export(folder / "alone.pt2")).module()
    script = torch.jit.load(str(worlds.write_script(folder / "alone.ts")))
    onnx = opened["onnx"]
    assert isinstance(onnx, OnnxBackend)
    bound = BoundOnnxBackend(onnx._session, onnx.spec)
    cases: dict[str, Callable[[], object]] = {
        "onnx: session.run": lambda: onnx._session.run(NAMES, {"x": x}),
        "onnx": lambda: onnx.infer({"x": x}, NAMES),
        "onnx, bound": lambda: bound.infer({"x": x}, NAMES),
        "torch: module, eager": _in_torch(worlds.Linear().eval(), x),
        "torch: program.module()": _in_torch(lambda tensor: program(x=tensor), x),
        "torch.export": lambda: opened["torch.export"].infer({"x": x}, NAMES),
        "torch: script": _in_torch(script, x),
        "TorchScript": lambda: opened["TorchScript"].infer({"x": x}, NAMES),
        "python: predict": lambda: plain.predict({"x": x}),
        "python": lambda: opened["python file"].infer({"x": x}, NAMES),
        "chain of four": lambda: opened["chain"].infer({"x": x}, NAMES),
    }
    return cases


def _in_torch(call: Callable[[Any], Any], x: Any) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            answer = call(torch.from_numpy(x))
            return [answer[name].numpy() for name in NAMES]

    return run


def _measure(cases: dict[str, Callable[[], object]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for call in cases.values():
        for _ in range(CALLS):
            call()
    for _ in range(ROUNDS):
        for name, call in cases.items():
            started = time.process_time()
            for _ in range(CALLS):
                call()
            times[name].append((time.process_time() - started) / CALLS * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


if __name__ == "__main__":
    main()
