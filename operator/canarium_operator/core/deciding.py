"""One pass: from what is known to the status that is written.

A transition is followed by something that is waited for. That is said in the same write: a second one for the message
alone would double the requests of a rollout.
"""

from dataclasses import replace
from datetime import timedelta

from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core.outcomes.due import learned, noted
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.inputs import Decision, RolloutInput, with_status
from canarium_operator.core.status import present


def decide(given: RolloutInput) -> tuple[Decision, ModelDeploymentStatus]:
    """Decide, and complete the status.

    Returns:
        The decision, which notes what git shall hear of, and the status with its conditions and messages. After a
        transition these tell of the wait that follows it, where one does. They rest on what was seen before the
        transition was carried out, so the next pass comes at once, and has something to write only where that has
        changed.
    """
    given = with_status(given, learned(given))
    decision = advance(given)
    decision = noted(given, decision)
    if decision.status.epoch == given.status.epoch:
        return decision, present(given, decision)
    # What was measured belongs to the state before the transition.
    after = replace(
        given, status=decision.status, readings={}, gate_answers={}, signatures={}, outcomes=None
    )
    following = advance(after)
    if following.status.epoch > decision.status.epoch:
        return decision, present(given, decision)
    return replace(following, requeue_after=timedelta(0)), present(given, following)
