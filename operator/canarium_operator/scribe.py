"""The shell around outcomes in git: one task for each object that has one due, beside the passes, never inside one.

A pass hands over what is due (`take`) and asks what was learned (`news`); both return at once. What was learned wakes
the object, and the next pass puts it into the status. Nothing here is remembered elsewhere: an operator that dies finds
what is due in the status again, and what was written in git.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from canarium_api.conditions import Reason
from canarium_api.gitops import GitOpsSpec
from canarium_api.gitops_status import DueOutcome, GitOpsStatus, SourceCommit
from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.due import ROLLED_BACK
from canarium_operator.core.outcomes.jobs import GitAnswer
from canarium_operator.core.outcomes.news import Answer, Failed, News, Settled
from canarium_operator.core.outcomes.texts import body, make_job, subject
from canarium_operator.credentials import Credentials, SecretError
from canarium_operator.errors import ClusterError, ForgeError
from canarium_operator.ports import Cluster, CommitState, Forge, ForgeAccess, GitWriter

log = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 2
"""Objects whose outcomes are written at the same moment: each is a process with memory of its own."""
FIRST_RETRY_SECONDS: Final = 5.0
LAST_RETRY_SECONDS: Final = 600.0
"""Between two tries; the wait doubles from the first to the last. There is no end to tries: the status keeps what is
due, with a bound."""


@dataclass
class _Desk:
    """What is known of one object."""

    ref: ObjectRef
    spec: GitOpsSpec
    due: tuple[DueOutcome, ...] = ()
    source: SourceCommit | None = None
    canary: str | None = None
    """Revision of a canary whose commit is to be found and marked."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By epoch; what is not due any more is dropped."""
    found: SourceCommit | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def left(self) -> list[DueOutcome]:
        """Give what is not settled."""
        return [o for o in self.due if not isinstance(self.answers.get(o.epoch), Settled)]

    @property
    def unmarked(self) -> bool:
        """Tell whether a canary's commit is still to be marked."""
        known = self.found or self.source
        return self.canary is not None and (known is None or known.revision != self.canary)


class Scribe:
    """Has outcomes written."""

    def __init__(
        self,
        cluster: Cluster,
        git: GitWriter,
        forge: Forge,
        wake: Callable[[ObjectRef], None],
        *,
        retry_seconds: tuple[float, float] = (FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS),
    ) -> None:
        """Prepare.

        Args:
            cluster: for Secrets.
            git: writes.
            forge: marks commits and opens requests.
            wake: called when something was learned about an object.
            retry_seconds: wait after the first failure, and the longest one.
        """
        self._credentials = Credentials(cluster)
        self._git = git
        self._forge = forge
        self._wake = wake
        self._retry = retry_seconds
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._desks: dict[tuple[str, str], _Desk] = {}

    def news(self, ref: ObjectRef) -> News | None:
        """Give what was learned and is not in the status yet; None: nothing."""
        desk = self._desks.get((ref.namespace, ref.name))
        if desk is None or desk.ref.uid != ref.uid or not (desk.answers or desk.found):
            return None
        return News(answers=dict(desk.answers), source=desk.found)

    def take(self, ref: ObjectRef, spec: GitOpsSpec | None, status: ModelDeploymentStatus) -> None:
        """Hand over a status that was written: what is due, and what has arrived in it."""
        key = (ref.namespace, ref.name)
        gitops = status.gitops
        if spec is None or gitops is None:
            self.forget(ref)
            return
        desk = self._desks.get(key)
        if desk is None or desk.ref.uid != ref.uid:
            self.forget(ref)
            desk = _Desk(ref=ref, spec=spec)
        _catch_up(desk, spec, gitops, status)
        if not (desk.due or desk.unmarked or desk.answers):
            if desk.task is None:
                self._desks.pop(key, None)
            return
        self._desks[key] = desk
        if desk.task is None and (desk.left() or desk.unmarked):
            desk.task = asyncio.create_task(self._work(desk), name=f"outcomes of {ref}")

    def forget(self, ref: ObjectRef) -> None:
        """Drop what is known of an object that is gone, or no longer writes."""
        desk = self._desks.pop((ref.namespace, ref.name), None)
        if desk is not None and desk.task is not None:
            desk.task.cancel()

    async def close(self) -> None:
        """End all tasks; what is under way is cut off, which is safe at any point."""
        tasks = [desk.task for desk in self._desks.values() if desk.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, desk: _Desk) -> None:
        """Try until nothing is left."""
        pause, longest = self._retry
        try:
            while desk.left() or desk.unmarked:
                desk.changed.clear()
                async with self._slots:
                    failed = await self._round(desk)
                if not failed:
                    continue
                news = await _changed_within(desk, pause)
                pause = self._retry[0] if news else min(pause * 2, longest)
        except Exception:
            # A defect of ours must not end silently; the next pass with something due starts over.
            log.exception("%s: outcomes are not written: unexpected error", desk.ref)
        finally:
            desk.task = None

    async def _round(self, desk: _Desk) -> bool:
        """Try each that is left once, in their order; gives whether something failed."""
        failed = not await self._mark_canary(desk) if desk.unmarked else False
        for outcome in desk.left():
            answer = await self._settle(desk, outcome)
            if isinstance(answer, Failed):
                failed = True
                log.warning(
                    "%s: outcome %d: %s: %s", desk.ref, outcome.epoch, answer.reason, answer.message
                )
            else:
                log.info("%s: outcome %d: %s", desk.ref, outcome.epoch, answer.message)
            news = desk.answers.get(outcome.epoch) != answer and not _is_known(outcome, answer)
            if any(due.epoch == outcome.epoch for due in desk.due):
                desk.answers[outcome.epoch] = answer
            if news:
                self._wake(desk.ref)
        return failed

    async def _settle(self, desk: _Desk, outcome: DueOutcome) -> Answer:
        """Write one outcome, and tell the forge."""
        ref, spec, forge = desk.ref, desk.spec, desk.spec.forge
        try:
            access = await self._credentials.git(ref, spec)
            api = await self._credentials.forge(ref, forge) if forge is not None else None
            commit = await self._source(desk, outcome.who.revision, api)
            job = make_job(ref, spec, outcome, commit)
            answer = await self._git.write(job, access)
            if answer.problem:
                return Failed(reason=Reason(answer.problem), message=answer.message)
            link = ""
            if api is not None and forge is not None:
                if answer.commit and answer.branch == job.work_branch and forge.pull_requests:
                    link = await self._forge.request(
                        api,
                        source=answer.branch,
                        target=spec.branch,
                        commit=answer.commit,
                        title=subject(ref, outcome),
                        body=body(outcome),
                    )
                if forge.commit_statuses and commit is not None:
                    bad = outcome.outcome == ROLLED_BACK
                    state = CommitState.FAILURE if bad else CommitState.SUCCESS
                    await self._forge.mark(api, commit, _context(ref), state, outcome.message)
        except SecretError as error:
            return Failed(reason=Reason.GIT_SECRET_UNUSABLE, message=str(error))
        except ClusterError as error:
            return Failed(reason=Reason.GIT_SECRET_UNUSABLE, message=str(error))
        except ForgeError as error:
            return Failed(reason=Reason.FORGE_FAILED, message=str(error))
        return _settled(answer, subject(ref, outcome), link)

    async def _source(self, desk: _Desk, revision: str, api: ForgeAccess | None) -> str | None:
        """Give the commit that asked for a revision, where that is known or can be asked."""
        for known in (desk.found, desk.source):
            if known is not None and known.revision == revision:
                return known.commit or None  # empty: there was none to be found
        spec = desk.spec
        if api is None or spec.forge is None or not spec.forge.commit_statuses or not spec.manifest:
            return None
        return await self._forge.commit_of(api, spec.branch, spec.manifest)

    async def _mark_canary(self, desk: _Desk) -> bool:
        """Find the commit of a canary and mark it; gives whether that is done."""
        spec, revision = desk.spec, desk.canary
        if spec.forge is None or revision is None or not spec.manifest:
            return True
        try:
            api = await self._credentials.forge(desk.ref, spec.forge)
            commit = await self._forge.commit_of(api, spec.branch, spec.manifest)
            if commit is not None:
                words = "the rollout has begun"
                await self._forge.mark(api, commit, _context(desk.ref), CommitState.PENDING, words)
        except (SecretError, ClusterError, ForgeError) as error:
            log.warning("%s: the commit of its canary is not marked yet: %s", desk.ref, error)
            return False
        desk.found = SourceCommit(revision=revision, commit=commit or "")
        self._wake(desk.ref)
        return True


def _catch_up(
    desk: _Desk, spec: GitOpsSpec, gitops: GitOpsStatus, status: ModelDeploymentStatus
) -> None:
    """Take over what a status says, and drop what has arrived in it."""
    epochs = {outcome.epoch for outcome in gitops.due}
    if desk.spec != spec or not epochs <= {outcome.epoch for outcome in desk.due}:
        desk.changed.set()
    desk.spec, desk.due, desk.source = spec, tuple(gitops.due), gitops.source
    by_epoch = {outcome.epoch: outcome for outcome in gitops.due}
    desk.answers = {
        epoch: answer
        for epoch, answer in desk.answers.items()
        if epoch in by_epoch and not _is_known(by_epoch[epoch], answer)
    }
    if desk.found == gitops.source:
        desk.found = None
    marks = spec.forge is not None and spec.forge.commit_statuses and spec.manifest is not None
    desk.canary = status.canary.revision if marks and status.canary is not None else None


def _is_known(outcome: DueOutcome, answer: Answer) -> bool:
    """Tell whether the status has a failure already."""
    return isinstance(answer, Failed) and (outcome.problem, outcome.problem_message) == (
        answer.reason.value,
        answer.message[:500],
    )


def _settled(answer: GitAnswer, title: str, link: str) -> Settled:
    if not answer.commit:
        return Settled(message=f"nothing to write: {answer.nothing}")
    where = f"{answer.commit[:10]} on {answer.branch}"
    return Settled(
        commit=answer.commit,
        branch=answer.branch,
        link=link,
        message=f"{title}: {where}{', ' + link if link else ''}",
    )


def _context(ref: ObjectRef) -> str:
    return f"canarium/{ref.namespace}/{ref.name}"


async def _changed_within(desk: _Desk, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await desk.changed.wait()
    except TimeoutError:
        return False
    return True
