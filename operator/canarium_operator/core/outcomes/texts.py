"""What is said of an outcome: the commit's message, the record, the state of a commit, the condition, the Events."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from canarium_api.conditions import Reason
from canarium_api.gitops import EvidenceRow, GitOpsSpec, Lineage, ReleaseRecord, WriteMode
from canarium_api.gitops_status import DueOutcome, GitOpsStatus
from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.due import DEPLOYED, ROLLED_BACK
from canarium_operator.core.outcomes.jobs import RECORD, REVERT, GitEdit, GitJob
from canarium_operator.core.rollout.analysis import format_value

RECENT: Final = timedelta(minutes=10)
"""Settled outcomes that are older have no Event any more: an operator that starts anew must not repeat old news."""
MAX_SUBJECT: Final = 100


def make_job(ref: ObjectRef, spec: GitOpsSpec, outcome: DueOutcome, commit: str | None) -> GitJob:
    """Say what is to be written.

    Args:
        ref: the ModelDeployment.
        spec: where to.
        outcome: what happened.
        commit: that asked for the revision, if known.
    """
    rolled_back = outcome.outcome == ROLLED_BACK
    mode = spec.on_rollback if rolled_back else spec.on_promotion
    work = f"canarium/{ref.namespace}/{ref.name}/{outcome.who.revision}"
    return GitJob(
        url=spec.url,
        branch=spec.branch,
        work_branch=work if mode is WriteMode.PULL_REQUEST else "",
        kind=REVERT if rolled_back else RECORD,
        outcome=outcome_id(ref, outcome),
        at=int(outcome.at.timestamp()),
        name=ref.name,
        subject=subject(ref, outcome),
        body=body(outcome),
        author=f"{spec.author.name} <{spec.author.email}>",
        manifest=spec.manifest or "",
        record=record_path(ref, spec),
        only_first=outcome.outcome == DEPLOYED,
        content={} if rolled_back else _content(ref, outcome, commit),
        edits=tuple(
            GitEdit(path=tuple(edit.path), before=edit.before, after=edit.after)
            for edit in outcome.edits
        ),
    )


def outcome_id(ref: ObjectRef, outcome: DueOutcome) -> str:
    """Name an outcome for all time: an object that is made anew has another uid."""
    return f"{ref.namespace}/{ref.name}/{ref.uid}/{outcome.epoch}"


def record_path(ref: ObjectRef, spec: GitOpsSpec) -> str:
    """Say where the record is."""
    if spec.record is not None:
        return spec.record
    folder = PurePosixPath(spec.manifest).parent if spec.manifest else PurePosixPath()
    return str(folder / "released" / f"{ref.name}.yaml")


def subject(ref: ObjectRef, outcome: DueOutcome) -> str:
    """Write the first line of the message, and the title of a pull request."""
    version = _version(outcome.who)
    if outcome.outcome == ROLLED_BACK:
        back = f" to {_version(outcome.other)}" if outcome.other is not None else ""
        text = f"{ref.name}: take {version} back{back} ({outcome.reason})"
    else:
        text = f"{ref.name}: {version} is {'released' if outcome.outcome != DEPLOYED else 'the first release'}"
    return text[:MAX_SUBJECT]


def body(outcome: DueOutcome) -> str:
    """Write what follows: what happened, and the evidence as a table."""
    facts = [outcome.message, ""]
    if outcome.evidence:
        facts += [evidence_table(outcome.evidence), ""]
    facts.append(f"Revision: {outcome.who.revision}")
    if outcome.who.sha256:
        facts.append(f"Digest: sha256:{outcome.who.sha256}")
    if outcome.other is not None:
        word = "Serves in its place" if outcome.outcome == ROLLED_BACK else "Replaces"
        facts.append(f"{word}: {_version(outcome.other)}, revision {outcome.other.revision}")
    return "\n".join(facts)


def evidence_table(rows: Sequence[EvidenceRow]) -> str:
    """Write the checks as a Markdown table."""
    lines = [
        "| Check | Verdict | Value | Stable | Limit | Requests | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            row.verdict,
            format_value(row.name, row.value) if row.value is not None else "",
            format_value(row.name, row.baseline) if row.baseline is not None else "",
            row.limit or "",
            str(row.samples) if row.samples is not None else "",
            f"{row.p_value:.2g}" if row.p_value is not None else "",
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _content(ref: ObjectRef, outcome: DueOutcome, commit: str | None) -> dict[str, Any]:
    """Make the record: a part of a spec, so that it can be laid over the manifest as it is."""
    record = ReleaseRecord(
        outcome=outcome_id(ref, outcome),
        revision=outcome.who.revision,
        released_at=f"{outcome.at:%Y-%m-%dT%H:%M:%SZ}",
        message=outcome.message,
        replaces=outcome.other,
        commit=commit,
        evidence=outcome.evidence,
    )
    # What the spec did not say is left out: it would be another revision with it.
    facts = (("uri", outcome.uri), ("sha256", outcome.who.sha256), ("version", outcome.version))
    good = {key: value for key, value in facts if value}
    return {"rollout": {"lastGood": {**good, "record": record.to_manifest()}}}


def _version(who: Lineage) -> str:
    return who.version if who.version.startswith("v") else f"v{who.version}"


def standing(
    gitops: GitOpsStatus | None,
) -> tuple[Literal["True", "False", "Unknown"], Reason, str] | None:
    """Give the condition OutcomeRecorded; None: there has been no outcome."""
    if gitops is None or not (gitops.due or gitops.written):
        return None
    lost = f"; {gitops.given_up} older ones were given up" if gitops.given_up else ""
    stuck = next((outcome for outcome in gitops.due if outcome.problem is not None), None)
    if stuck is not None and stuck.problem is not None:
        message = f"{_what(stuck)} is not in git yet: {stuck.problem_message}"
        return "False", Reason(stuck.problem), message + lost
    if gitops.due:
        return "Unknown", Reason.OUTCOME_PENDING, f"{_what(gitops.due[0])} is being written" + lost
    last = gitops.written[-1]
    return "True", Reason.OUTCOME_RECORDED, (last.message or "written") + lost


def _what(outcome: DueOutcome) -> str:
    verb = {ROLLED_BACK: "rollback", DEPLOYED: "first release"}.get(outcome.outcome, "promotion")
    return f"the {verb} of {_version(outcome.who)}"


def announcements(
    status: ModelDeploymentStatus, now: datetime
) -> tuple[tuple[int, str, str, bool, datetime], ...]:
    """Give what is to be told in Events: (epoch, reason, message, warning, at). Each is told once for each epoch and
    reason, since that is in its name.
    """
    gitops = status.gitops
    if gitops is None:
        return ()
    told = [
        (entry.epoch, Reason.OUTCOME_RECORDED.value, entry.message, False, entry.at)
        for entry in gitops.written
        if now - entry.at <= RECENT
    ]
    told += [
        (
            outcome.epoch,
            outcome.problem,
            f"{_what(outcome)} is not in git yet: {outcome.problem_message}",
            True,
            now,
        )
        for outcome in gitops.due
        if outcome.problem is not None
    ]
    return tuple(told)
