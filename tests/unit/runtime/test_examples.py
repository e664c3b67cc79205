"""The examples' models do what their pages say."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_runtime import samples, warmup
from canarium_runtime.backends import open_backend
from canarium_runtime.backends.base import InputError
from canarium_runtime.backends.options import Options

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_python_class_answers_and_refuses(tmp_path: Path) -> None:
    """As the manifest declares it: requests of the warm-up, rows that may be joined, and the class's own refusal."""
    folder = EXAMPLES / "09-python-model"
    manifest = yaml.safe_load((folder / "modeldeployment.yaml").read_text(encoding="utf-8"))
    model = ModelDeploymentSpec.from_manifest(manifest["spec"]).model
    options = Options(allow_code=model.allow_code, directory=tmp_path)
    backend = open_backend(model.format, folder / "model.py", options)
    (declared,) = model.warmup.samples
    examples = samples.run(
        backend, [samples.Sample("declared", str(declared).replace("'", '"').encode())]
    )
    text = {"text": np.array(["word " * 480, "A text of six short words."], object)}
    minutes, level = backend.infer(text, ["minutes", "level"])
    assert minutes.tolist() == pytest.approx([2, 6 / 240])
    assert level.tolist() == ["long", "short"]
    with pytest.raises(InputError, match="text 1 has no words"):
        backend.infer({"text": np.array(["word", "..."], object)}, ["minutes"])
    report = warmup.warm_up(backend, requests=3, max_batch_size=4, examples=examples)
    assert report.rows_independent
    assert report.seconds_per_run is not None
