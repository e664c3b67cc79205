"""`canarium status`: what it prints of an A/B test."""

import io
from datetime import UTC, datetime

from rich.console import Console

from canarium_api.experiment import ExperimentStatus, GoalStatus, GoalVerdict
from canarium_api.status import ModelDeploymentStatus, RolloutStatus
from canarium_cli.status import show

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)


def test_the_goals_of_an_ab_test_are_shown() -> None:
    """Each with its verdict, both values, effect, interval and the requests that it rests on."""
    goal = GoalStatus(
        name="orders",
        verdict=GoalVerdict.BETTER,
        value=0.0431,
        baseline=0.0409,
        effect=0.0022,
        interval=[0.0011, 0.0033],
        p_value=0.004,
        samples=41210,
        baseline_samples=164800,
    )
    experiment = ExperimentStatus(
        assignment="a share of the users by the header x-user-id",
        share=20,
        started_at=NOW,
        goals=[goal],
        verdict=GoalVerdict.BETTER,
        concluded_at=NOW,
    )
    rollout = RolloutStatus(
        strategy="abTest", steps=2, weights=[20, 100], started_at=NOW, experiment=experiment
    )
    status = ModelDeploymentStatus(rollout=rollout)
    body = {
        "metadata": {"namespace": "ml", "name": "offers", "generation": 1},
        "status": status.to_manifest(),
    }
    console = Console(file=io.StringIO(), width=160)
    show(body, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "A/B test: 20%: a share of the users by the header x-user-id; Better since" in printed
    for word in ("orders", "0.0431", "0.0409", "0.0011 to 0.0033", "0.004", "41210, 164800"):
        assert word in printed
