"""`python -m canarium_runtime.golden`: the Job of `rollout.validation`.

It reads the settings of a server of its model and `GoldenConfig` from its environment, writes the report to its log and
the outcome to the termination log, from where the operator has it. Exit status: 0 met, 1 missed, 2 the data or the
settings cannot be used, 3 the model cannot be loaded or answers nothing; anything else is worth another try.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from canarium_api.golden import GoldenConfig, Outcome, Thresholds
from canarium_api.runtime_config import TERMINATION_LOG, RuntimeConfig
from canarium_runtime.errors import LoadError
from canarium_runtime.golden.evaluation import Evaluation, ModelError, evaluate
from canarium_runtime.golden.judging import Check, judge
from canarium_runtime.golden.opening import open_model
from canarium_runtime.golden.table import DataError, Table
from canarium_runtime.repository import Repository
from canarium_runtime.termination import VARIABLE


def main() -> int:
    """Run the Job; gives the exit status."""
    try:
        outcome, status = _run(os.environ)
    except (DataError, ValidationError) as error:
        outcome, status = Outcome(passed=None, message=_words(error)), 2
    except LoadError as error:
        said = f"{error.failure.reason}: {error}"
        outcome, status = Outcome(passed=None, message=said), 3
    except ModelError as error:
        outcome, status = Outcome(passed=False, message=str(error)), 1
    print(outcome.message, flush=True)
    path = Path(os.environ.get(VARIABLE, TERMINATION_LOG))
    path.write_text(outcome.to_log(), encoding="utf-8")
    return status


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return GoldenConfig.describe(error)
    return str(error)


def _run(environ: Mapping[str, str]) -> tuple[Outcome, int]:
    config, golden = RuntimeConfig.from_env(environ), GoldenConfig.from_env(environ)
    wishes = Thresholds.model_validate_json(golden.thresholds)
    table = _table(config, golden.data_uri, golden.data_sha256)
    reference = None
    if golden.reference_uri is not None:
        reference = _table(config, golden.reference_uri, golden.reference_sha256)
    opened = open_model(config)
    old = None
    if golden.against:
        old = open_model(RuntimeConfig.from_env(json.loads(golden.against)))
    found = evaluate(
        opened.backend,
        table,
        wishes,
        old=old.backend if old is not None else None,
        reference=reference,
    )
    # Inputs and outputs are compared by the operator itself, before and after.
    checks = judge(found, wishes, size_bytes=opened.artefact.size_bytes, breaks=None)
    _print(found, checks)
    missed = [check.message for check in checks if not check.passed]
    if missed:
        return Outcome(passed=False, message="; ".join(missed)), 1
    score = found.new.metrics.get("accuracy", found.new.metrics.get("r2"))
    said = f"{len(checks)} of {len(checks)} checks met on {found.rows} rows"
    if score is not None:
        said += f", {'accuracy' if 'accuracy' in found.new.metrics else 'R2'} {score:.4g}"
    return Outcome(passed=True, message=said), 0


def _table(config: RuntimeConfig, uri: str, sha256: str | None) -> Table:
    """Get a file of rows to this machine."""
    repository = Repository(
        directory=Path(config.download_dir),
        timeout=config.download_timeout,
        max_bytes=config.max_model_bytes,
        stop=threading.Event(),
    )
    try:
        path = repository.fetch(uri, sha256).path
    except LoadError as error:
        raise DataError(str(error).replace("model.sha256", "sha256")) from error
    return Table(path, name=uri.rpartition("/")[2].partition("?")[0])


def _print(found: Evaluation, checks: list[Check]) -> None:
    """Write the report to the log, as JSON lines."""
    print(json.dumps({"metrics": dict(found.new.metrics), "rows": found.rows, "task": found.task}))
    for check in checks:
        print(json.dumps(asdict(check)))
    for note in (*found.notes, *found.new.notes, *found.new.failures):
        print(json.dumps({"note": note}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
