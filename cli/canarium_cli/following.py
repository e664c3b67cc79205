"""What becomes of a rollout that is watched: when the watch ends and how, and what is new. Pure.

The rules of `judge`, in order: a status of an earlier spec says nothing; what is stalled has failed; the revision that
was seen first as the one of the spec is the one that is meant, so that a later commit never passes for it, and it is
promoted as soon as it is stable, though the old one drains; then the goal.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from canarium_api.status import Check, ModelDeploymentStatus, Phase, Verdict
from canarium_cli.rendering.listing import condition, is_seen

REACHED: Final = 0
TAKEN_BACK: Final = 1
USAGE: Final = 2
TIMED_OUT: Final = 3
LOST: Final = 4
TREND: Final = 40
"""Values of a check that are kept for its sparkline."""
QUIET: Final = timedelta(seconds=60)
"""After so long without news, the message is said again: a pipeline that says nothing looks dead."""


class Aim(StrEnum):
    """What a watch waits for."""

    PROMOTED = "promoted"
    PAUSED = "paused"
    READY = "ready"
    STEP = "step"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a watch waits for."""

    aim: Aim = Aim.PROMOTED
    step: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `promoted`, `paused`, `ready`, `step=N` or `never`.

        Raises:
            ValueError: it is none of them; the message says so.
        """
        word, _, number = text.partition("=")
        if word == Aim.STEP and number.isdecimal() and int(number) >= 1:
            return cls(aim=Aim.STEP, step=int(number))
        if number or word == Aim.STEP or word not in set(Aim):
            msg = f"{text!r} is none of promoted, paused, ready, step=N, never"
            raise ValueError(msg)
        return cls(aim=Aim(word))


@dataclass(frozen=True, kw_only=True)
class End:
    """How a watch ended."""

    code: int
    message: str
    promoted: bool = False
    """The version that was meant is stable."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A ModelDeployment and what belongs to it, as they were seen last."""

    at: datetime
    body: Mapping[str, Any] | None
    """None: it is gone."""
    pods: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> ModelDeploymentStatus:
        """Read the status."""
        return ModelDeploymentStatus.from_manifest((self.body or {}).get("status") or {})


@dataclass(frozen=True, kw_only=True)
class Line:
    """Something new, for who reads line by line."""

    at: datetime
    word: str
    text: str
    warning: bool = False


@dataclass
class Session:
    """A watch: what it waits for, which revision is meant, and what it has seen."""

    goal: Goal = field(default_factory=Goal)
    meant: str = ""
    """The revision whose rollout is watched; empty: not known yet."""
    before: ModelDeploymentStatus | None = None
    trends: dict[str, deque[float]] = field(default_factory=dict)
    last_line_at: datetime | None = None
    _said: dict[str, str] = field(default_factory=dict)
    """What was said last of each check, and of what is waited for: what begins anew with a step is no news."""

    def look(self, snapshot: Snapshot) -> tuple[list[Line], End | None]:
        """Take in what was seen: what is new, and whether the watch ends."""
        if snapshot.body is None:
            return [], End(code=LOST, message="the ModelDeployment was deleted")
        status = snapshot.status
        if is_seen(snapshot.body) and not self.meant:
            self.meant = _revision_under_way(status)
        self._remember(status)
        lines = news(self.before, status, snapshot.at, self._said)
        if self.before is None and not is_seen(snapshot.body):
            lines = [
                replace(line, word="NotSeenYet", text=f"before: {line.text}") for line in lines
            ]
        self._said = said(status, self._said)
        if not lines and self._is_quiet(snapshot.at):
            lines = [Line(at=snapshot.at, word=status.phase, text=status.message)]
        if lines:
            self.last_line_at = snapshot.at
        self.before = status
        return lines, judge(snapshot.body, status, self.goal, self.meant)

    def _is_quiet(self, now: datetime) -> bool:
        return self.last_line_at is not None and now - self.last_line_at >= QUIET

    def _remember(self, status: ModelDeploymentStatus) -> None:
        checks = status.rollout.checks if status.rollout is not None else []
        earlier = self.before.rollout.checks if self.before and self.before.rollout else []
        measured = {check.name: check.measured_at for check in earlier}
        self.trends = {c.name: self.trends.get(c.name, deque(maxlen=TREND)) for c in checks}
        for check in checks:
            if check.value is not None and check.measured_at != measured.get(check.name):
                self.trends[check.name].append(check.value)


def judge(
    body: Mapping[str, Any], status: ModelDeploymentStatus, goal: Goal, meant: str
) -> End | None:
    """Tell whether a watch ends here, and how.

    Args:
        body: the object.
        status: its status.
        goal: what is waited for.
        meant: revision whose rollout is watched; empty: not known.
    """
    if goal.aim is Aim.NEVER or not is_seen(body):
        return None
    if condition(body, "Stalled").get("status") == "True":
        return End(code=TAKEN_BACK, message=status.message)
    stable = status.stable.revision if status.stable is not None else ""
    there = {stable, status.canary.revision if status.canary is not None else ""}
    if meant and meant not in there:
        failed = next((f for f in reversed(status.failed_revisions) if f.revision == meant), None)
        if failed is None:
            words = f"{meant[:8]} gave way to another version before it was promoted"
            return End(code=TAKEN_BACK, message=f"{words}; {status.message}")
        if status.canary is not None:  # another one is under way; this one's end is known
            return End(code=TAKEN_BACK, message=failed.message)
        return None  # it drains; then the object is stalled
    if goal.aim is Aim.READY:
        ready = condition(body, "Ready").get("status") == "True"
        return End(code=REACHED, message=status.message) if ready else None
    if status.phase is Phase.PROMOTED or (meant and meant == stable):
        words = "" if status.phase is Phase.PROMOTED else f"{status.summary.stable} is stable; "
        return End(code=REACHED, message=words + status.message, promoted=True)
    return _on_the_way(status, goal)


def _on_the_way(status: ModelDeploymentStatus, goal: Goal) -> End | None:
    """Tell whether a goal before the promotion is reached."""
    reached = End(code=REACHED, message=status.message)
    rollout = status.rollout
    if goal.aim is Aim.PAUSED and status.phase is Phase.PAUSED:
        return reached
    if goal.aim is Aim.STEP and rollout is not None:
        if goal.step > rollout.steps:
            return End(code=USAGE, message=f"there is no step {goal.step}: it has {rollout.steps}")
        if rollout.step > goal.step or (rollout.step == goal.step and rollout.step_started_at):
            return reached
    return None


def _revision_under_way(status: ModelDeploymentStatus) -> str:
    """Name the revision of the spec; empty where the status does not tell: the stable one may be another."""
    if status.canary is not None:
        return status.canary.revision
    if status.stable is not None and status.phase is Phase.PROMOTED:
        return status.stable.revision
    return ""


def news(
    before: ModelDeploymentStatus | None,
    now: ModelDeploymentStatus,
    at: datetime,
    known: Mapping[str, str],
) -> list[Line]:
    """Say what is new since an earlier status: transitions, verdicts, and what it waits for.

    Args:
        before: the earlier status; None: this is the first.
        now: the present one.
        at: when it was seen.
        known: what was said before, see `said`.
    """
    if before is None:
        return [Line(at=at, word=now.phase, text=now.message or "not seen by the operator yet")]
    lines = []
    last = now.last_transition
    if last is not None and last.epoch > before.epoch:
        missed = last.epoch - before.epoch - 1
        text = last.message + (f" (and {missed} before it)" if missed else "")
        lines.append(Line(at=last.at, word=last.reason, text=text, warning=last.warning))
    checks = now.rollout.checks if now.rollout is not None else []
    told = [check for check in checks if check.verdict is not Verdict.PENDING]
    changed = [check for check in told if known.get(check.name) not in (None, check.verdict)]
    lines += [_verdict(check, at) for check in changed]
    waits = _waits(now)
    if waits and waits != known.get(_WAITS):
        lines.append(Line(at=at, word=waits, text=now.message))
    return lines


_WAITS: Final = ""
"""Key of what is waited for; no check has this name."""


def said(now: ModelDeploymentStatus, known: Mapping[str, str]) -> dict[str, str]:
    """Note what has been said: the verdict of each check, and what is waited for."""
    if now.rollout is None:
        return {}
    found = {
        check.name: known.get(check.name, "") if check.verdict is Verdict.PENDING else check.verdict
        for check in now.rollout.checks
    }
    verdicts = {name: str(verdict) for name, verdict in found.items() if verdict}
    return {**verdicts, _WAITS: _waits(now) or known.get(_WAITS, "")}


def _waits(status: ModelDeploymentStatus) -> str:
    return (status.rollout.blocked_on or "") if status.rollout is not None else ""


def _verdict(check: Check, at: datetime) -> Line:
    bad = check.verdict in ("Fail", "Error") and not check.dry_run
    return Line(at=at, word=check.verdict, text=f"{check.name}: {check.message}", warning=bad)


def timed_out(snapshot: Snapshot, seconds: float) -> End:
    """End a watch for which the goal did not come in time."""
    words = f"not within {seconds:g} s; the rollout goes on"
    return End(code=TIMED_OUT, message=f"{words}. {snapshot.status.message}")


def without_body(snapshot: Snapshot) -> Snapshot:
    """Give a snapshot of an object that is gone."""
    return replace(snapshot, body=None)
