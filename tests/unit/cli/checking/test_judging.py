"""What is wrong with an object, without a cluster: the rows of the real API server, and what it does not say."""

import re
from typing import Any

import pytest
from tests.contract import specs

from canarium_cli.checking import judging
from canarium_cli.checking import objects as kinds
from canarium_cli.checking.findings import Finding, Rule, Severity
from canarium_cli.checking.sources import Group

from .objects import DIGEST, MODEL, document_of, judged, read


def errors(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity is Severity.ERROR]


@pytest.mark.parametrize(("remedy", "spec"), specs.REFUSED)
def test_what_the_api_server_refuses_is_found(remedy: str, spec: dict[str, Any]) -> None:
    """Each row that a real API server refuses (tests/contract) is an error, in words that say what to do."""
    found = errors(judging.judge_object(document_of(**spec), {}))
    said = [finding.message for finding in found]
    # The operator names the field itself where it can, instead of the list of all weights.
    remedies = (
        [remedy, "without a gateway no ratio of"]
        if "ratio" in remedy or "use 25" in remedy
        else [remedy]
    )
    assert any(re.search(words, message) for words in remedies for message in said), said


@pytest.mark.parametrize("name", specs.NAMES)
def test_a_name_that_no_service_could_have_is_found(name: str) -> None:
    """At the line of the name."""
    (found,) = errors(judging.judge_object(document_of(name), {}))
    assert (found.rule, found.field) == (Rule.CEL, "metadata.name")


@pytest.mark.parametrize("spec", specs.GOOD)
def test_what_the_api_server_takes_is_no_error(spec: dict[str, Any]) -> None:
    """Rows that a real API server stores pass, unless the operator says more."""
    found = [
        f
        for f in errors(judging.judge_object(document_of(**spec), {}))
        if f.rule is not Rule.OPERATOR
    ]
    assert found == []


def test_a_good_manifest_has_nothing_wrong() -> None:
    """Not even a warning."""
    assert judged(MODEL) == []


@pytest.mark.parametrize(
    ("change", "line", "field", "words"),
    [
        (("    version: v1", "    versoin: v1"), 10, "spec.model.versoin", "did you mean version?"),
        (("    version: v1", "    VERSION: v1"), 10, "spec.model.VERSION", "did you mean version?"),
        (
            ("  traffic:", "  maxBatchSize: 8\n  traffic:"),
            11,
            "spec.maxBatchSize",
            "belongs to spec.serving.maxBatchSize",
        ),
        (("  traffic:", "  qqq: 8\n  traffic:"), 11, "spec.qqq", "known here are model, serving"),
        (("spec:", "sepc: {}\nspec:"), 6, "sepc", "did you mean spec?"),
        ((DIGEST, "1" * 64), 9, "spec.model.sha256", "put it in quotes"),
        ((DIGEST, "abc"), 9, "spec.model.sha256", "does not match"),
        (("name: public", "nmae: public"), 12, "spec.traffic.gateway.name", "is required"),
        (("canarium.dev/v1alpha1", "canarium.dev/v9"), 1, "apiVersion", "write canarium.dev/v1alpha1"),
        (("  name: deliveries\n", ""), 3, "metadata.name", "is required"),
        (("    version: v1", "    version: v1\n    version: v2"), 11, "spec.model.version", "twice"),
        (
            ("  traffic:", "  autoscaling: {minReplicas: 9, maxReplicas: 3}\n  traffic:"),
            11,
            "spec.autoscaling.minReplicas",
            "lower the one",
        ),
        (
            ("  traffic:", "  serving:\n    preferredBatchSizes: [8, 4]\n  traffic:"),
            12,
            "spec.serving.preferredBatchSizes",
            "put the sizes in order",
        ),
        (
            ("  traffic:", "  rollout:\n    freezes:\n    - {from: 25:00, to: 08:00}\n  traffic:"),
            13,
            "spec.rollout.freezes[0].from",
            "does not match",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_found_where_it_stands(
    change: tuple[str, str], line: int, field: str, words: str
) -> None:
    """One error tells of it, with line and field and the remedy."""
    found = [f for f in errors(judged(MODEL.replace(*change, 1))) if f.field == field]
    assert [(f.line, words in f.message) for f in found] == [(line, True)], found


def test_a_model_from_the_network_without_a_digest_is_a_warning() -> None:
    """Other bytes at the same address would be served without a rollout."""
    (found,) = judged(MODEL.replace(f"    sha256: {DIGEST}\n", ""))
    assert (found.severity, found.rule, found.line) == (Severity.WARNING, Rule.UNPINNED, 8)


def test_a_version_that_is_deprecated_says_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRD's own words, where it has some."""
    known = kinds.versions_of("ModelDeployment")
    old = {**known["v1alpha1"], "deprecated": True, "deprecationWarning": "write v1beta1"}
    monkeypatch.setattr(kinds, "versions_of", lambda kind: {"v1alpha1": old})
    (found,) = judged(MODEL)
    assert (found.severity, found.rule, found.message) == (
        Severity.WARNING,
        Rule.API_VERSION,
        "write v1beta1",
    )


def condition(kind: str, status: str, reason: str) -> str:
    return (
        f'{{type: {kind}, status: "{status}", reason: {reason}, message: so, observedGeneration: 2, '
        'lastTransitionTime: "2026-01-01T00:00:00Z"}'
    )


@pytest.mark.parametrize(
    ("generation", "conditions", "severity", "words"),
    [
        (2, [("Ready", "True", "Serving")], "note", "kstatus: Current, Ready=True, Serving: so"),
        (2, [("Ready", "False", "X"), ("Reconciling", "True", "X")], "note", "InProgress"),
        (2, [("Ready", "False", "X"), ("Stalled", "True", "InvalidSpec")], "error", "Failed, Stalled"),
        (3, [("Ready", "True", "Serving")], "note", "InProgress, the operator has seen generation 2"),
        (2, [], "note", "no condition Ready"),
    ],
)  # fmt: skip
def test_a_status_in_a_file_is_judged_as_kstatus_does(
    generation: int, conditions: list[tuple[str, str, str]], severity: str, words: str
) -> None:
    """Stalled is an error: it will never be healthy by itself."""
    listed = ", ".join(condition(*c) for c in conditions)
    status = f"status:\n  observedGeneration: 2\n  conditions: [{listed}]\n"
    text = MODEL.replace("  name: del", f"  generation: {generation}\n  name: del") + status
    (found,) = judged(text)
    assert found.rule is Rule.STATUS
    assert (found.severity, words in found.message) == (severity, True), found


TEMPLATE = """\
apiVersion: canarium.dev/v1alpha1
kind: AnalysisTemplate
metadata: {name: usual, namespace: shop}
spec:
  metrics:
  - {name: latency-p50, max: 200ms}
"""
WITH_TEMPLATE = MODEL + "  rollout:\n    analysis:\n      templates:\n      - name: usual\n"


def test_a_template_that_is_not_there_is_a_warning_and_one_that_is_counts() -> None:
    """Its checks become those of the spec, and clash with one of the same name."""
    (missing,) = judging.judge([Group(title="a", documents=[read(WITH_TEMPLATE)])])
    assert (missing.severity, missing.rule) == (Severity.WARNING, Rule.TEMPLATE)
    both = [read(WITH_TEMPLATE), read(TEMPLATE, "template.yaml")]
    assert judging.judge([Group(title="a", documents=both)]) == []
    clash = read(WITH_TEMPLATE + "      metrics: [{name: latency-p50}]\n")
    (found,) = judging.judge([Group(title="a", documents=[clash, both[1]])])
    assert (found.severity, found.line) == (Severity.ERROR, 16)


def test_a_template_is_checked_itself() -> None:
    """Its schema and its rules."""
    found = judged(TEMPLATE.replace("latency-p50", "fairness"))
    assert [f.rule for f in found] == [Rule.CEL]


def test_an_object_that_is_there_twice_is_an_error_in_one_directory_and_a_warning_in_two() -> None:
    """Two directories may be two clusters."""
    rows = [("a/1.yaml", "a/2.yaml", "error"), ("a/1.yaml", "b/1.yaml", "warning")]
    for one, other, severity in rows:
        group = Group(title="files", documents=[read(MODEL, one), read(MODEL, other)])
        (found,) = judging.judge([group])
        assert (found.severity, found.file, found.line) == (severity, other, 4)
        assert f"{one}:4" in found.message
    apart = [
        Group(title=t, documents=[read(MODEL, f"{t}.yaml")]) for t in ("staging", "production")
    ]
    assert judging.judge(apart) == []


def test_a_file_that_is_not_an_object_is_passed_over() -> None:
    """Nothing is known of other kinds, and a patch need not be whole."""
    group = Group(
        title="files",
        documents=[read("- 1\n"), read("kind: Service\nmetadata: {name: x}\n")],
        patches=[
            read("apiVersion: canarium.dev/v1alpha1\nkind: ModelDeployment\nspec: {modle: {}}\n")
        ],
    )
    (found,) = judging.judge([group])
    assert found.message == "there is no such field: did you mean model?"
