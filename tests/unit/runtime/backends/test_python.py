"""Python classes behind the Backend protocol: hooks, errors, pieces, and where code comes from."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.runtime.backends.worlds import CODE, write_text, write_zip

from canarium_runtime.backends.base import DTYPES, BackendError, InputError, StreamingBackend
from canarium_runtime.backends.options import Options
from canarium_runtime.backends.python import PythonBackend, open_python
from canarium_runtime.errors import LoadError
from canarium_runtime.testing import tensor

ROWS = np.array([[3, 4], [1, 0]], np.float32)
HEAD = """
import numpy as np
from canarium_runtime.model import InvalidInput, Tensor

class Model:
    inputs = [Tensor("x", "FP32", [-1, 2])]
    outputs = [Tensor("y", "FP32", [-1])]
"""


def opened(tmp_path: Path, body: str, **options: Any) -> PythonBackend:
    """Open a class with some more lines."""
    path = write_text(tmp_path / "m.py", HEAD + body)
    return open_python(path, Options(allow_code=True, directory=tmp_path / "work", **options))


@pytest.fixture(autouse=True)
def _no_module_stays() -> Iterator[None]:
    before = {name for name in sys.modules if name.startswith("canarium_model_")}
    yield
    for name in {n for n in sys.modules if n.startswith("canarium_model_")} - before:
        del sys.modules[name]


def test_code_runs_only_where_the_spec_allows_it(tmp_path: Path) -> None:
    """Not even an import: the file would leave a trace."""
    path = write_text(tmp_path / "m.py", f"open({str(tmp_path / 'trap')!r}, 'w')\n" + CODE)
    with pytest.raises(LoadError, match=r"model\.allowCode") as caught:
        open_python(path, Options(directory=tmp_path))
    assert (caught.value.failure.reason, caught.value.failure.permanent) == ("CodeNotAllowed", True)
    assert not (tmp_path / "trap").exists()


def test_hooks_run_in_order_over_the_whole_batch(tmp_path: Path) -> None:
    """preprocess, predict, postprocess: each once, with all rows."""
    backend = opened(
        tmp_path,
        """
    def load(self, directory): self.log = ["load"]
    def warm_up(self): self.log.append("warm_up")
    def preprocess(self, inputs):
        self.log.append(f"pre {len(inputs['x'])}")
        return {"x": inputs["x"] + 1}
    def predict(self, inputs):
        self.log.append("predict")
        return {"sum": inputs["x"].sum(axis=1)}
    def postprocess(self, outputs):
        self.log.append("post")
        return {"y": -outputs["sum"]}
""",
    )
    (y,) = backend.infer({"x": ROWS}, ["y"])
    assert y.tolist() == [-9, -3]
    assert backend._model.log == ["load", "warm_up", "pre 2", "predict", "post"]


def test_an_archive_finds_its_files_and_its_modules(tmp_path: Path) -> None:
    """`load` gets the folder; `from . import` finds what is beside; the class may have another name."""
    path = write_zip(
        tmp_path / "m.zip",
        {
            "serve.py": HEAD.replace("class Model", "from .lib import weights\nclass Scorer")
            + """
    def load(self, directory): self.weights = weights.read(directory / "data" / "w.txt")
    def predict(self, inputs): return {"y": inputs["x"] @ self.weights}
""",
            "lib/__init__.py": "",
            "lib/weights.py": "import numpy as np\ndef read(path): return np.loadtxt(path, np.float32)\n",
            "data/w.txt": "1\n10\n",
        },
    )
    options = Options(allow_code=True, directory=tmp_path / "work", entrypoint="serve:Scorer")
    backend = open_python(path, options)
    assert backend.infer({"x": ROWS}, ["y"])[0].tolist() == [43, 1]
    assert backend.memory_bytes == sum(
        f.stat().st_size for f in (tmp_path / "work").rglob("*") if f.is_file()
    )


def test_two_models_do_not_see_one_anothers_modules(tmp_path: Path) -> None:
    """Both have a module `helper`; closing lets go of them."""
    before = set(sys.modules)
    backends = []
    for number in (1, 2):
        code = HEAD.replace("class Model", "from . import helper\nclass Model")
        code += "\n    def predict(self, inputs): return {'y': inputs['x'][:, 0] * helper.FACTOR}\n"
        members = {"model.py": code, "helper.py": f"FACTOR = {number}\n"}
        path = write_zip(tmp_path / f"{number}.zip", members)
        backends.append(open_python(path, Options(allow_code=True, directory=tmp_path / "work")))
    assert [b.infer({"x": ROWS}, ["y"])[0].tolist() for b in backends] == [[3, 1], [6, 2]]
    for backend in backends:
        backend.close()
    assert {n for n in set(sys.modules) - before if n.startswith("canarium_model_")} == set()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise InvalidInput('too long', input='x')", InputError, "too long"),
        ("raise RuntimeError('secret')", BackendError, "RuntimeError: secret"),
        ("raise ValueError('secret')", BackendError, "ValueError: secret"),
        ("return None", BackendError, "no output 'y'"),
        ("return {'z': 1}", BackendError, "no output 'y'"),
        ("return {'y': np.zeros((2, 1), np.float32)}", BackendError, r"shape \[2, 1\], declared is \[-1\]"),
        ("return {'y': np.zeros(3, np.float32)}", BackendError, "3 rows for 2"),
        ("return {'y': ['a', 'b']}", BackendError, "declared is FP32"),
        ("return {'y': [[1], [1, 2]]}", BackendError, "no array"),
        ("return {'y': np.zeros(2, complex)}", BackendError, "complex128, declared is FP32"),
    ],
)  # fmt: skip
def test_what_a_hook_does_wrong(
    tmp_path: Path, body: str, error: type[BackendError], message: str
) -> None:
    """World: one line of `predict`; world: an error for the client if it means that, else one for the log."""
    backend = opened(tmp_path, f"\n    def predict(self, inputs): {body}\n")
    with pytest.raises(BackendError, match=message) as caught:
        backend.infer({"x": ROWS}, ["y"])
    assert type(caught.value) is error
    if isinstance(caught.value, InputError):
        assert (caught.value.message, caught.value.field) == ("too long", "x")


@pytest.mark.parametrize("value", ["[1.5, 2]", "np.array([1.5, 2])", "(1.5, 2)"])
def test_numpys_own_datatypes_are_converted(tmp_path: Path, value: str) -> None:
    """Lists and float64 for FP32, which numpy gives of itself."""
    backend = opened(tmp_path, f"\n    def predict(self, inputs): return {{'y': {value}}}\n")
    (y,) = backend.infer({"x": ROWS}, ["y"])
    assert (y.dtype, y.tolist()) == (np.float32, [1.5, 2])


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_goes_through(tmp_path: Path, datatype: str) -> None:
    """Declared in the spec here, and texts too."""
    declared = (tensor("x", datatype, None),), (tensor("y", datatype, None),)
    body = "\n    def predict(self, inputs): return {'y': inputs['x']}\n"
    backend = opened(tmp_path, body, inputs=declared[0], outputs=declared[1])
    values: list[Any] = {"BOOL": [True, False], "BYTES": ["grün", ""]}.get(datatype, [3, 1])
    (y,) = backend.infer({"x": np.array(values, DTYPES[datatype])}, ["y"])
    assert (y.dtype, y.tolist()) == (DTYPES[datatype], values)


PIECES = """
    def preprocess(self, inputs): return {"x": inputs["x"] * 2}
    def predict(self, inputs):
        try:
            for number in range(3):
                yield {"y": inputs["x"][:, 0] + number}
        finally:
            self.ended = True
    def postprocess(self, outputs): return {"y": -outputs["y"]}
"""


def test_a_generator_gives_its_answer_in_pieces(tmp_path: Path) -> None:
    """Each as it comes, preprocessed and postprocessed; without a join, the last one is the whole answer."""
    backend = opened(tmp_path, PIECES)
    assert backend.spec.streams
    assert isinstance(backend, StreamingBackend)
    pieces = [p[0].tolist() for p in backend.stream({"x": ROWS}, ["y"])]
    assert pieces == [[-6, -2], [-7, -3], [-8, -4]]
    assert backend.infer({"x": ROWS}, ["y"])[0].tolist() == [-8, -4]


def test_a_stream_that_is_left_ends_the_generator(tmp_path: Path) -> None:
    """The client went: the model's clean-up runs, and the next request gets its turn."""
    backend = opened(tmp_path, PIECES)
    stream = backend.stream({"x": ROWS}, ["y"])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert backend._model.ended
    assert backend.infer({"x": ROWS}, ["y"])[0].tolist() == [-8, -4]


def test_join_makes_one_answer_of_pieces(tmp_path: Path) -> None:
    """For clients that do not stream."""
    join = "\n    def join(self, pieces): return {'y': sum(p['y'] for p in pieces)}\n"
    backend = opened(tmp_path, PIECES + join)
    assert backend.infer({"x": ROWS}, ["y"])[0].tolist() == [-21, -9]


def test_an_error_amid_the_pieces_is_a_backend_error(tmp_path: Path) -> None:
    """After some pieces."""
    body = "\n    def predict(self, inputs):\n        yield {'y': [1, 2]}\n        raise RuntimeError('x')\n"
    stream = opened(tmp_path, body).stream({"x": ROWS}, ["y"])
    assert next(stream)[0].tolist() == [1, 2]
    with pytest.raises(BackendError, match="RuntimeError"):
        next(stream)


PREDICT = "\n    def predict(self, inputs): return {'y': inputs['x'].sum(1)}\n"


@pytest.mark.parametrize(
    ("content", "reason", "why"),
    [
        pytest.param("x = (", "ModelUnreadable", "SyntaxError", id="no Python"),
        pytest.param("import nowhere", "ModelUnreadable", "serving.image", id="a library is missing"),
        pytest.param("x = 1", "ModelUnreadable", "no class Model", id="no class"),
        pytest.param("Model = 1", "ModelUnreadable", "no class Model", id="no class of that name"),
        pytest.param("class Model: pass", "ModelUnreadable", "no predict", id="no predict"),
        pytest.param(HEAD + PREDICT + "    def load(self, d): 1/0\n", "ModelUnreadable", "load failed", id="load"),
        pytest.param(HEAD + PREDICT + "    def warm_up(self): 1/0\n", "WarmupFailed", "warm_up failed", id="warm-up"),
        pytest.param(HEAD.replace("FP32", "F32") + PREDICT, "ModelUnsupported", "'F32' is none of", id="no datatype"),
        pytest.param(HEAD.replace("outputs", "other") + PREDICT, "ModelUnsupported", "outputs must be", id="none"),
        pytest.param(HEAD.replace("Tensor(", "(") + PREDICT, "ModelUnsupported", "a list of Tensor", id="no tensors"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_served_says_why(
    tmp_path: Path, content: str, reason: str, why: str
) -> None:
    """World: a file; world: a permanent failure with its remedy, and nothing left behind."""
    path = write_text(tmp_path / "m.py", content)
    before = {n for n in sys.modules if n.startswith("canarium_model_")}
    with pytest.raises(LoadError, match=why) as caught:
        open_python(path, Options(allow_code=True, directory=tmp_path / "work"))
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (reason, True)
    assert {n for n in sys.modules if n.startswith("canarium_model_")} == before
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []


def test_a_module_of_the_archive_is_named_in_the_remedy(tmp_path: Path) -> None:
    """A plain `import helper` does not find it; the message says what does."""
    path = write_zip(tmp_path / "m.zip", {"model.py": "import helper\n", "helper.py": ""})
    with pytest.raises(LoadError, match=r"from \. import helper"):
        open_python(path, Options(allow_code=True, directory=tmp_path / "work"))


def test_runs_are_one_at_a_time_unless_the_class_says_otherwise(tmp_path: Path) -> None:
    """Inside a run, nobody else can get in; with `concurrent`, two meet inside."""
    body = """
    def predict(self, inputs):
        self.seen = self.probe()
        return {"y": inputs["x"].sum(1)}
"""
    alone = opened(tmp_path, body)
    lock = alone._one_at_a_time
    assert isinstance(lock, type(threading.Lock()))
    alone._model.probe = lambda: lock.acquire(blocking=False)
    alone.infer({"x": ROWS}, ["y"])
    assert alone._model.seen is False

    together = opened(tmp_path, "\n    concurrent = True" + body)
    together._model.probe = threading.Barrier(2, timeout=30).wait
    threads = [
        threading.Thread(target=lambda: together.infer({"x": ROWS}, ["y"])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert together._model.seen in {0, 1}  # the barrier's number for whoever passed it
