"""Counts of broken rules, for `ml_validation_violations_total`."""

from canarium_api.metric_names import RuleKind, ViolationOutcome

Tally = dict[tuple[RuleKind, ViolationOutcome], int]


def new_tally() -> Tally:
    """Make the counts, all 0."""
    return {(kind, outcome): 0 for kind in RuleKind for outcome in ViolationOutcome}
