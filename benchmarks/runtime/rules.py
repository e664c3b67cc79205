"""What the rules of validation cost a request that breaks none: `python -m benchmarks.runtime.rules`.

Prints microseconds of this thread's CPU time for one `Rules.apply`, the best of many short series, since other work on
the machine only ever adds.
"""

import time
import timeit
from typing import Any

import numpy as np

from canarium_api.input_rules import ExpressionRule, FeatureRules, InputRules, ValidationSpec
from canarium_runtime.backends.base import DTYPES
from canarium_runtime.rules.ruleset import Rules
from canarium_runtime.testing import model_spec, tensor
from canarium_runtime.validation import ValidatedInputs

WIDTH = 30


def microseconds(rules: Rules, inputs: ValidatedInputs, repeat: int = 100) -> float:
    """Time one `apply`."""
    number = max(1, 2000 // inputs.rows)
    timer = timeit.repeat(
        lambda: rules.apply(inputs), number=number, repeat=repeat, timer=time.thread_time
    )
    return min(timer) / number * 1e6


def case(spec: ValidationSpec, rows: int, datatype: str = "FP32") -> float:
    """Time rules on rows of 30 values that break none of them."""
    model = model_spec([tensor("x", datatype, None, WIDTH)])
    values: Any = np.full((rows, WIDTH), "abc" if datatype == "BYTES" else 1, DTYPES[datatype])
    return microseconds(
        Rules.compile(spec, model), ValidatedInputs({"x": values}, rows, None, ("y",))
    )


def with_features(*features: FeatureRules, **fields: Any) -> ValidationSpec:
    """Make a spec for the input `x`."""
    return ValidationSpec(inputs=[InputRules(name="x", features=list(features))], **fields)


def main() -> None:
    """Print the table."""
    ranges = [FeatureRules(name=f"f{i}", min=-5 - i, max=5 + i) for i in range(WIDTH)]
    expression = ExpressionRule(name="order", expression="f0 <= f1 && f2 < 100")
    specs = {
        "no rules (NaN and infinity are refused)": (ValidationSpec(), "FP32"),
        "a range for each of 30 features": (with_features(*ranges), "FP32"),
        "the same, NaN allowed everywhere": (with_features(*ranges, allow_nan=True), "FP32"),
        "the same of INT64": (with_features(*ranges), "INT64"),
        "one feature with an enum of 3": (with_features(FeatureRules(name="f", enum=["1", "2", "3"])), "FP32"),
        "30 ranges and an expression of two comparisons": (with_features(*ranges, expressions=[expression]), "FP32"),
        "one pattern on strings": (with_features(FeatureRules(name="f", pattern="[a-z]{1,8}")), "BYTES"),
    }  # fmt: skip
    print("| rules | 1 row, µs | 32 rows, µs | 4096 rows, µs |\n|---|---|---|---|")
    for name, (spec, datatype) in specs.items():
        cells = [f"{case(spec, rows, datatype):.2f}" for rows in (1, 32, 4096)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
