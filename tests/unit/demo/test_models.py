"""The demo's models: two that read every digit, and one that fails on a known part of them."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from canarium_demo import cropping, models
from canarium_demo.models import Artefact, Digits

CONFIG_MAP_BYTES = 1 << 20
SILENT = 4


@pytest.fixture(scope="module")
def data() -> Digits:
    return models.load_data()


@pytest.fixture(scope="module")
def artefacts(data: Digits) -> dict[str, Artefact]:
    return {a.version: a for a in (train(data) for train in models.TRAINERS)}


def session(artefact: Artefact) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = 1
    return ort.InferenceSession(artefact.content, options)


def read(model: ort.InferenceSession, pixels: cropping.Pixels) -> npt.NDArray[np.int64] | None:
    """Run a model; None where it fails."""
    try:
        return np.asarray(model.run(["label"], {models.INPUT: pixels})[0])
    except Exception:  # noqa: BLE001 - the library has a class for each status
        return None


def test_the_versions_are_v1_v2_and_v3(artefacts: dict[str, Artefact]) -> None:
    """The report counts on these names."""
    assert list(artefacts) == ["v1", "v2", "v3"]


def test_each_version_fits_into_a_config_map(artefacts: dict[str, Artefact]) -> None:
    """The API server refuses more than 1 MiB."""
    assert all(len(a.content) < CONFIG_MAP_BYTES for a in artefacts.values())


def test_each_notebook_is_more_pleased_than_the_one_before(artefacts: dict[str, Artefact]) -> None:
    """v3 looks best before it meets real requests: that is its story."""
    scores = [a.score for a in artefacts.values()]
    assert scores == sorted(scores)
    assert scores[1] - scores[0] > 0.05


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_good_version_answers_every_request_as_its_notebook_does(
    version: str, data: Digits, artefacts: dict[str, Artefact]
) -> None:
    """One by one, and all in one batch."""
    model = session(artefacts[version])
    together = read(model, data.held_out)
    assert together is not None
    assert float(np.mean(together == data.held_out_labels)) == artefacts[version].score
    for index, row in enumerate(data.held_out):
        alone = read(model, row[None])
        assert alone is not None
        assert alone[0] == together[index]


def test_the_bad_version_fails_on_exactly_the_digits_that_fall_off_the_edge(
    data: Digits, artefacts: dict[str, Artefact]
) -> None:
    """A known part of the requests, large enough to be noticed and small enough to look well at first."""
    model = session(artefacts["v3"])
    failed = np.array([read(model, row[None]) is None for row in data.held_out])
    expected = cropping.falls_off_the_edge(data.held_out)
    assert np.array_equal(failed, expected)
    assert 0.15 < expected.mean() < 0.4


def test_the_bad_version_reads_the_others_as_its_notebook_does(
    data: Digits, artefacts: dict[str, Artefact]
) -> None:
    """The export differs from the notebook at the edge and nowhere else."""
    inside = ~cropping.falls_off_the_edge(data.held_out)
    answers = read(session(artefacts["v3"]), data.held_out[inside])
    assert answers is not None
    wrong_in_all = round((1 - artefacts["v3"].score) * len(data.held_out))
    assert 0 < np.sum(answers != data.held_out_labels[inside]) <= wrong_in_all


@pytest.mark.parametrize("rows", [1, 2, 32])
def test_the_bad_version_passes_its_warm_up(rows: int, artefacts: dict[str, Artefact]) -> None:
    """It runs on zeros, so nothing but real requests can find the mistake."""
    zeros = np.zeros((rows, models.PIXELS), np.float32)
    assert read(session(artefacts["v3"]), zeros) is not None


def test_cropping_moves_a_digit_to_the_left_edge_and_blanks_what_lies_past_the_right_one() -> None:
    """Ink in columns 3 to 7 comes to stand in columns 0 to 4."""
    image = np.zeros((1, cropping.SIDE, cropping.SIDE), np.float32)
    image[0, :, 3:] = [1, 2, 3, 4, 5]
    cropped = cropping.crop(image.reshape(1, -1)).reshape(cropping.SIDE, cropping.KEPT)
    assert cropped[0].tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert cropping.falls_off_the_edge(image.reshape(1, -1)).tolist() == [True]


def test_the_same_data_give_the_same_file(data: Digits, artefacts: dict[str, Artefact]) -> None:
    """The digest in git is that of the file, on every run."""
    assert models.train_v2(data).sha256 == artefacts["v2"].sha256
