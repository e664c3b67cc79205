"""`spec.rollout`: how a new revision takes over from the stable one.

At most one strategy is named: `canary` (the default), `blueGreen`, `abTest` or `fixed`. `shadow` comes before the
steps of any of them but `fixed`.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from canarium_api.abtest import AbTestSpec
from canarium_api.analysis import AnalysisSpec
from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.fixed import FixedSpec
from canarium_api.gitops import ReleaseRecord
from canarium_api.golden import GoldenSpec
from canarium_api.matching import HeaderMatch
from canarium_api.patterns import VERSION_PATTERN
from canarium_api.pinned import PinnedModel, digest_with_http
from canarium_api.shadow import ShadowSpec
from canarium_api.status import MAX_STEPS


class CanaryStep(ApiModel):
    """One step: a share of the traffic, and how long it must hold before the gate decides."""

    weight: int = Field(ge=1, le=100)
    """Percent of the traffic that goes to the canary."""
    pause: Duration = timedelta(minutes=5)
    """Least time at this weight; days are fine. The gate may hold it longer, never shorter."""
    approval: bool = False
    """The step ends only when somebody has approved it, besides pause and gate."""
    metrics: list[str] | None = Field(default=None, max_length=20)
    """Names of the checks that this step is gated on. Default: all. An empty list: none."""


DEFAULT_STEPS = [CanaryStep(weight=w) for w in (1, 5, 10, 25, 50, 100)]


class CanarySpec(ApiModel):
    """Move traffic step by step."""

    model_config = rules(
        (
            "self.steps.size() < 2 || [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19].all(i, "
            "i >= self.steps.size() || self.steps[i].weight > self.steps[i-1].weight)",
            "canary.steps[].weight must rise from step to step: reorder the steps or remove the repeated weight",
        ),
    )

    steps: list[CanaryStep] = Field(default=DEFAULT_STEPS, min_length=1, max_length=20)
    """Weights in rising order. After the last step passes, the canary becomes stable."""
    max_duration: Duration | None = None
    """Longest time from start to promotion; a canary that takes longer is taken back. Time in which the rollout is
    paused, or waits for an approval, counts. Default: no limit.
    """


class SwitchCheck(ApiModel):
    """What is asked before, or after, the switch of a blue-green rollout."""

    pause: Duration = timedelta(minutes=1)
    """Least time before the decision."""
    approval: bool = False
    """Wait for an approval, besides pause and checks."""
    metrics: list[str] | None = Field(default=None, max_length=20)
    """Names of the checks that must pass. Default: before the switch none, since the new colour has no traffic of
    users yet; after it all."""


class BlueGreenSpec(ApiModel):
    """Bring the new colour to full size without traffic, check it, switch all at once, keep the old one a while."""

    preview_header: HeaderMatch = HeaderMatch(name="x-canarium-preview", value="true")
    """Requests with this header reach the new colour before the switch. So does the Service `NAME-preview`."""
    before_switch: SwitchCheck = SwitchCheck(metrics=[])
    """What must be true before the switch."""
    after_switch: SwitchCheck = SwitchCheck(pause=timedelta(minutes=5))
    """What must be true after it, or the old colour gets the traffic back."""
    keep_for: Duration = timedelta(minutes=15)
    """How long the old colour keeps its full size after the new one is promoted: until then, naming it again in
    `spec.model` is an instant way back."""


class Weekday(StrEnum):
    """Days of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


class FreezeWindow(ApiModel):
    """A time in which no rollout starts and none moves on. A bad canary is taken back all the same."""

    model_config = rules(
        (
            "has(self.start) == has(self.end) && has(self.from) == has(self.to) && has(self.start) != has(self.from)",
            "freezes[] takes either start and end (two instants), or from and to (times of day, with days)",
        ),
    )

    reason: str = Field(default="", max_length=200)
    """Shown while it holds: `end-of-year sale`."""
    start: datetime | None = None
    """A single window: its beginning."""
    end: datetime | None = None
    """A single window: its end."""
    days: list[Weekday] = Field(default=[], max_length=7)
    """A repeated window: the days on which it begins. Default: all."""
    from_: str | None = Field(default=None, alias="from", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """A repeated window: time of day at which it begins, `18:00`."""
    to: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """A repeated window: time of day at which it ends; on the next day where it is not after `from`."""
    time_zone: str = Field(default="UTC", max_length=64, pattern=r"^[A-Za-z0-9_+\-/]+$")
    """Time zone of `from` and `to`, such as `Europe/Berlin`."""


class Approval(ApiModel):
    """A consent that is part of the desired state."""

    version: str = Field(min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Model version that it is for, so that it approves nothing else."""
    step: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Number of the step, from 1. Default: all steps."""
    by: str = Field(default="", max_length=253)
    """Who approves, for the history."""


class WebhookGate(ApiModel):
    """An outside system that must agree.

    Canarium sends a POST with the rollout as JSON. 200 with `{"approved": true}` lets the step end,
    `{"approved": false, "message": "..."}` holds it, and `{"abort": true, "message": "..."}` takes the canary back.
    Anything else holds, and is asked again at the next interval.
    """

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name in status and events."""
    url: str = Field(min_length=1, max_length=2048, pattern=r"^https?://[^/@\s]+(/\S*)?$")
    """Where to ask. Without credentials: these come from `secret`."""
    secret: str | None = Field(default=None, min_length=1, max_length=253)
    """Name of a Secret in the same namespace whose key `token` is sent as a bearer token."""
    timeout: Duration = timedelta(seconds=5)
    """Longest wait for an answer."""
    steps: list[int] | None = Field(default=None, max_length=MAX_STEPS)
    """Numbers of the steps, from 1, that it is asked at. Default: all."""


class NotificationEvent(StrEnum):
    """What a notification may be about."""

    FAILED = "Failed"
    """A canary was taken back, or nothing more happens until somebody acts."""
    PROMOTED = "Promoted"
    """A revision became stable."""
    STARTED = "Started"
    """A rollout began."""
    APPROVAL = "Approval"
    """A step waits for an approval, or an A/B test has a result."""
    ALL = "All"
    """Every transition."""


class NotificationFormat(StrEnum):
    """Shape of the message."""

    SLACK = "slack"
    """A Slack incoming webhook, or what understands the same (Mattermost, Rocket.Chat)."""
    GENERIC = "generic"
    """A JSON document with every fact as a field."""


class Notification(ApiModel):
    """Where to say what happened."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name in status and logs."""
    format: NotificationFormat = NotificationFormat.SLACK
    """Shape of the message."""
    secret: str = Field(min_length=1, max_length=253)
    """Name of a Secret in the same namespace whose key `url` is the webhook's URL: whoever knows it can post. Its key
    `token`, if there is one, is sent as a bearer token."""
    events: list[NotificationEvent] = Field(default=[NotificationEvent.FAILED], max_length=5)
    """What is sent. Default: failures."""
    link: str = Field(default="", max_length=2048)
    """A link for the message, such as a dashboard's; `{{namespace}}` and `{{name}}` are replaced."""


class SchemaChange(StrEnum):
    """What happens to a revision whose inputs or outputs differ from stable's so that clients break."""

    REFUSE = "Refuse"
    """It gets no traffic."""
    ALLOW = "Allow"
    """It is rolled out all the same."""


class CapacitySpec(ApiModel):
    """How much traffic a pod can take, so that no weight moves onto too few of them."""

    requests_per_second: float | None = Field(default=None, gt=0)
    """Requests that one pod answers in a second at full load. With it, no weight moves before the canary's ready pods
    can take their share of the present traffic, and the stable revision keeps pods for all of it. Default: unknown;
    then stable's own pods are the measure, of which its autoscaler keeps as many as the traffic needs."""
    headroom: float = Field(default=1.2, ge=1, le=10)
    """Ready pods must cover the traffic times this; only with `requestsPerSecond`."""


class ReadyWhen(StrEnum):
    """When a rollout counts as ready: what the condition `Ready`, and so Flux, Argo CD and `kubectl wait`, wait for.

    None of them is ever Ready while no good revision serves, or while the revision of the spec is being taken back or
    has failed.
    """

    PROMOTED = "Promoted"
    """The revision of the spec serves all the traffic, and what it has replaced is gone."""
    STEP_REACHED = "StepReached"
    """The rollout carries the traffic of the step `readyStep`, or of a later one: all steps before it have passed."""
    ADMITTED = "Admitted"
    """The spec is valid, nothing of it was refused, and its rollout has begun, or is held by a pause or a freeze."""


class LastGood(PinnedModel):
    """A revision that is known to be good, for a cluster that knows nothing yet."""

    model_config = rules(digest_with_http("rollout.lastGood"))

    record: ReleaseRecord | None = None
    """What `spec.gitops` wrote of its promotion, where this part comes from that file."""


class RolloutSpec(ApiModel):
    """How a new revision takes over from the stable one."""

    model_config = rules(
        (
            "[has(self.canary), has(self.blueGreen), has(self.abTest), has(self.fixed)].filter(x, x).size() <= 1",
            "rollout takes one of canary, blueGreen, abTest and fixed: remove the others",
        ),
        (
            "!(has(self.shadow) && has(self.fixed))",
            "rollout.shadow comes before a switch of versions, and fixed has none: remove one of the two",
        ),
        (
            "has(self.readyStep) == (has(self.readyWhen) && self.readyWhen == 'StepReached')",
            "rollout.readyStep is the step of readyWhen: StepReached: set both, or neither",
        ),
        (
            "!(has(self.readyStep) && has(self.fixed))",
            "rollout.readyStep names a step, and fixed has none: use readyWhen: Promoted or Admitted",
        ),
    )

    canary: CanarySpec | None = None
    """Steps of the canary. Default, where no other strategy is named: weights 1, 5, 10, 25, 50, 100, five minutes
    each."""
    blue_green: BlueGreenSpec | None = None
    """Switch all traffic at once."""
    ab_test: AbTestSpec | None = None
    """Give some users the new version until the data say which is better."""
    fixed: FixedSpec | None = None
    """Serve several versions for good, each with a weight of its own."""
    shadow: ShadowSpec | None = None
    """Before the first step, compare the answers of both versions on copies of users' requests."""
    validation: GoldenSpec | None = None
    """Before any traffic, a Job runs the canary's model over golden data; one that misses a threshold is taken back.
    Golden data that cannot be read hold the canary. Not for the first revision, and not on the way back to a revision
    that was good."""
    analysis: AnalysisSpec = AnalysisSpec()
    """What each step is gated on."""
    paused: bool = False
    """While true, no rollout starts and none moves on; a bad canary is taken back all the same."""
    approvals: list[Approval] = Field(default=[], max_length=20)
    """Consents to steps with `approval: true`, where these are given in git."""
    freezes: list[FreezeWindow] = Field(default=[], max_length=20)
    """Times in which no rollout starts and none moves on."""
    gates: list[WebhookGate] = Field(default=[], max_length=5)
    """Outside systems that must agree to the end of each step."""
    notifications: list[Notification] = Field(default=[], max_length=5)
    """Where to say what happened."""
    rollback_window: int = Field(default=3, ge=0, le=20)
    """Going back to one of this many revisions that were stable last is done at once, without steps. 0: never."""
    schema_change: SchemaChange = SchemaChange.REFUSE
    """What happens when the new model's inputs or outputs break clients of the old one."""
    capacity: CapacitySpec = CapacitySpec()
    """Traffic that pods can take."""
    last_good: LastGood | None = None
    """Where the object is new and nothing serves yet, this revision comes up first, and `spec.model` follows as a
    canary. It has the `serving` of the spec. What the cluster itself remembers of an earlier object of this name comes
    before it."""
    progress_deadline: Duration = timedelta(minutes=10)
    """How long pods of a new revision may take to become ready, and a route to be accepted, before the
    revision is given up.
    """
    ready_when: ReadyWhen = ReadyWhen.PROMOTED
    """When a rollout counts as ready (condition `Ready`), for what waits for that: with a canary that lasts days, a
    pipeline would run out of time. The first revision of an object counts when it serves, whatever this says."""
    ready_step: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    """Number of the step, from 1, for `readyWhen: StepReached`. A shadow is step 1, where there is one. A rollout with
    fewer steps (a way back, a `promote`) counts from its last step on."""
    scale_down_delay: Duration = timedelta(seconds=30)
    """How long a revision that no longer gets traffic keeps its pods, so that requests under way finish."""
