"""One test over all steps of a rollout, from the e-values of each step's own counts.

A canary may be bad from the first step, or only from a weight on at which it is overloaded. The evidence of a rollout
is therefore a mixture over the step in which the harm begins: for each beginning, the product of the e-values of the
steps since. The first step has the weight 1/2, since most bad versions are bad from the start, the second 1/6, the
k-th 1/(k (k + 1)): that falls so slowly that harm on the last day of a week, in the 26th part of a long step, is found
too. The weights never add up to more than 1, however often steps are planned anew, so the mixture is an e-value, and
its inverse a p-value that is valid at every look (Ville 1939; for products and mixtures of e-values: Vovk, Wang,
"E-values: Calibration, combination and applications", Annals of Statistics 49, 2021).
"""

import math
from typing import Final

from canarium_api.evidence import Evidence

CAP: Final = 60.0
"""Logarithms beyond it mean the same, and their exponentials stay within what JSON can write."""
FIRST_SHARE: Final = 0.5
"""Weight of the harm that begins in the first step."""


def share_of_step(evidence: Evidence) -> float:
    """Give the weight of the harm that begins in the present step: 1/k - 1/(k + 1) in the k-th, where 1/k is left."""
    return evidence.rest * evidence.rest / (1 + evidence.rest)


def p_value(evidence: Evidence) -> float:
    """Give the chance to see evidence as strong at any look, if the canary were as good as stable."""
    share = share_of_step(evidence)
    grown = (evidence.carried + share) * math.exp(_capped(evidence.log))
    total = grown + evidence.rest - share
    return min(1.0, 1 / total) if total > 0 else 1.0


def next_step(evidence: Evidence) -> Evidence:
    """Carry the evidence of a step that has ended into the next one."""
    share = share_of_step(evidence)
    carried = (evidence.carried + share) * math.exp(_capped(evidence.log))
    return Evidence(carried=min(carried, math.exp(CAP)), rest=evidence.rest - share, log=0.0)


def _capped(log: float) -> float:
    return max(-CAP, min(CAP, log))
