"""Chains: what is passed on, what must fit, and what a wrong declaration says."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.unit.runtime.backends.worlds import CODE, write_chain, write_onnx, write_zip

from canarium_runtime.backends.base import InputError
from canarium_runtime.backends.chain import ChainBackend, open_chain
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError

WORDS = """
import numpy as np
from canarium_runtime.model import InvalidInput, Tensor

class Model:
    inputs = [Tensor("text", "BYTES", [-1])]
    outputs = [Tensor("x", "FP32", [-1, 2])]

    def predict(self, inputs):
        if any(not t for t in inputs["text"]):
            raise InvalidInput("a text is empty", input="text")
        return {"x": [[len(t), t.count("e")] for t in inputs["text"]]}
"""
TELL = """
from canarium_runtime.model import Tensor

class Model:
    inputs = [Tensor("y", "FP32", [-1])]
    outputs = [Tensor("said", "BYTES", [-1])]

    def predict(self, inputs):
        for word in ("about", "exactly"):
            yield {"said": [f"{word} {value:g}" for value in inputs["y"]]}
"""


def step(file: str, format_name: str, more: str = "") -> str:
    """One step of chain.toml."""
    return f'[[steps]]\nfile = "{file}"\nformat = "{format_name}"\n{more}\n'


def opened(
    tmp_path: Path, toml: str, members: Mapping[str, str | bytes | Path] | None = None
) -> ChainBackend:
    """Open a chain of the usual files."""
    files = {
        "words.py": WORDS,
        "tell.py": TELL,
        "linear.onnx": write_onnx(tmp_path / "linear.onnx"),
        "plain.py": CODE,
        "chain.toml": toml,
    }
    path = write_zip(tmp_path / "chain.zip", {**files, **(members or {})})
    return open_chain(path, Options(allow_code=True, directory=tmp_path / "work"))


OTHER_SHAPE = step("words.py", "python", 'outputs = {x = "words"}') + step(
    "tell.py", "python", 'inputs = {y = "words"}'
)
GOOD = step("words.py", "python") + step("linear.onnx", "onnx")
MIDDLE = (
    GOOD
    + step("tell.py", "python")
    + step("words.py", "python", 'inputs = {text = "said"}\noutputs = {x = "x2"}')
)


def test_texts_go_in_and_numbers_come_out(tmp_path: Path) -> None:
    """The inputs are those that no step gives, the outputs those of the last step."""
    chain = opened(tmp_path, GOOD)
    assert [(t.name, t.datatype, t.wire_shape) for t in chain.spec.inputs] == [
        ("text", "BYTES", [-1])
    ]
    assert chain.spec.output_names == ("y", "z")
    assert chain.spec.batchable
    y, z = chain.infer({"text": np.array(["eel", "a"], object)}, ["y", "z"])
    assert (y.tolist(), z.tolist()) == ([23, 1], [[6, 4], [2, 0]])


def test_outputs_of_any_step_can_be_asked_for(tmp_path: Path) -> None:
    """What the first step gives beside what the last one does."""
    chain = opened(tmp_path, 'outputs = ["y", "x"]\n' + GOOD)
    y, x = chain.infer({"text": np.array(["eel"], object)}, ["y", "x"])
    assert (y.tolist(), x.tolist()) == ([23], [[3, 2]])


def test_a_step_may_refuse_with_words_for_the_client(tmp_path: Path) -> None:
    """As a model by itself may."""
    with pytest.raises(InputError, match="a text is empty"):
        opened(tmp_path, GOOD).infer({"text": np.array([""], object)}, ["y"])


def test_the_last_step_may_give_pieces(tmp_path: Path) -> None:
    """Only the last: the others run once."""
    chain = opened(tmp_path, GOOD + step("tell.py", "python"))
    assert chain.spec.streams
    pieces = chain.stream({"text": np.array(["eel"], object)}, ["said"])
    assert [p[0].tolist() for p in pieces] == [["about 23"], ["exactly 23"]]
    assert chain.infer({"text": np.array(["eel"], object)}, ["said"])[0].tolist() == ["exactly 23"]


def test_a_chain_with_a_step_that_cannot_be_joined_is_not_joined(tmp_path: Path) -> None:
    """Batchable only if all are."""
    fixed = WORDS.replace("[-1, 2]", "[1, 2]").replace('"BYTES", [-1]', '"BYTES", [1]')
    assert not opened(tmp_path, GOOD, {"words.py": fixed}).spec.batchable


def test_it_holds_what_its_steps_hold(tmp_path: Path) -> None:
    """Their sum, and closing closes them."""
    chain = opened(tmp_path, GOOD)
    assert chain.memory_bytes == len(WORDS) + (tmp_path / "linear.onnx").stat().st_size
    chain.close()
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []


def test_code_in_a_chain_needs_leave_too(tmp_path: Path) -> None:
    """A chain of ONNX files and a class is not a way around it."""
    with pytest.raises(LoadError, match=r"model\.allowCode"):
        open_chain(write_chain(tmp_path), Options(directory=tmp_path / "work"))


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        pytest.param("steps = 1 2", "not TOML", id="no TOML"),
        pytest.param("", "steps: Field required", id="no steps"),
        pytest.param("steps = []", "at least 1 item", id="empty"),
        pytest.param(GOOD + "colour = 1\n", "steps.1.colour: Extra inputs", id="an unknown key"),
        pytest.param(step("words.py", "pickle"), "steps.0.format", id="an unknown format"),
        pytest.param(step("none.py", "python"), "none.py is not in the archive", id="no file"),
        pytest.param(step("../words.py", "python"), "not in the archive", id="outside"),
        pytest.param(step("words.py", "chain"), "a chain itself", id="a chain in a chain"),
        pytest.param(OTHER_SHAPE, r"'words' as FP32 \[-1\], but it is FP32 \[-1, 2\]", id="shape"),
        pytest.param(step("words.py", "python", 'outputs = {x = "text"}'), "gives .text., which is", id="alike"),
        pytest.param(step("plain.py", "python") + step("linear.onnx", "onnx"), "gives 'y', which is", id="given twice"),
        pytest.param(step("words.py", "python", 'inputs = {t = "x"}'), "has no input 't', but", id="no such input"),
        pytest.param(step("words.py", "python", 'outputs = {t = "x"}'), "has no output 't', but", id="no such output"),
        pytest.param('outputs = ["w"]\n' + GOOD, "no step gives the output 'w'", id="no such output of the chain"),
        pytest.param(MIDDLE, "only the last step may yield", id="pieces in the middle"),
    ],
)  # fmt: skip
def test_a_wrong_chain_says_what_is_wrong(tmp_path: Path, toml: str, why: str) -> None:
    """World: chain.toml; world: a permanent failure, and nothing left unpacked."""
    with pytest.raises(LoadError, match=why) as caught:
        opened(tmp_path, toml)
    assert (caught.value.failure.reason, caught.value.failure.permanent) == ("InvalidConfig", True)
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []


def test_without_its_file_it_is_no_chain(tmp_path: Path) -> None:
    """An archive of something else."""
    path = write_zip(tmp_path / "chain.zip", {"a.txt": "a"})
    with pytest.raises(LoadError, match=r"no chain\.toml at its top"):
        open_chain(path, Options(directory=tmp_path / "work"))
