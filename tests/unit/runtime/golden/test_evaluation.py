"""A model over golden data: world (a backend, a table, thresholds) in, what is told of it out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canarium_api.golden import Task, Thresholds
from canarium_runtime.backends.base import Array
from canarium_runtime.golden import evaluation, judging, running
from canarium_runtime.golden.evaluation import Evaluation, ModelError, evaluate
from canarium_runtime.golden.judging import Check, judge
from canarium_runtime.golden.table import DataError, Table
from canarium_runtime.testing import FakeBackend, model_spec, tensor

CLASSES = (tensor("label", "INT64", None), tensor("probabilities", "FP32", None, 2))


def classifier(threshold: float = 0.5, *, width: int = 2) -> FakeBackend:
    """Says 1 where the first column is above a threshold, and gives that column as its score. Fails on NaN."""

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        score = inputs["x"][:, 0]
        return [(score > threshold).astype(np.int64), np.stack([1 - score, score], axis=1)]

    spec = model_spec((tensor("x", "FP32", None, width),), CLASSES)
    return FakeBackend(spec, compute)


def regressor(factor: float = 1.0) -> FakeBackend:
    spec = model_spec(outputs=(tensor("y", "FP32", None),))
    return FakeBackend(spec, lambda inputs: [inputs["x"].sum(axis=1) * factor])


def table(folder: Path, rows: Sequence[tuple[Any, ...]], name: str = "golden.csv") -> Table:
    path = folder / name
    lines = ["a,b,label", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return Table(path)


ROWS = [(0.1, 1, 0), (0.2, 1, 0), (0.4, 1, 1), (0.7, 1, 1), (0.9, 1, 1)]


def checks(
    found: Evaluation, *, size_bytes: int = 2**20, breaks: Any = None, **wishes: Any
) -> list[Check]:
    wanted = Thresholds.model_validate(wishes)
    return judge(found, wanted, size_bytes=size_bytes, breaks=breaks)


def test_a_classification_is_counted(tmp_path: Path) -> None:
    """One of five is wrong; the scores rank perfectly."""
    found = evaluate(classifier(), table(tmp_path, ROWS), Thresholds())
    assert (found.task, found.rows) == (Task.CLASSIFICATION, 5)
    assert found.new.metrics["accuracy"] == pytest.approx(0.8)
    assert found.new.metrics["auc"] == pytest.approx(1.0)
    assert found.new.confusion == [[2, 0], [1, 2]]
    assert [(c.name, c.rows) for c in found.new.classes] == [("0", 2), ("1", 3)]


def test_a_regression_is_measured(tmp_path: Path) -> None:
    """Ten percent too much of 2, 3 and 5."""
    rows = [(1, 1, 2), (1, 2, 3), (2, 3, 5)]
    found = evaluate(regressor(1.1), table(tmp_path, rows), Thresholds())
    assert found.task is Task.REGRESSION
    assert found.new.metrics["mae"] == pytest.approx((0.2 + 0.3 + 0.5) / 3, rel=1e-5)
    assert len(found.new.pairs) == 3


def test_rows_that_the_model_fails_on_are_counted_and_named_and_the_rest_is_answered(
    tmp_path: Path,
) -> None:
    """A missing value fails its run; its neighbours of the same run are asked again alone."""
    rows = [*ROWS, ("", 1, 1), (0.8, 1, 1), ("", 1, 0)]
    found = evaluate(classifier(), table(tmp_path, rows), Thresholds())
    assert found.new.metrics["failedRows"] == 2
    assert found.new.metrics["accuracy"] == pytest.approx(5 / 6)
    assert [f.split(":")[0] for f in found.new.failures] == [
        "golden.csv, row 6 (line 7)",
        "golden.csv, row 8 (line 9)",
    ]
    (failed,) = [c for c in checks(found) if not c.passed]
    assert failed.message == "failedRows is 2, and at most 0 is asked for"


def test_many_failures_are_counted_and_few_are_named(tmp_path: Path) -> None:
    """A report stays short."""
    found = evaluate(classifier(), table(tmp_path, [*ROWS, *[("", 1, 1)] * 50]), Thresholds())
    assert (found.new.metrics["failedRows"], len(found.new.failures)) == (50, running.MAX_FAILURES)


def test_a_model_that_answers_nothing_is_an_error_of_its_own(tmp_path: Path) -> None:
    """With the first failure."""
    with pytest.raises(
        ModelError, match=r"no row was answered: golden.csv, row 1 \(line 2\): secret detail"
    ):
        evaluate(classifier(), table(tmp_path, [("", 1, 1)] * 3), Thresholds())


def test_an_old_version_answers_the_same_rows(tmp_path: Path) -> None:
    """It differs on one row of five; its metrics stand beside the new one's."""
    found = evaluate(classifier(0.3), table(tmp_path, ROWS), Thresholds(), old=classifier(0.5))
    assert found.agreement is not None
    assert found.old is not None
    assert (found.agreement.share, found.agreement.rows) == (0.8, 5)
    assert (found.new.metrics["accuracy"], found.old.metrics["accuracy"]) == (1.0, 0.8)


def test_versions_are_compared_on_rows_that_both_answer(tmp_path: Path) -> None:
    """The old version fails on one that the new one answers."""

    def picky(inputs: Mapping[str, Array]) -> Sequence[Array]:
        if (inputs["x"][:, 0] > 0.85).any():
            raise running.BackendError("too large")
        return regressor()._compute(inputs)

    rows = [(0.1, 1, 1.1), (0.9, 1, 9)]
    old = FakeBackend(regressor().spec, picky)
    found = evaluate(regressor(), table(tmp_path, rows), Thresholds(), old=old)
    assert found.agreement is not None
    assert (found.rows, found.agreement.rows, found.new.metrics["failedRows"]) == (2, 1, 0)
    assert found.old is not None
    assert found.old.metrics["failedRows"] == 1


def test_an_old_version_that_does_not_take_the_data_is_left_out_and_its_thresholds_are_missed(
    tmp_path: Path,
) -> None:
    """What cannot be measured never passes."""
    found = evaluate(classifier(), table(tmp_path, ROWS), Thresholds(), old=classifier(width=3))
    assert found.old is None
    assert "the old version is not compared" in found.notes[0]
    (agreement,) = [c for c in checks(found, minAgreement=0.5) if c.name == "agreement"]
    assert (agreement.passed, agreement.value) == (False, None)


def test_numbers_agree_where_they_hardly_differ(tmp_path: Path) -> None:
    """Within a thousandth; the mean difference says which way."""
    rows = [(1, 1, 2), (1, 2, 3)]
    near = evaluate(regressor(1.0005), table(tmp_path, rows), Thresholds(), old=regressor())
    far = evaluate(regressor(1.1), table(tmp_path, rows), Thresholds(), old=regressor())
    assert near.agreement is not None
    assert far.agreement is not None
    assert (near.agreement.share, far.agreement.share) == (1.0, 0.0)
    assert far.agreement.mean_difference == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("label", "backend", "words"),
    [
        ("", classifier(), "row 2 (line 3), column 'label': the right answer is missing"),
        ("", regressor(), "row 2 (line 3), column 'label': the right answer is missing"),
        ("inf", regressor(), "row 2 (line 3), column 'label': the right answer 'inf' is no finite"),
        ("red", regressor(), "row 2 (line 3), column 'label': 'red' is no number"),
    ],
)
def test_a_right_answer_that_is_none_is_named(
    tmp_path: Path, label: str, backend: FakeBackend, words: str
) -> None:
    """By row."""
    with pytest.raises(DataError) as caught:
        evaluate(backend, table(tmp_path, [(1, 1, 1), (1, 1, label)]), Thresholds())
    assert words in str(caught.value)


def test_a_label_of_too_many_classes_is_no_classification(tmp_path: Path) -> None:
    """Bounded: a thousand."""
    rows = [(0.1, 1, i) for i in range(1001)]
    with pytest.raises(DataError, match="more than 1000 classes: is this a regression"):
        evaluate(classifier(), table(tmp_path, rows), Thresholds())


def test_an_output_that_mixes_rows_is_refused(tmp_path: Path) -> None:
    """One answer for all rows is none."""
    spec = model_spec(outputs=(tensor("y", "FP32", None),))
    backend = FakeBackend(spec, lambda inputs: [inputs["x"].sum(keepdims=True)[0]])
    with pytest.raises(DataError, match=r"has shape \[1\] for 5 rows"):
        evaluate(backend, table(tmp_path, ROWS), Thresholds())


def test_a_model_of_one_row_a_run_is_run_row_by_row(tmp_path: Path) -> None:
    """Its first axis is fixed."""
    spec = model_spec((tensor("x", "FP32", 1, 2),), (tensor("y", "FP32", 1),), batchable=False)
    backend = FakeBackend(spec)
    found = evaluate(backend, table(tmp_path, ROWS), Thresholds())
    assert found.rows == 5
    assert set(backend.batch_rows) == {1}


def reference(folder: Path, shift: float, rows: int = 200) -> tuple[Table, Table]:
    random = np.random.default_rng(3)
    golden = [(f"{v:.4f}", 1, int(v > 0.5)) for v in random.random(rows)]
    other = [(f"{v + shift:.4f}", 1, 0) for v in random.random(rows)]
    return table(folder, golden), table(folder, other, "reference.csv")


@pytest.mark.parametrize(
    ("shift", "rows", "passed", "words"),
    [
        (0.0, 200, True, "no feature has drifted"),
        (0.6, 200, False, "drifted: a; the highest score is"),
        (0.0, 20, False, "drift was not measured: 20 rows, and 20 of the reference; 50 of each"),
    ],
)
def test_drift_is_asked_for_wherever_there_is_a_reference(
    tmp_path: Path, shift: float, rows: int, passed: bool, words: str
) -> None:
    """By default no feature may have drifted; too few rows are no pass."""
    golden, other = reference(tmp_path, shift, rows)
    found = evaluate(classifier(), golden, Thresholds(), reference=other)
    (check,) = [c for c in checks(found) if c.name == "drift"]
    assert (check.passed, words in check.message) == (passed, True), check.message


def test_a_reference_of_other_columns_is_refused(tmp_path: Path) -> None:
    """The order counts: the model has no names."""
    golden, _ = reference(tmp_path, 0)
    path = tmp_path / "other.csv"
    path.write_text("b,a\n1,2\n")
    with pytest.raises(
        DataError, match=r"other.csv: its features b, a are not those of the golden data, a, b"
    ):
        evaluate(classifier(), golden, Thresholds(), reference=Table(path))


@pytest.mark.parametrize(
    ("wishes", "name", "passed", "words"),
    [
        ({"metrics": {"accuracy": {"min": 0.8}}}, "accuracy", True, "accuracy is 0.8"),
        ({"metrics": {"accuracy": {"min": 0.81}}}, "accuracy", False, "and at least 0.81 is asked for"),
        ({"metrics": {"logLoss": {"max": 0.01}}}, "logLoss", False, "at most 0.01"),
        ({"metrics": {"rmse": {"max": 1}}}, "rmse", False, "rmse was not measured"),
        ({"metrics": {"accuracy": {"maxLoss": 0.01}}}, "accuracy against the old version", False, "was not measured"),
        ({"latency": {"p95": "10s"}}, "latency p95", True, " ms"),
        ({"latency": {"p50": "0ms"}}, "latency p50", False, "at most 0 ms"),
        ({"maxSize": "1Mi"}, "size", True, "size is 1 MiB"),
        ({"maxSize": "1Ki"}, "size", False, "at most 0.0009766 MiB"),
        ({"minRows": 6}, "rows", False, "rows is 5, and at least 6 is asked for"),
        ({"minAgreement": 0.1}, "agreement", False, "was not measured"),
        ({"data": {"maxMissing": 0}}, "missing values", True, "the share of 'a' is 0"),
        ({"data": {"maxOutOfRange": 0}}, "values out of range", False, "was not measured"),
    ],
)  # fmt: skip
def test_a_threshold_is_met_or_missed_in_words(
    tmp_path: Path, wishes: dict[str, Any], name: str, passed: bool, words: str
) -> None:
    """What was not measured is missed."""
    found = evaluate(classifier(), table(tmp_path, ROWS), Thresholds())
    (check,) = [c for c in checks(found, **wishes) if c.name == name]
    assert (check.passed, words in check.message) == (passed, True), check.message


@pytest.mark.parametrize(
    ("new", "old", "most", "passed"),
    [(0.5, 0.3, 0.1, False), (0.5, 0.3, 0.2, True), (0.3, 0.5, 0.0, True)],
)
def test_a_loss_against_the_old_version_is_bounded(
    tmp_path: Path, new: float, old: float, most: float, passed: bool
) -> None:
    """0.8 against 1.0 is a loss of 0.2; a gain is none."""
    found = evaluate(classifier(new), table(tmp_path, ROWS), Thresholds(), old=classifier(old))
    wishes = {"metrics": {"accuracy": {"maxLoss": most}}}
    (check,) = [c for c in checks(found, **wishes) if c.name.startswith("accuracy")]
    assert check.passed is passed


@pytest.mark.parametrize(
    ("breaks", "passed"), [(None, None), ([], True), (["input 'x' is gone"], False)]
)
def test_the_contract_with_the_old_version_is_a_check_where_there_is_one(
    tmp_path: Path, breaks: Any, passed: bool | None
) -> None:
    """No old version: no such check."""
    found = evaluate(classifier(), table(tmp_path, ROWS), Thresholds())
    contract = [c.passed for c in checks(found, breaks=breaks) if c.name == "contract"]
    assert contract == ([] if passed is None else [passed])


def test_scores_are_not_kept_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it there is no AUC, and a note says so."""
    monkeypatch.setattr("canarium_runtime.golden.results.MAX_SCORES", 5)
    found = evaluate(classifier(), table(tmp_path, ROWS), Thresholds())
    assert "auc" not in found.new.metrics
    assert found.new.notes == ("more than 5 scores: no AUC, no log loss",)
    assert judging.shown(found.new.metrics["accuracy"]) == "0.8"
    assert evaluation.LATENCY_ROWS == 64
