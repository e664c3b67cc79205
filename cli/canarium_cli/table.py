"""The words after `canarium`: what each does, where it is, and what it needs.

Nothing of a command is imported here, so that the list is there in a moment and whichever extras are installed. A
command's module has `main()`, which reads `sys.argv`; where typer describes it, `application(WORD)` gives the app, for
shell completion and for docs/reference/cli.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Group(StrEnum):
    """What a command is for, in the order of the list."""

    LOOK = "Look"
    ACT = "Act on a rollout"
    WRITE = "Write and check"
    SERVE = "Serve"
    CLUSTER = "Operator and cluster"
    SHELL = "Shell"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One word after `canarium`."""

    summary: str
    module: str
    """Has `main()`, which reads `sys.argv` and gives an exit status or None."""
    extra: str
    """Extra of the distribution that brings its libraries."""
    group: Group = Group.WRITE
    typed: bool = True
    """Its module has `application()`."""


def _look(summary: str, module: str) -> Command:
    return Command(summary=summary, module=f"canarium_cli.{module}", extra="cli", group=Group.LOOK)


def _act(summary: str, module: str = "commands") -> Command:
    return Command(summary=summary, module=f"canarium_cli.{module}", extra="cli", group=Group.ACT)


COMMANDS: Final = {
    "get": _look("list ModelDeployments: phase, step, weight, versions, reason", "get"),
    "describe": _look("the whole story of one: conditions, checks, history, events", "describe"),
    "watch": _look("follow a rollout until it ends; the exit status says how", "watch"),
    "status": _look("one screen: phase, revisions, checks, what it waits for", "status"),
    "history": _look("how each revision's rollout ended, and what failed", "history"),
    "logs": _look("logs of the servers, stable and canary side by side", "logs"),
    "dashboard": Command(
        summary="rollouts in a browser: steps, weights, checks, and buttons to act",
        module="canarium_dashboard.__main__",
        extra="dashboard",
        group=Group.LOOK,
    ),
    "approve": _act("approve the end of the present step of a rollout"),
    "pause": _act("keep a rollout at its weight"),
    "resume": _act("let a paused rollout go on"),
    "skip": _act("end the present step at once"),
    "abort": _act("take the canary back at once"),
    "retry": _act("let a failed revision be tried once more"),
    "promote": _act("go to 100 % without further checks"),
    "undo": _act("go back to the version before, and say what git needs", "undo"),
    "init": Command(
        summary="write a first manifest from a model file",
        module="canarium_cli.init",
        extra="cli,onnx",
        group=Group.WRITE,
    ),
    "plan": Command(
        summary="what the operator would decide, from recorded metrics, without a cluster",
        module="canarium_cli.plan",
        extra="cli",
        group=Group.WRITE,
    ),
    "record": Command(
        summary="write what Prometheus knows of a rollout, for canarium plan",
        module="canarium_cli.record",
        extra="cli",
        group=Group.WRITE,
    ),
    "check": Command(
        summary="whether the cluster and the operator would take manifests, without a cluster",
        module="canarium_cli.check",
        extra="cli",
        group=Group.WRITE,
    ),
    "diff": Command(
        summary="what a change in git would do: rollouts, steps, what is applied in place",
        module="canarium_cli.diff",
        extra="cli",
        group=Group.WRITE,
    ),
    "validate": Command(
        summary="a model on golden data, against thresholds (MODEL --data golden.csv)",
        module="canarium_cli.validate",
        extra="cli,runtime,onnx",
        group=Group.WRITE,
    ),
    "schema": Command(
        summary="rules for requests to start with, from a model and a sample (infer MODEL.onnx)",
        module="canarium_cli.schema",
        extra="cli,onnx",
        group=Group.WRITE,
    ),
    "serve": Command(
        summary="serve a model on this machine, without a cluster (MODEL.onnx --port 8000)",
        module="canarium_cli.serve",
        extra="runtime,onnx",
        group=Group.SERVE,
        typed=False,
    ),
    "jobs": Command(
        summary="batch jobs of a model: submit, list, watch, results, cancel, retry, delete",
        module="canarium_cli.jobs",
        extra="cli",
        group=Group.SERVE,
    ),
    "keys": Command(
        summary="API keys for clients of a model: new NAME, hash NAME",
        module="canarium_cli.keys",
        extra="cli",
        group=Group.SERVE,
    ),
    "audit": Command(
        summary="whether an audit log is as it was written: verify FILE...",
        module="canarium_runtime.audit.__main__",
        extra="runtime",
        group=Group.SERVE,
        typed=False,
    ),
    "operator": Command(
        summary="run the operator outside the cluster (--kubeconfig FILE)",
        module="canarium_operator.__main__",
        extra="operator",
        group=Group.CLUSTER,
        typed=False,
    ),
    "cluster": Command(
        summary="a real Kubernetes on this machine: up, down, status, logs, load, kubeconfig",
        module="canarium_devcluster.app",
        extra="devcluster",
        group=Group.CLUSTER,
    ),
    "demo": Command(
        summary="watch a good version promoted and a bad one taken back",
        module="canarium_demo.__main__",
        extra="demo",
        group=Group.CLUSTER,
        typed=False,
    ),
    "completion": Command(
        summary="a script that lets a shell complete commands and names: bash, zsh, fish",
        module="canarium_cli.completion",
        extra="cli",
        group=Group.SHELL,
    ),
}


def usage(program: str) -> str:
    """Write the list of commands."""
    lines = [f"usage: {program} COMMAND [OPTIONS]"]
    for group in Group:
        lines += ["", f"{group.value}:"]
        lines += [f"  {name:<11} {c.summary}" for name, c in COMMANDS.items() if c.group is group]
    return "\n".join([*lines, "", f"{program} COMMAND --help says more."])
