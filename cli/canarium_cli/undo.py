"""`canarium undo NAME`: back to the version before, as far as that can be done honestly.

A canary under way is aborted. A version that is promoted is undone by a change of the spec: what to change is
printed, for git; `--apply` changes the cluster at once, and says that git must follow, since what syncs from git would
bring the bad version back.
"""

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli import options
from canarium_cli.access_errors import AccessError
from canarium_cli.commands import perform
from canarium_cli.going_back import Way, as_yaml, earlier, keeper, patch_to, revisions_of, way_back
from canarium_cli.rendering.listing import is_seen
from canarium_cli.statuses import status_of

if TYPE_CHECKING:
    from canarium_cli.access import Access

app = options.new_app()


@app.command()
@options.in_words
def undo(
    name: options.Name,
    namespace: options.Namespace = None,
    to: Annotated[
        str, typer.Option(help="Version or revision to go back to. Default: the one before.")
    ] = "",
    apply: Annotated[
        bool, typer.Option("--apply", help="Change the spec in the cluster, too: git must follow.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    message: Annotated[
        str, typer.Option("-m", "--message", help="Why, for the history of an abort.")
    ] = "",
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the operator's answer to an abort.")
    ] = 30.0,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Go back to the version before: abort a canary under way, or say (and, with --apply, do) what the spec needs."""
    access, space, short = options.find(name, namespace, kubeconfig, context)
    body = access.read(space, short)
    status = status_of(body)
    if not is_seen(body):
        options.fail("the operator has not seen the present spec yet: look again in a moment")
    if status.canary is not None and status.rollout is not None and not to:
        _say_abort(status, short, space)
        _ask(f"Abort the rollout of {status.summary.canary}?", yes)
        code = perform(access, "abort", space, short, step=None, note=message, wait=wait)
        if code == 0:
            _warn_of_git(
                body, f"git still names {status.canary.model_version}, which is not tried again"
            )
        raise typer.Exit(code)
    way = _find(access, body, status, to)
    patch = patch_to(way.revision, body["spec"]) if way.revision is not None else {}
    if not patch:
        options.fail(
            f"the spec names {way.entry.model_version} already, as far as the cluster knows: {status.message}"
            if way.revision is not None
            else _is_gone(way, short)
        )
    _say(way, patch, short, space)
    if not apply:
        _say_how(body, patch, short, space)
        return
    _ask("Change the spec in the cluster now?", yes)
    access.patch(space, short, patch)
    print(
        f"the spec of {space}/{short} is that of {way.entry.model_version} again; canarium watch {short} -n {space}"
    )
    _warn_of_git(
        body, "put the same change into git now, or the next sync brings the newer version back"
    )


def _find(access: "Access", body: dict[str, Any], status: ModelDeploymentStatus, to: str) -> Way:
    meta = body["metadata"]
    window = ModelDeploymentSpec.from_manifest(body["spec"]).rollout.rollback_window
    try:
        known = revisions_of(access.configmaps(meta["namespace"], meta["name"]))
    except AccessError as error:
        msg = f"what earlier revisions were made from cannot be read: {error}"
        raise AccessError(msg) from error
    way = way_back(status, known, body["spec"], to=to, window=window)
    if way is None:
        there = ", ".join(entry.model_version for entry in earlier(status))
        words = f"no version {to} was stable before" if to else "no other version was stable before"
        options.fail(f"{words}{f'; there were {there}' if there else ''}: see canarium history")
    return way


def _is_gone(way: Way, name: str) -> str:
    entry = way.entry
    return (
        f"the cluster no longer knows what {entry.model_version} ({entry.revision}) was made from, since its "
        f"objects are gone: take spec.model and spec.serving of {name} from git (git log -p), or revert the commit"
    )


def _say_abort(status: ModelDeploymentStatus, name: str, space: str) -> None:
    stable = status.summary.stable
    print(
        f"{space}/{name}: {status.summary.canary} is a canary; an abort gives all the traffic back to {stable}."
    )


def _say(way: Way, patch: dict[str, Any], name: str, space: str) -> None:
    entry = way.entry
    version = f"{space}/{name}: {entry.model_version} ({entry.revision})"
    if way.serves:
        print(
            f"{version} serves, but the spec names another version; for clients, nothing changes."
        )
    else:
        speed = (
            "at once, without steps (rollout.rollbackWindow)"
            if way.at_once
            else "as a canary with all steps: it is beyond rollout.rollbackWindow"
        )
        print(f"{version} was stable until a later one was promoted; going back is done {speed}.")
    print(f"The change of the spec:\n\n{as_yaml(patch)}")


def _say_how(body: dict[str, Any], patch: dict[str, Any], name: str, space: str) -> None:
    import json

    text = shlex.quote(json.dumps(patch))
    print(
        "In git: revert the commit that brought the newer version, or make this change. Nothing has been changed yet."
    )
    print(f"At once, before git: canarium undo {name} -n {space} --apply, which is")
    print(f"  kubectl patch mdep {name} -n {space} --type merge -p {text}")
    _warn_of_git(body, "a change of the cluster alone is undone by the next sync")


def _warn_of_git(body: dict[str, Any], words: str) -> None:
    who = keeper(body["metadata"])
    print(f"note: {words}.{f' It is written by {who}' if who else ''}", file=sys.stderr)


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        options.fail("nobody is there to be asked: add --yes", options.USAGE)
    if not typer.confirm(question):
        options.fail("nothing was changed")


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
