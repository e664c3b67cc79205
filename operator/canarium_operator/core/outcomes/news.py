"""What was learned about outcomes in git since the last pass: an input of the decision, like answers of Prometheus."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from canarium_api.conditions import Reason
from canarium_api.gitops_status import SourceCommit


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Nothing is left to do for an outcome."""

    commit: str | None = None
    branch: str = ""
    link: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """It could not be written yet."""

    reason: Reason
    message: str


Answer = Settled | Failed


@dataclass(frozen=True, kw_only=True)
class News:
    """What was learned about outcomes since the last pass."""

    answers: Mapping[int, Answer]
    """By epoch."""
    source: SourceCommit | None = None
    """The commit that asked for the canary, where it was just found."""


def news_to_json(news: News | None) -> dict[str, Any] | None:
    """Write news for the log of decisions."""
    if news is None:
        return None
    return {
        "answers": {str(epoch): asdict(answer) for epoch, answer in news.answers.items()},
        "source": news.source.to_manifest() if news.source is not None else None,
    }


def news_from_json(raw: Mapping[str, Any] | None) -> News | None:
    """Read news from the log of decisions."""
    if raw is None:
        return None
    answers: dict[int, Answer] = {}
    for epoch, answer in raw["answers"].items():
        failed = "reason" in answer
        answers[int(epoch)] = (
            Failed(reason=Reason(answer["reason"]), message=answer["message"])
            if failed
            else Settled(**answer)
        )
    source = SourceCommit.from_manifest(raw["source"]) if raw["source"] is not None else None
    return News(answers=answers, source=source)
