"""`canarium`: one command for all that Canarium can do from a terminal.

Each part is imported only when it is asked for, so that the command works with whichever extras are installed.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Command:
    """One word after `canarium`."""

    summary: str
    module: str
    """Has `main()`, which reads `sys.argv` and gives an exit status or None."""
    extra: str
    """Extra of the distribution that brings its libraries."""


COMMANDS: Final = {
    "operator": Command(
        summary="run the operator outside the cluster (--kubeconfig FILE)",
        module="canarium_operator.__main__",
        extra="operator",
    ),
    "serve": Command(
        summary="serve a model on this machine, without a cluster (MODEL.onnx --port 8000)",
        module="canarium_cli.serve",
        extra="runtime,onnx",
    ),
    "keys": Command(
        summary="API keys for clients of a model: new NAME, hash NAME",
        module="canarium_cli.keys",
        extra="cli",
    ),
    "audit": Command(
        summary="whether an audit log is as it was written: verify FILE...",
        module="canarium_runtime.audit.__main__",
        extra="runtime",
    ),
    "plan": Command(
        summary="what the operator would decide, from recorded metrics, without a cluster",
        module="canarium_cli.plan",
        extra="cli",
    ),
    "record": Command(
        summary="write what Prometheus knows of a rollout, for canarium plan",
        module="canarium_cli.record",
        extra="cli",
    ),
    "schema": Command(
        summary="rules for requests to start with, from a model and a sample (infer MODEL.onnx)",
        module="canarium_cli.schema",
        extra="cli,onnx",
    ),
    **{
        verb: Command(summary=summary, module="canarium_cli.commands", extra="cli")
        for verb, summary in (
            ("approve", "approve the end of the present step of a rollout"),
            ("pause", "keep a rollout at its weight"),
            ("resume", "let a paused rollout go on"),
            ("skip", "end the present step at once"),
            ("abort", "take the canary back at once"),
            ("retry", "let a failed revision be tried once more"),
            ("promote", "go to 100 % without further checks"),
        )
    },
    "status": Command(
        summary="where a rollout stands: phase, step, checks, what it waits for",
        module="canarium_cli.status",
        extra="cli",
    ),
    "jobs": Command(
        summary="batch jobs of a model: submit, list, watch, results, cancel, retry, delete",
        module="canarium_cli.jobs",
        extra="cli",
    ),
    "cluster": Command(
        summary="a real Kubernetes on this machine: up, down, status, logs, load, kubeconfig",
        module="canarium_devcluster.__main__",
        extra="devcluster",
    ),
    "demo": Command(
        summary="watch a good version promoted and a bad one taken back",
        module="canarium_demo.__main__",
        extra="demo",
    ),
}


def usage() -> str:
    """Write the list of commands."""
    lines = [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return (
        "usage: canarium COMMAND [OPTIONS]\n\n"
        + "\n".join(lines)
        + "\n\ncanarium COMMAND --help says more."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, and give its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"canarium {metadata.version('canarium')}")
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"canarium: unknown command {words[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        install = f"pip install 'canarium[{command.extra}]'"
        missing = f"the Python package {error.name!r} is missing"
        print(f"canarium {words[0]}: {missing}: {install}", file=sys.stderr)
        return 2
    sys.argv = [f"canarium {words[0]}", *words[1:]]
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
