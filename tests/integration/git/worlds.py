"""Jobs and manifests that the tests of git share."""

import time
from dataclasses import replace
from typing import Any

from canarium_operator.core.outcomes.jobs import RECORD, REVERT, GitAnswer, GitEdit, GitJob

MANIFEST = "environments/production/fraud.yaml"
RECORD_FILE = "environments/production/released/fraud.yaml"


def manifest(version: str = "3") -> str:
    """Write a manifest as a person does, with comments."""
    return f"""\
# The fraud model. Ask the risk team before you change it.
apiVersion: canarium.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: fraud, namespace: ml}}
spec:
  model:
    uri: https://models.example.com/fraud/{version}/model.onnx  # built nightly
    version: "{version}"   # bump me
  rollout:
    canary:
      steps:
      - weight: 10   # a few
      - weight: 100
"""


def edit(path: str, before: str | None, after: str | None) -> GitEdit:
    """Make an edit of a text."""
    words = [f'"{value}"' if value is not None else None for value in (before, after)]
    return GitEdit(path=tuple(path.split(".")), before=words[0], after=words[1])


def revert(url: str, epoch: int = 7, **changes: Any) -> GitJob:
    """Make the job of a rollback from version 3 to 2."""
    job = GitJob(
        url=url,
        branch="main",
        kind=REVERT,
        outcome=f"ml/fraud/uid-1/{epoch}",
        at=int(time.time()),
        name="fraud",
        subject="fraud: take v3 back to v2 (AnalysisFailed)",
        body="v3 taken back at step 1/2 (10%): error-rate 40%",
        author="Canarium <noreply@canarium.dev>",
        manifest=MANIFEST,
        record=RECORD_FILE,
        edits=(
            edit(
                "model.uri",
                "https://models.example.com/fraud/3/model.onnx",
                "https://models.example.com/fraud/2/model.onnx",
            ),
            edit("model.version", "3", "2"),
        ),
    )
    return replace(job, **changes)


def record(
    url: str, epoch: int = 9, revision: str = "aaaa", at: str = "2026-01-01", **changes: Any
) -> GitJob:
    """Make the job of a promotion."""
    content = {
        "rollout": {
            "lastGood": {
                "uri": "https://models.example.com/fraud/3/model.onnx",
                "version": "3",
                "record": {
                    "outcome": f"ml/fraud/uid-1/{epoch}",
                    "revision": revision,
                    "releasedAt": f"{at}T12:00:00Z",
                },
            }
        }
    }
    return revert(
        url,
        epoch,
        kind=RECORD,
        subject="fraud: v3 is released",
        edits=(),
        content=content,
        **changes,
    )


def commit_of(answer: GitAnswer) -> str:
    """Give the commit; fails where the answer is something else."""
    assert answer.commit, answer
    return answer.commit
