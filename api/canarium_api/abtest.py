"""`spec.rollout.abTest`: two versions side by side until the data say which is better."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.matching import CookieMatch, HeaderMatch, KeySource


class OnWinner(StrEnum):
    """What happens when the new version is better."""

    HOLD = "Hold"
    """Nothing: the traffic stays as it is until somebody decides."""
    PROMOTE = "Promote"
    """It gets all the traffic, with the checks of the analysis, and becomes stable."""


class OnLoser(StrEnum):
    """What happens when the new version is not better."""

    HOLD = "Hold"
    """Nothing: the traffic stays as it is until somebody decides."""
    ABORT = "Abort"
    """It is taken back."""


class AbTestSpec(ApiModel):
    """Give some users the new version (B), the others the stable one (A), and test which does better.

    Exactly one of `header`, `cookie` and `sticky` says who gets B.
    """

    model_config = rules(
        (
            "[has(self.header), has(self.cookie), has(self.sticky)].filter(x, x).size() == 1",
            "abTest takes exactly one of header, cookie and sticky: say who gets the new version in one way",
        ),
        (
            "self.goals.all(g, self.goals.exists_one(o, o == g))",
            "abTest.goals must be unique: remove the repeated name",
        ),
    )

    header: HeaderMatch | None = None
    """Requests with this header get B."""
    cookie: CookieMatch | None = None
    """Requests with this cookie get B."""
    sticky: KeySource | None = None
    """A share of the users gets B, chosen by a hash of the key that their requests carry: each user always gets the
    same version. Requests without the key get A."""
    share: int = Field(default=50, ge=1, le=99)
    """Percent of the users that get B by `sticky`. It may be raised and lowered while the test runs: raising it moves
    users from A to B only. With `header` and `cookie`, percent of the traffic that B is given pods for."""
    goals: list[str] = Field(min_length=1, max_length=5)
    """Names of checks of `analysis.metrics` that decide the test: each is B better, worse, or no different? All other
    checks guard it: a B that fails one is taken back, as in any rollout."""
    min_duration: Duration = timedelta(hours=24)
    """Least time before the test concludes that B is better, or no different: the hours of a day differ. A B that is
    worse is found before it too."""
    max_duration: Duration = timedelta(days=14)
    """Longest time; then the test concludes that nothing was decided."""
    on_winner: OnWinner = OnWinner.HOLD
    """What happens when B is better."""
    on_loser: OnLoser = OnLoser.ABORT
    """What happens when B is worse."""
    on_undecided: OnLoser = OnLoser.HOLD
    """What happens when B is no different, or when `maxDuration` is over."""
