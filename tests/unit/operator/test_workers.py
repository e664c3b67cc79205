"""Workers of batch jobs: their objects, whose they are, and how many."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from canarium_api.jobs_config import REDIS_FILE, STABLE_FILE, WEBHOOK_FILE, JobsConfig
from canarium_api.metric_names import JOBS_QUEUE_LENGTH
from canarium_api.runtime_config import RuntimeConfig
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import naming, workers
from canarium_operator.core.diff import Apply, Delete, Scale, diff
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.resources.service import make_service
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.core.rollout.queries import Query, Series, Vector
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.core.workers import JobsPlan, Resize, Seen
from canarium_operator.errors import MetricSourceError
from canarium_operator.sizing import Sizing
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.metrics import FakeMetrics
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOBS: dict[str, Any] = {
    "redis": {"name": "redis", "key": "url"},
    "webhookSecret": {"name": "hooks", "key": "signing"},
    "privateNetworks": ["10.0.0.0/8"],
    "workers": {"min": 2, "max": 10, "targetQueueLength": 8},
}


def make_spec(version: str = "1", jobs: dict[str, Any] | None = JOBS) -> ModelDeploymentSpec:
    serving = {"jobs": jobs} if jobs is not None else {}
    return ModelDeploymentSpec.from_manifest(
        model_deployment(version=version, serving=serving)["spec"]
    )


def revision(spec: ModelDeploymentSpec) -> Revision:
    return revision_of(spec, "runtime:1")


OLD, NEW = revision(make_spec("1")), revision(make_spec("2"))


def plan_of(stable: Revision | None = OLD) -> Plan:
    """A plan in which one revision serves and begins jobs."""
    spec = make_spec()
    found = None
    if stable is not None and spec.serving.jobs is not None:
        found = JobsPlan(revision=stable, workers=spec.serving.jobs.workers)
    served = stable or OLD
    return Plan(
        ref=REF,
        spec=spec,
        revisions=(RevisionPlan(revision=served, min_replicas=2, max_replicas=9),),
        weights={served.name: 100},
        jobs=found,
    )


def objects_of_jobs(plan: Plan) -> dict[str, Manifest]:
    return {
        child["kind"]: child
        for child in desired_children(plan)
        if naming.JOBS_LABEL in child["metadata"]["labels"]
    }


def test_workers_run_the_model_of_their_revision_and_read_secrets_as_files() -> None:
    """They have all settings in the pod, and no secret in any manifest."""
    found = objects_of_jobs(plan_of())
    pod = found["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert RuntimeConfig.from_env(environment).revision == OLD.name
    config = JobsConfig.from_env(environment)
    assert (config.redis_url_file, config.webhook_secret_file) == (REDIS_FILE, WEBHOOK_FILE)
    assert (config.stable_file, config.private_networks) == (STABLE_FILE, "10.0.0.0/8")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = {v["name"]: v["secret"] for v in pod["spec"]["volumes"] if "secret" in v}
    for name, secret, key, file in (
        ("jobs-redis", "redis", "url", REDIS_FILE),
        ("jobs-webhook", "hooks", "signing", WEBHOOK_FILE),
    ):
        assert secrets[name]["secretName"] == secret
        (item,) = secrets[name]["items"]
        assert (item["key"], f"{mounts[name]}/{item['path']}") == (key, file)
    assert found["ConfigMap"]["data"] == {"revision": OLD.name}
    assert f"{mounts['jobs-stable']}/revision" == STABLE_FILE
    assert "replicas" not in found["Deployment"]["spec"]


def test_servers_know_of_jobs_and_only_of_the_queue_they_have_the_secret() -> None:
    """The secret that signs webhooks is the workers' alone."""
    children = [
        c for c in desired_children(plan_of()) if naming.JOBS_LABEL not in c["metadata"]["labels"]
    ]
    data = next(c["data"] for c in children if c["kind"] == "ConfigMap")
    config = JobsConfig.from_env(data)
    assert (config.redis_url_file, config.webhook_secret_file) == (REDIS_FILE, WEBHOOK_FILE)
    pod = next(c for c in children if c["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v] == ["redis"]


def test_without_jobs_nothing_of_them_is_there() -> None:
    """Neither objects nor settings."""
    spec = make_spec(jobs=None)
    planned = RevisionPlan(revision=revision(spec), min_replicas=1, max_replicas=1)
    text = json.dumps(desired_children(Plan(ref=REF, spec=spec, revisions=(planned,))))
    assert "jobs" not in text.lower()


def test_no_traffic_finds_a_worker() -> None:
    """No Service selects its pods, and they are no pods of the revision."""
    labels = objects_of_jobs(plan_of())["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        make_service(REF, OLD)["spec"]["selector"],
        naming.any_revision_selector(REF),
        naming.revision_selector(REF, OLD.name),
    ]
    for selector in selectors:
        assert not selector.items() <= labels.items()
    pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": "ml", "labels": labels}}
    observed = observe([pod, *objects_of_jobs(plan_of()).values()], make_spec())
    assert (observed.workloads, observed.strays, observed.notes) == ({}, frozenset(), ())


def test_the_number_of_workers_is_no_new_revision_and_what_the_servers_are_told_is() -> None:
    """Bounds change in place."""
    more = {**JOBS, "workers": {"max": 50}}
    assert revision(make_spec(jobs=more)).name == OLD.name
    assert revision(make_spec(jobs={**JOBS, "maxRows": 5})).name != OLD.name
    assert revision(make_spec(jobs=None)).name != OLD.name


@pytest.mark.parametrize(
    ("stable", "spec", "expected", "most"),
    [
        (OLD, make_spec("2"), OLD.name, 10),
        (OLD, make_spec(jobs=None), OLD.name, 10),
        (OLD, make_spec(jobs={**JOBS, "workers": {"max": 3}}), OLD.name, 3),
        (revision(make_spec(jobs=None)), make_spec(), None, 0),
        (None, make_spec(), None, 0),
    ],
)
def test_the_stable_revision_begins_jobs_if_it_takes_them(
    stable: Revision | None, spec: ModelDeploymentSpec, expected: str | None, most: int
) -> None:
    """Not the canary's, and with the bounds that the spec has now."""
    raw = {"stable": {"revision": stable.name, "modelVersion": "1"}} if stable is not None else {}
    status = ModelDeploymentStatus.from_manifest(raw)
    found = workers.jobs(spec, status, {stable.name: stable} if stable is not None else {})
    assert (found.revision.name if found is not None else None) == expected
    assert (found.workers.max if found is not None else 0) == most


def live(plan: Plan, replicas: int) -> list[Manifest]:
    """The objects of jobs as the API server has them."""
    found = list(objects_of_jobs(plan).values())
    for child in found:
        child["metadata"]["uid"] = f"uid-{child['metadata']['name']}"
        if child["kind"] == "Deployment":
            child["spec"]["replicas"] = replicas
    return found


@pytest.mark.parametrize(
    ("before", "after", "replicas", "changes"),
    [
        (OLD, OLD, 5, []),
        (OLD, OLD, 1, [("Scale", "Deployment")]),
        (
            OLD,
            NEW,
            5,
            [("Apply", "ConfigMap"), ("Apply", "Deployment"), ("Scale", "Deployment")],
        ),
        (
            OLD,
            NEW,
            0,
            [
                ("Apply", "ConfigMap"),
                ("Apply", "Deployment"),
                ("Scale", "Deployment"),
                ("Delete", "Deployment"),
            ],
        ),
        (OLD, None, 5, [("Delete", "ConfigMap")]),
        (OLD, None, 0, [("Delete", "Deployment"), ("Delete", "ConfigMap")]),
    ],
)
def test_workers_of_an_earlier_revision_go_when_nothing_is_left_for_them(
    before: Revision, after: Revision | None, replicas: int, changes: list[tuple[str, str]]
) -> None:
    """They are deleted when they have been scaled to none, not before; the minimum is there at once."""
    plan = plan_of(after)
    found = diff(plan, desired_children(plan), live(plan_of(before), replicas))
    of_jobs = [c for c in found if naming.JOBS_LABEL in c.manifest["metadata"]["labels"]]
    assert [(type(c).__name__, c.manifest["kind"]) for c in of_jobs] == changes
    for change in of_jobs:
        assert isinstance(change, Apply | Scale | Delete)
        if isinstance(change, Scale):
            assert change.replicas == 2


def answer(**lengths: float) -> tuple[Series, ...]:
    names = {"old": OLD.name, "new": NEW.name}
    return tuple(
        Series(labels={"deployment": "ml/fraud", "revision": names[n]}, value=value)
        for n, value in lengths.items()
    )


def sizes(
    objects: list[Manifest],
    told: tuple[Series, ...] | None,
    memory: workers.Memory | None = None,
    now: datetime = NOW,
) -> tuple[list[int], workers.Memory]:
    found = workers.assess(objects, told, memory or {}, now)
    assert all(isinstance(change, Resize) for change in found.changes)
    return [change.replicas for change in found.changes], found.memory


@pytest.mark.parametrize(
    ("current", "length", "wanted"),
    [
        (2, 0, []),
        (2, 16, []),
        (2, 17, [3]),
        (2, 20, [3]),
        (2, 1000, [10]),
        (0, 0, [2]),
        (12, 0, [10]),
        (5, float("nan"), []),
    ],
)
def test_workers_follow_the_queue_within_their_bounds(
    current: int, length: float, wanted: list[int]
) -> None:
    """Up at once: 20 chunks and a target of 8 need 3 workers."""
    assert sizes(live(plan_of(), current), answer(old=length))[0] == wanted


@pytest.mark.parametrize("told", [None, (), answer(new=100)])
def test_no_data_is_no_reason_to_change_a_size(told: tuple[Series, ...] | None) -> None:
    """Whether Prometheus does not answer, or knows nothing of them."""
    assert sizes(live(plan_of(), 5), told)[0] == []


def test_workers_are_removed_when_none_was_needed_for_five_minutes() -> None:
    """A moment that needs more begins the wait anew, for as many as it needed."""
    objects, memory = live(plan_of(), 8), {}
    seen = []
    for second in range(0, 900, 15):
        length = 40 if second == 150 else 64 if second == 0 else 0
        wanted, memory = sizes(objects, answer(old=length), memory, NOW + timedelta(seconds=second))
        if wanted:
            seen.append((second, wanted[0]))
            objects = live(plan_of(), wanted[0])
        assert len(next(iter(memory.values())).needed) <= 10
    assert seen == [(300, 5), (450, 2)]


@pytest.mark.parametrize(
    ("told", "heard_ago", "wanted"),
    [
        (answer(old=3), timedelta(0), []),
        (answer(old=0), timedelta(0), [0]),
        ((), timedelta(minutes=9), []),
        ((), timedelta(minutes=11), [0]),
        (None, timedelta(minutes=11), []),
    ],
)
def test_workers_of_an_earlier_revision_stay_until_their_queue_is_empty(
    told: tuple[Series, ...] | None, heard_ago: timedelta, wanted: list[int]
) -> None:
    """Or until nothing was heard of them for so long that others have taken their jobs over."""
    objects = live(plan_of(NEW), 2) + [
        c for c in live(plan_of(OLD), 5) if c["kind"] == "Deployment"
    ]
    key = ("ml", naming.workers_name("fraud", OLD.name))
    memory = {key: Seen(heard_at=NOW - heard_ago)}
    assert sizes(objects, told, memory)[0] == wanted


async def test_the_loop_scales_what_it_finds_and_asks_nothing_without_workers() -> None:
    """One query for all; an outage of Prometheus changes nothing."""
    cluster, clock = FakeCluster(), FakeClock()
    length = 1000.0

    def reply(query: Query) -> Vector:
        assert query.promql == f"max by (deployment, revision) ({JOBS_QUEUE_LENGTH})"
        return answer(old=length)

    metrics = FakeMetrics(reply)
    sizing = Sizing(cluster, metrics, clock)
    await sizing.once()
    assert metrics.queries == []
    body = cluster.put(model_deployment(namespace="ml", serving={"jobs": JOBS}))
    ref = replace(REF, uid=body["metadata"]["uid"])
    for child in objects_of_jobs(replace(plan_of(), ref=ref)).values():
        await cluster.apply(child)
    await sizing.once()
    name = naming.workers_name("fraud", OLD.name)

    def replicas() -> int:
        found = cluster.find("Deployment", "ml", name)
        assert found is not None
        return int(found["spec"]["replicas"])

    assert replicas() == 10
    metrics.outage = "connection refused"
    with pytest.raises(MetricSourceError):
        await sizing.once()
    assert replicas() == 10
    metrics.outage = None
    cluster.remove("Deployment", "ml", name)
    await sizing.once()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        (
            {"privateNetworks": ["10.0.0.1/8"]},
            "spec.serving.jobs.privateNetworks[0]",
            "has host bits set: write the network's own address",
        ),
        (
            {"workers": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}},
            "spec.serving.jobs.workers.resources.requests.cpu",
            "2 is above the limit of 1",
        ),
    ],
)
def test_jobs_that_cannot_be_carried_out_are_refused(
    changes: dict[str, Any], field: str, words: str
) -> None:
    """With the field and the remedy."""
    parsed = parse_spec(model_deployment(serving={"jobs": {**JOBS, **changes}})["spec"])
    assert isinstance(parsed, ModelDeploymentSpec)
    (problem,) = validate(parsed)
    assert (problem.field, words in problem.message) == (field, True)


def test_jobs_need_one_stable_revision() -> None:
    """Fixed versions have none."""
    fixed = {"fixed": {"versions": [{"name": "b", "weight": 50, "model": {"uri": "https://h/b"}}]}}
    body = model_deployment(serving={"jobs": JOBS}, rollout=fixed)
    parsed = parse_spec(body["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    assert "spec.serving.jobs" in [problem.field for problem in validate(parsed)]
