"""Which outcomes are noted for git, what becomes of them in the status, and that none leads to another."""

import json
from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import Reason
from canarium_api.gitops_status import MAX_DUE, MAX_WRITTEN, SourceCommit
from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core import validation
from canarium_operator.core.deciding import decide
from canarium_operator.core.outcomes.news import (
    Answer,
    Failed,
    News,
    Settled,
    news_from_json,
    news_to_json,
)
from canarium_operator.core.outcomes.texts import announcements, make_job
from canarium_operator.testing.scenario import REF, Scenario, Traffic, make_spec

GITOPS = {"url": "https://git.example.com/models.git", "manifest": "production/fraud.yaml"}


class Story:
    """A ModelDeployment through passes as the operator does them, with what git answered."""

    def __init__(self, gitops: dict[str, Any] | None = GITOPS, **changes: Any) -> None:
        self.gitops = gitops
        self.scenario = Scenario()
        self.put("1", **changes)

    def put(self, version: str, **changes: Any) -> str:
        """Have the user apply a version; gives its revision."""
        spec = make_spec(version, gitops=self.gitops, **changes)
        self.scenario = self.scenario.change(spec)
        return self.scenario.wanted.name

    def passes(self, answers: dict[int, Answer] | None = None, **news: Any) -> None:
        """Decide and act until nothing more happens; what git said is heard in the first pass."""
        told = News(answers=answers or {}, **news) if answers or news else None
        for _ in range(60):
            before = self.scenario
            decision, status = decide(replace(before.given(), outcomes=told))
            self.scenario = replace(before, status=status, decision=decision).act()
            told = None
            if (status, self.scenario.observed) == (before.status, before.observed):
                return
        raise AssertionError(self.status.message)

    def later(self, seconds: float) -> None:
        """Let time pass, in steps in which checks are made."""
        for _ in range(int(seconds / 30)):
            self.scenario = self.scenario.later(30)
            self.passes()

    @property
    def status(self) -> ModelDeploymentStatus:
        """The status."""
        return self.scenario.status

    @property
    def due(self) -> list[str]:
        """What is due, as `epoch outcome version`."""
        gitops = self.status.gitops
        assert gitops is not None
        return [f"{o.epoch} {o.outcome} {o.who.version}" for o in gitops.due]

    @property
    def outcomes(self) -> list[str]:
        """Outcomes that are due, without their epochs."""
        return [entry.split(" ", 1)[1] for entry in self.due]

    def condition(self, kind: str = "OutcomeRecorded") -> str | None:
        """One condition as `status/reason`."""
        found = [c for c in self.status.conditions if c.type == kind]
        return f"{found[0].status}/{found[0].reason}" if found else None

    def settle(self) -> None:
        """Have git take all that is due."""
        gitops = self.status.gitops
        assert gitops is not None
        self.passes({o.epoch: Settled(commit="c0ffee", branch="main") for o in gitops.due})


@pytest.fixture
def serving() -> Story:
    """Version 1 serves, and git knows."""
    story = Story()
    story.passes()
    assert story.outcomes == ["Deployed 1"]
    story.settle()
    assert story.due == []
    return story


def fail(story: Story, version: str = "2", **changes: Any) -> str:
    """Roll out a bad version."""
    bad = story.put(version, **changes)
    story.scenario = story.scenario.serves(bad, Traffic(error_rate=0.4))
    story.passes()
    story.later(300)
    assert [f.revision for f in story.status.failed_revisions][-1] == bad
    return bad


def test_a_promotion_is_noted_with_its_evidence_and_lineage(serving: Story) -> None:
    """In the write of the status that makes it stable."""
    serving.put("2")
    serving.passes()
    serving.later(900)
    assert serving.status.stable is not None
    assert serving.status.stable.model_version == "2"
    assert serving.status.gitops is not None
    (noted,) = serving.status.gitops.due
    assert (noted.outcome, noted.who.version, noted.uri) == (
        "Promoted",
        "2",
        "https://models/fraud/2.onnx",
    )
    assert noted.other is not None
    assert noted.other.version == "1"
    assert {(row.name, row.verdict) for row in noted.evidence} >= {("error-rate", "Pass")}
    assert serving.condition() == "Unknown/OutcomePending"
    job = make_job(REF, serving.scenario.spec.gitops, noted, "c0ffee")  # type: ignore[arg-type]
    good = job.content["rollout"]["lastGood"]
    assert good["record"]["commit"] == "c0ffee"
    assert job.record == "production/released/fraud.yaml"
    assert "| error-rate | Pass |" in job.body


def test_the_record_names_the_revision_that_was_promoted(serving: Story) -> None:
    """Laid over the manifest in a new cluster, it brings up what served, and the spec's own follows."""
    good = serving.put("2")
    serving.passes()
    serving.later(900)
    assert serving.status.gitops is not None
    (noted,) = serving.status.gitops.due
    job = make_job(REF, serving.scenario.spec.gitops, noted, None)  # type: ignore[arg-type]
    base = make_spec("3").to_manifest()
    base["rollout"] = {**base["rollout"], **job.content["rollout"]}
    fresh = Scenario(spec=type(serving.scenario.spec).from_manifest(base)).settle()
    assert fresh.status.stable is not None
    assert fresh.status.stable.revision == good
    assert fresh.status.canary is not None


def test_a_rollback_is_noted_with_what_the_manifest_must_say_again(serving: Story) -> None:
    """Only what differs: the model, and a serving field that came with it."""
    fail(serving, serving={"maxDelay": "5ms"})
    assert serving.status.gitops is not None
    (noted,) = serving.status.gitops.due
    assert (noted.outcome, noted.reason) == ("RolledBack", "AnalysisFailed")
    assert {".".join(e.path): (e.before, e.after) for e in noted.edits} == {
        "model.uri": ('"https://models/fraud/2.onnx"', '"https://models/fraud/1.onnx"'),
        "model.version": ('"2"', '"1"'),
        "serving.maxDelay": ('"5ms"', None),
    }
    assert [row.verdict for row in noted.evidence if row.name == "error-rate"] == ["Fail"]
    spec = serving.scenario.spec.gitops
    assert spec is not None
    job = make_job(REF, spec, noted, None)
    assert job.work_branch == f"canarium/ml/fraud/{noted.who.revision}"
    assert job.subject == "fraud: take v2 back to v1 (AnalysisFailed)"


def test_the_revert_ends_healthy_and_leads_to_nothing_more(serving: Story) -> None:
    """A direct commit is applied by the GitOps tool: the spec names stable again, and there is no new outcome."""
    fail(serving)
    serving.settle()
    assert serving.status.phase == "Aborted"
    serving.put("1")
    serving.passes()
    serving.later(600)
    assert (serving.status.phase, serving.condition("Ready")) == ("Promoted", "True/Serving")
    assert serving.due == []
    assert serving.condition() == "True/OutcomeRecorded"


def test_a_record_that_is_applied_is_no_rollout(serving: Story) -> None:
    """The commit of the record changes lastGood in the spec, and nothing else."""
    epoch = serving.status.epoch
    rollout = {**make_spec().to_manifest()["rollout"]}
    rollout["lastGood"] = {"uri": "https://models/fraud/1.onnx", "version": "1"}
    serving.put("1", rollout=rollout)
    serving.passes()
    serving.later(600)
    assert (serving.status.epoch, serving.due) == (epoch, [])


def test_a_bad_version_that_is_committed_again_is_not_reverted_again(serving: Story) -> None:
    """Somebody, or an automation, insists: the object is stalled, and git is left to them."""
    fail(serving)
    serving.settle()
    serving.put("1")
    serving.passes()
    serving.put("2")
    serving.passes()
    serving.later(600)
    assert serving.condition("Stalled") is not None
    assert serving.due == []


def test_a_failure_that_was_asked_for_again_is_an_outcome_again(serving: Story) -> None:
    """A retry is a rollout of its own, with an epoch of its own."""
    bad = fail(serving)
    serving.settle()
    serving.scenario = replace(serving.scenario, commands={"retry": "alice 1"})
    serving.passes()
    serving.later(300)
    assert serving.outcomes == ["RolledBack 2"]
    assert bad in {f.revision for f in serving.status.failed_revisions}


def test_an_abort_is_a_rollback_and_a_superseded_canary_is_none(serving: Story) -> None:
    """What somebody aborts is taken back in git; what the spec has left behind is in git already."""
    serving.put("2")
    serving.passes()
    serving.put("3")
    serving.passes()
    assert serving.due == []
    serving.scenario = replace(serving.scenario, commands={"abort": "alice 1"})
    serving.passes()
    assert serving.outcomes == ["RolledBack 3"]


@pytest.mark.parametrize(
    ("gitops", "outcomes"),
    [
        (None, None),
        ({**GITOPS, "onPromotion": "Nothing"}, ["RolledBack 2"]),
        ({**GITOPS, "onRollback": "Nothing"}, ["Deployed 1"]),
    ],
    ids=["off", "rollbacks alone", "promotions alone"],
)
def test_only_what_is_asked_for_is_noted(
    gitops: dict[str, Any] | None, outcomes: list[str] | None
) -> None:
    """Without spec.gitops, the status has nothing of it."""
    story = Story(gitops)
    story.passes()
    fail(story)
    found = story.outcomes if story.status.gitops is not None else None
    assert outcomes == found


def test_a_failure_is_said_in_the_condition_and_holds_nothing(serving: Story) -> None:
    """The next rollout goes on and is noted after it; when git takes them, the condition is true again."""
    fail(serving)
    assert serving.status.gitops is not None
    epoch = serving.status.gitops.due[0].epoch
    failed = Failed(reason=Reason.GIT_REFUSED, message="main is protected")
    serving.passes({epoch: failed})
    assert serving.condition() == "False/GitRefused"
    assert serving.condition("Stalled") == "True/AnalysisFailed"
    serving.put("3")
    serving.passes()
    serving.later(900)
    assert serving.status.phase in ("Promoted", "Promoting")
    assert serving.outcomes == ["RolledBack 2", "Promoted 3"]
    assert serving.condition() == "False/GitRefused"
    serving.settle()
    assert serving.condition() == "True/OutcomeRecorded"
    assert serving.status.gitops is not None
    assert [w.commit for w in serving.status.gitops.written] == ["c0ffee"] * 3


def test_events_are_named_by_epoch_and_reason(serving: Story) -> None:
    """Failures are told while they last, settled outcomes for ten minutes."""
    fail(serving)
    assert serving.status.gitops is not None
    epoch = serving.status.gitops.due[0].epoch
    serving.passes({epoch: Failed(reason=Reason.GIT_UNREACHABLE, message="no route")})
    told = announcements(serving.status, serving.scenario.now)
    assert [(e, reason, warning) for e, reason, _, warning, _ in told] == [
        (2, "OutcomeRecorded", False),
        (epoch, "GitUnreachable", True),
    ]
    serving.settle()
    serving.scenario = serving.scenario.later(1200)
    assert announcements(serving.status, serving.scenario.now) == ()


def test_what_waits_and_what_is_kept_has_a_bound(serving: Story) -> None:
    """Git is away for long: the oldest outcomes are given up, and the condition says how many."""
    for version in range(2, 3 + MAX_DUE):
        fail(serving, str(version))
    assert len(serving.due) == MAX_DUE
    condition = next(c for c in serving.status.conditions if c.type == "OutcomeRecorded")
    assert "1 older ones were given up" in condition.message
    serving.settle()
    assert serving.status.gitops is not None
    assert len(serving.status.gitops.written) == MAX_WRITTEN


def test_the_commit_that_asked_is_remembered(serving: Story) -> None:
    """It is learned at the start of a rollout, and still known at its end."""
    revision = serving.put("2")
    serving.passes(source=SourceCommit(revision=revision, commit="c0ffee"))
    serving.later(900)
    assert serving.status.gitops is not None
    assert serving.status.gitops.source == SourceCommit(revision=revision, commit="c0ffee")


def test_news_of_what_is_not_due_is_no_news(serving: Story) -> None:
    """An answer that arrives twice, or late, changes nothing."""
    before = serving.status
    serving.passes({99: Settled(commit="x")})
    assert before == serving.status


def test_news_travels_through_the_log_of_decisions() -> None:
    """A replay hears what the pass heard."""
    news = News(
        answers={
            7: Settled(commit="c0ffee", branch="main", link="https://x", message="m"),
            9: Failed(reason=Reason.GIT_REFUSED, message="no"),
        },
        source=SourceCommit(revision="r", commit="c"),
    )
    assert news == news_from_json(json.loads(json.dumps(news_to_json(news))))
    assert news_from_json(news_to_json(None)) is None


@pytest.mark.parametrize(
    ("gitops", "rollout", "fields"),
    [
        (GITOPS, {}, []),
        ({"url": GITOPS["url"]}, {}, ["spec.gitops.manifest"]),
        ({"url": GITOPS["url"], "onRollback": "Nothing"}, {}, []),
        ({**GITOPS, "url": "ssh://git@h/p"}, {}, ["spec.gitops.secret"]),
        (
            GITOPS,
            {"fixed": {"versions": [{"name": "a", "weight": 9, "model": {"uri": "https://m/9"}}]}},
            ["spec.gitops"],
        ),
    ],
)
def test_contradictions_are_named(
    gitops: dict[str, Any], rollout: dict[str, Any], fields: list[str]
) -> None:
    """As the CRD's rules do, where there is no API server."""
    changes = {"rollout": rollout} if rollout else {}
    spec = make_spec("1", gitops=gitops, **changes)
    found = [p.field for p in validation.validate(spec) if "gitops" in p.field]
    assert fields == found


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://user:pass@h/p"},
        {"url": "http://h/p"},
        {"url": "file:///srv/models.git"},
        {"manifest": "../fraud.yaml"},
        {"manifest": "/etc/fraud.yaml"},
        {"manifest": ".git/config.yaml"},
        {"branch": "-x"},
        {"forge": {"kind": "GitHub", "project": "../..", "secret": "s"}},
    ],
)
def test_what_a_spec_may_not_name_is_refused(changes: dict[str, Any]) -> None:
    """Passwords in URLs, plain http, paths that lead out of the repository, words that read as options."""
    raw = make_spec().to_manifest() | {"gitops": {**GITOPS, **changes}}
    found = validation.parse_spec(raw)
    assert isinstance(found, list)
    assert found[0].field.startswith("spec.gitops")
