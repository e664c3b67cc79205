"""`canarium init MODEL`: writes a first manifest from a model's file, and never over a file that is there."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli import drafting, options, updating
from canarium_cli.drafting import Draft, ModelFile
from canarium_cli.model_files import InitError, read
from canarium_operator.core import validation

app = options.new_app()


@app.command()
def init(
    model: Annotated[Path, typer.Argument(help="File of the model: .onnx, .pt2 or .pt.")],
    name: Annotated[str, typer.Option(help="Of the ModelDeployment. Default: from the path.")] = "",
    version: Annotated[
        str, typer.Option(help="Of the model. Default: from the path, else 1.")
    ] = "",
    uri: Annotated[
        str,
        typer.Option(
            help="Where pods fetch it: https://, pvc://, configmap://, file://. Default: a ConfigMap."
        ),
    ] = "",
    gateway: Annotated[
        str,
        typer.Option(help="Gateway that splits the traffic: NAMESPACE/NAME.", metavar="NS/NAME"),
    ] = "",
    hostname: Annotated[
        list[str] | None, typer.Option(help="Name at the gateway; may be repeated.")
    ] = None,
    namespace: Annotated[
        str,
        typer.Option(
            "-n", "--namespace", help="Written into the manifest; best left to kustomize."
        ),
    ] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write; -: standard output.")
    ] = Path("modeldeployment.yaml"),
    update: Annotated[
        bool,
        typer.Option(
            "--update", help="Put a new version into the manifest that is there; all else stays."
        ),
    ] = False,
) -> None:
    """Write a first manifest from a model's file: its inputs and outputs, its digest, a name and a version.

    A file that is there is never written over. A model under 1 MB travels as a ConfigMap, for which a
    kustomization.yaml is written beside the manifest, unless one is there. With --update, URI, digest and version in
    the manifest become the new model's, and kustomization.yaml gets its ConfigMap; comments and all else stay.
    """
    try:
        found = read(model)
        if update:
            if name or gateway or hostname or namespace:
                raise InitError(
                    "--update changes URI, digest and version alone: leave out all other options but --version, "
                    "--uri and -o"
                )
            _update(output, found, version, uri)
            return
        draft = _draft(found, name, version, uri, gateway, hostname or [], namespace)
        text = drafting.manifest(found, draft)
        _check(text, draft)
        if str(output) == "-":
            print(text, end="")
            return
        written = _write(output, found, draft, text)
    except InitError as error:
        options.fail(str(error))
    _say(found, draft, written, output)


def _draft(
    model: ModelFile,
    name: str,
    version: str,
    uri: str,
    gateway: str,
    hostnames: list[str],
    namespace: str,
) -> Draft:
    guessed, guessed_version = drafting.guess(model.path)
    name, version = name or guessed, version or guessed_version
    if hostnames and not gateway:
        raise InitError("--hostname names a host at a gateway: give --gateway, too")
    if not uri and model.size > drafting.MAX_CONFIGMAP:
        raise InitError(
            f"{model.path.name} has {model.size} bytes, too many for a ConfigMap: put it where pods reach it, and say "
            "where: --uri https://..., or --uri pvc://CLAIM/PATH"
        )
    if not uri:
        uri = drafting.configmap_uri(model, name, version)
    return Draft(
        name=name,
        version=version,
        uri=uri,
        namespace=namespace,
        gateway=gateway,
        hostnames=hostnames,
    )


def _check(text: str, draft: Draft) -> None:
    """Hold what was written against what the operator takes: nobody shall learn it from a cluster."""
    if len(draft.name) > drafting.MAX_NAME:
        raise InitError(f"--name {draft.name}: at most {drafting.MAX_NAME} characters")
    _check_spec(yaml.safe_load(text)["spec"], draft.name)


def _check_spec(content: dict[str, Any], name: str) -> None:
    spec = validation.parse_spec(content)
    problems = (
        spec if not isinstance(spec, ModelDeploymentSpec) else validation.validate(spec, name)
    )
    if problems:
        raise InitError("\n".join(str(problem) for problem in problems))


def _write(output: Path, model: ModelFile, draft: Draft, text: str) -> list[Path]:
    """Write the manifest, and, for a ConfigMap, a kustomization beside it, unless there is one."""
    files: dict[Path, str] = {output: text}
    beside = output.with_name("kustomization.yaml")
    if _travels(model, draft) and not beside.exists():
        files[beside] = drafting.kustomization(model, draft, _seen_from(output, model), output.name)
    for file, content in files.items():
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(content)
        except FileExistsError as error:
            words = (
                f"{file} is there already, and is not written over: for a new version of its model add --update; else "
                "name another file with -o"
            )
            raise InitError(words) from error
        except OSError as error:
            raise InitError(f"{file}: {error.strerror}") from error
    return list(files)


def _update(output: Path, model: ModelFile, version: str, uri: str) -> None:
    """Put another version of the model into a manifest that is there, and say what changed."""
    guessed, guessed_version = drafting.guess(model.path)
    text = _text_of(output, "leave out --update to write it")
    try:
        update = updating.update_manifest(text, model, guessed, version or guessed_version, uri)
    except updating.UpdateError as problem:
        raise InitError(f"{output} {problem}") from problem
    _check_spec(update.spec, update.name)
    if not update.changed:
        print(f"{output}: {update.name} has these bytes of version {update.after} already")
        return
    changed, hint = {output: update.text}, ""
    if not uri:
        beside, path = output.with_name("kustomization.yaml"), _seen_from(output, model)
        try:
            before = _text_of(beside, "")
            after = updating.add_configmap(before, model, update, path)
            changed = {beside: after, **changed} if after != before else changed
        except (InitError, updating.UpdateError):
            hint = _by_hand(update.uri, model)
    for file, content in changed.items():
        _replace(file, content)
    print(f"{output}: {update.name}, version {update.before or '(none)'} -> {update.after}")
    if hint:
        print(f"  its ConfigMap: {hint}")
    elif len(changed) > 1:
        made = drafting.configmap_name(update.name, update.after)
        print(f"{beside}: ConfigMap {made}; leave the others until no version needs them")
    print(f"  what it would do: canarium diff --from HEAD {output}")


def _text_of(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InitError(f"{path} is not there: {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InitError(f"{path} cannot be read: {error}") from error


def _replace(path: Path, content: str) -> None:
    """Replace a file in one step."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InitError(f"{path}: {error.strerror}") from error


def _seen_from(output: Path, model: ModelFile) -> str:
    return os.path.relpath(model.path, output.absolute().parent)


def _by_hand(uri: str, model: ModelFile) -> str:
    name, key = uri.removeprefix("configmap://").split("/", 1)
    made = f"kubectl create configmap {name} --from-file={key}={model.path}"
    return f"add it to kustomization.yaml, or {made}"


def _travels(model: ModelFile, draft: Draft) -> bool:
    """Tell whether the model goes into a ConfigMap that is made for it."""
    return draft.uri == drafting.configmap_uri(model, draft.name, draft.version)


def _say(model: ModelFile, draft: Draft, written: list[Path], output: Path) -> None:
    print(f"{' and '.join(str(path) for path in written)}: {draft.name}, version {draft.version}")
    for kind, tensors in (("takes", model.inputs), ("gives", model.outputs)):
        if tensors:
            print(f"  {kind} {', '.join(tensors)}")
    folder = str(output.parent)
    if len(written) > 1:
        if _seen_from(output, model).startswith(".."):
            print(
                f"  kustomize reads no file outside its folder: copy the model beside {output.name}",
                file=sys.stderr,
            )
        command = f"kubectl apply --server-side -k {folder}"
    else:
        command = f"kubectl apply --server-side -f {output}"
        if _travels(model, draft):
            print(f"  its ConfigMap: {_by_hand(draft.uri, model)}")
    print(f"  try the model here: canarium serve {model.path}")
    where = f" -n {draft.namespace}" if draft.namespace else ""
    print(f"  then: {command}, and canarium watch {draft.name}{where}")


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
