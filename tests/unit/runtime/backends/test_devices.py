"""What a model runs on: a table of what was asked for and what can be seen. No GPU takes part."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.unit.runtime.backends.worlds import write_onnx

from canarium_api.v1alpha1 import Accelerator, ExecutionProvider, Precision
from canarium_runtime.backends import devices
from canarium_runtime.backends.devices import Device, ProviderSettings, Visible, choose, look
from canarium_runtime.backends.onnx import BoundOnnxBackend, open_onnx
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError

CPU_LIBRARY = ["AzureExecutionProvider", "CPUExecutionProvider"]
GPU_LIBRARY = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
OPENVINO_LIBRARY = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
SETTINGS = ProviderSettings(threads=3, cache=Path("/cache"))
GPU = Device(kind="cuda", required=True)
MAYBE = Device(kind="cuda")


@pytest.mark.parametrize(
    ("accelerator", "visible", "expected"),
    [
        (Accelerator.NONE, Visible(driver=True), devices.CPU),
        (Accelerator.AUTO, Visible(driver=True), MAYBE),
        (Accelerator.GPU, Visible(driver=True, nvidia_devices="all"), GPU),
        (Accelerator.GPU, Visible(driver=True, cuda_devices="GPU-1234"), GPU),
        (Accelerator.AUTO, Visible(driver=False), devices.CPU),
        (Accelerator.AUTO, Visible(driver=True, nvidia_devices="void"), devices.CPU),
        (Accelerator.AUTO, Visible(driver=True, cuda_devices=""), devices.CPU),
        (Accelerator.GPU, Visible(driver=False), "no device file"),
        (Accelerator.GPU, Visible(driver=True, nvidia_devices="none"), "NVIDIA_VISIBLE_DEVICES is 'none'"),
        (Accelerator.GPU, Visible(driver=True, cuda_devices="-1"), "CUDA_VISIBLE_DEVICES is '-1'"),
    ],
)  # fmt: skip
def test_a_gpu_that_was_asked_for_is_had_or_nothing_is_served(
    accelerator: Accelerator, visible: Visible, expected: Device | str
) -> None:
    """World: what was asked for and what can be seen; world: the device, or why there is none."""
    if isinstance(expected, Device):
        assert choose(accelerator, visible) == expected
        return
    with pytest.raises(LoadError, match=expected) as caught:
        choose(accelerator, visible)
    failure = caught.value.failure
    assert (failure.reason, failure.permanent) == ("AcceleratorUnavailable", False)
    assert "serving.resources.limits" in failure.message


@pytest.mark.parametrize("file", [None, "nvidiactl", "nvidia0", "dxg"])
def test_the_drivers_files_are_looked_for(tmp_path: Path, file: str | None) -> None:
    """World: /dev; world: whether there is a driver."""
    if file:
        (tmp_path / file).touch()
    seen = look({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path)
    assert seen == Visible(driver=file is not None, cuda_devices="0")


@pytest.mark.parametrize(
    ("asked", "device", "library", "names", "runs_on"),
    [
        ("auto", devices.CPU, CPU_LIBRARY, ["CPU"], "cpu"),
        ("cpu", devices.CPU, GPU_LIBRARY, ["CPU"], "cpu"),
        ("auto", devices.CPU, OPENVINO_LIBRARY, ["CPU"], "cpu"),
        ("openvino", devices.CPU, OPENVINO_LIBRARY, ["OpenVINO", "CPU"], "cpu"),
        ("auto", MAYBE, CPU_LIBRARY, ["CPU"], "cpu"),
        ("auto", GPU, GPU_LIBRARY, ["CUDA", "CPU"], "cuda:0"),
        ("cuda", GPU, GPU_LIBRARY, ["CUDA", "CPU"], "cuda:0"),
        ("tensorrt", GPU, GPU_LIBRARY, ["Tensorrt", "CUDA", "CPU"], "cuda:0"),
    ],
)
def test_the_wanted_provider_is_first_and_the_cpu_takes_the_rest(
    asked: str, device: Device, library: list[str], names: list[str], runs_on: str
) -> None:
    """World: what was asked for, the device, and what the library has; world: providers in order."""
    found, chosen = devices.onnx_providers(ExecutionProvider(asked), device, library, SETTINGS)
    assert [name for name, _ in chosen] == [f"{name}ExecutionProvider" for name in names]
    assert str(found) == runs_on
    for _, options in chosen:
        assert {type(value) for value in options.values()} <= {str}


@pytest.mark.parametrize(
    ("asked", "device", "library", "reason", "why"),
    [
        ("auto", GPU, CPU_LIBRARY, "AcceleratorUnavailable", "built without CUDA"),
        ("cuda", GPU, CPU_LIBRARY, "AcceleratorUnavailable", "cuda is not in this ONNX Runtime"),
        ("tensorrt", GPU, CPU_LIBRARY, "AcceleratorUnavailable", "tensorrt is not in this"),
        ("openvino", devices.CPU, CPU_LIBRARY, "AcceleratorUnavailable", "openvino is not in"),
        (
            "cuda",
            devices.CPU,
            GPU_LIBRARY,
            "InvalidConfig",
            "runs on a GPU, and this server .* cpu",
        ),
        ("cpu", GPU, GPU_LIBRARY, "InvalidConfig", "runs on the CPU, and this server .* cuda:0"),
    ],
)
def test_a_provider_that_cannot_be_had_is_never_replaced(
    asked: str, device: Device, library: list[str], reason: str, why: str
) -> None:
    """World: the same; world: a failure with the remedy."""
    with pytest.raises(LoadError, match=why) as caught:
        devices.onnx_providers(ExecutionProvider(asked), device, library, SETTINGS)
    assert caught.value.failure.reason == reason
    assert "serving." in caught.value.failure.message


def test_settings_reach_the_providers_as_text() -> None:
    """Memory, precision, threads and the cache of engines."""
    settings = ProviderSettings(
        threads=3, precision=Precision.FP16, gpu_memory_bytes=1000, cache=Path("/cache")
    )
    _, chosen = devices.onnx_providers(ExecutionProvider.TENSORRT, GPU, GPU_LIBRARY, settings)
    (_, tensorrt), (_, cuda), _ = chosen
    assert tensorrt["trt_fp16_enable"] == "True"
    assert tensorrt["trt_engine_cache_path"] == "/cache"
    assert tensorrt["trt_max_workspace_size"] == "1000"
    assert cuda["gpu_mem_limit"] == "1000"
    _, chosen = devices.onnx_providers(
        ExecutionProvider.OPENVINO, devices.CPU, OPENVINO_LIBRARY, settings
    )
    assert chosen[0][1] == {"device_type": "CPU", "num_of_threads": "3", "cache_dir": "/cache"}


@pytest.mark.parametrize(
    ("provider", "device"),
    [(ExecutionProvider.AUTO, GPU), (ExecutionProvider.CUDA, GPU), (ExecutionProvider.CUDA, MAYBE)],
)
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_a_session_that_fell_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: ExecutionProvider, device: Device
) -> None:
    """ONNX Runtime leaves out a provider that it cannot start; the double claims to have CUDA, which it has not."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_LIBRARY)
    with pytest.raises(LoadError, match="could not start CUDAExecutionProvider") as caught:
        open_onnx(write_onnx(tmp_path / "m.onnx"), Options(device=device, provider=provider))
    failure = caught.value.failure
    assert (failure.reason, failure.permanent) == ("AcceleratorUnavailable", False)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
def test_where_the_cpu_will_do_it_takes_over_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU that was seen but not asked for, and a library that cannot use it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_LIBRARY)
    backend = open_onnx(write_onnx(tmp_path / "m.onnx"), Options(device=MAYBE))
    assert backend.device == "cpu"
    assert "the GPU is not used" in caplog.text
    (y,) = backend.infer({"x": np.array([[3, 4]], np.float32)}, ["y"])
    assert y.tolist() == [43]


def test_bound_values_are_the_same_as_plain_ones(tmp_path: Path) -> None:
    """The path of a GPU, run on the CPU's memory."""
    plain = open_onnx(write_onnx(tmp_path / "m.onnx"), Options())
    bound = BoundOnnxBackend(plain._session, plain.spec)
    rows = np.array([[3, 4], [1, 0]], np.float32)
    for array in (rows, rows[:, ::-1], rows[:1]):
        expected = plain.infer({"x": array}, ["z", "y"])
        answers = bound.infer({"x": array}, ["z", "y"])
        assert [a.tolist() for a in answers] == [e.tolist() for e in expected]


class FakeBinding:
    """A double of ONNX Runtime's binding."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def bind_cpu_input(self, name: str, array: Any) -> None:
        self.log.append(("in", name, "cpu"))

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.log.append(("in", name, value))

    def bind_output(self, name: str, device: str, index: int) -> None:
        self.log.append(("out", name, device, index))

    def get_outputs(self) -> list[Any]:
        return [self, self]

    def numpy(self) -> Any:
        return np.zeros(1)


class FakeSession:
    """A double of a session, which hands out one binding."""

    def __init__(self) -> None:
        self.binding = FakeBinding()
        self.io_binding = lambda: self.binding
        self.run_with_iobinding = lambda binding: binding.log.append("run")


def test_on_a_gpu_inputs_and_outputs_are_bound_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On doubles: arrays go to the device that was chosen, and outputs are made there."""
    asked: list[Any] = []

    def to_device(array: Any, device: str, index: int) -> str:
        asked.append((array.shape, device, index))
        return "value on the device"

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", to_device)
    spec = open_onnx(write_onnx(tmp_path / "m.onnx"), Options()).spec
    session = FakeSession()
    backend = BoundOnnxBackend(session, spec, device="cuda:2")
    backend.infer({"x": np.ones((4, 2), np.float32)}, ["y", "z"])
    assert asked == [((4, 2), "cuda", 2)]
    assert session.binding.log == [
        ("in", "x", "value on the device"),
        ("out", "y", "cuda", 2),
        ("out", "z", "cuda", 2),
        "run",
    ]


def test_precision_is_for_what_can_keep_it(tmp_path: Path) -> None:
    """ONNX Runtime's CPU provider has no such setting, so it is refused rather than forgotten."""
    with pytest.raises(LoadError, match=r"remove serving\.execution\.precision"):
        open_onnx(write_onnx(tmp_path / "m.onnx"), Options(precision=Precision.FP16))
