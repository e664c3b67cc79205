"""`canarium init MODEL`: writes a first manifest from a model's file, and never over a file that is there."""

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli import drafting, options
from canarium_cli.drafting import Draft, ModelFile
from canarium_operator.core import validation

_FORMATS: Final = {".onnx": "onnx", ".pt2": "torch", ".pt": "torch"}
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pth", ".bin", ".ckpt", ".h5", ".keras")
_TYPES: Final = {
    "float": "FP32",
    "double": "FP64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "string": "BYTES",
    "bool": "BOOL",
}
"""ONNX' names of types in the Open Inference Protocol; integers have theirs in capitals."""
app = options.new_app()


class InitError(Exception):
    """No manifest can be written; the message says what to do."""


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
) -> None:
    """Write a first manifest from a model's file: its inputs and outputs, its digest, a name and a version.

    A file that is there is never written over. A model under 1 MB travels as a ConfigMap, for which a
    kustomization.yaml is written beside the manifest, unless one is there.
    """
    try:
        found = read(model)
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


def read(path: Path) -> ModelFile:
    """Read a model's file.

    Raises:
        InitError: it is not there, or not of a format that is served.
    """
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InitError(
            f"{path}: files of this kind run code when they are loaded, or are read by their framework alone, and are "
            "refused: export the model to ONNX (scikit-learn: skl2onnx; torch: torch.export to .pt2), see "
            "docs/tutorial/first-canary.md and docs/howto/serve-torch-models.md"
        )
    if suffix not in _FORMATS:
        kinds = ", ".join(_FORMATS)
        raise InitError(
            f"{path}: its name does not end in one of {kinds}, which are what is served from a file"
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InitError(f"{path}: {error.strerror}") from error
    inputs, outputs = _signature(path) if suffix == ".onnx" else ((), ())
    return ModelFile(
        path=path.absolute(),
        format=_FORMATS[suffix],
        sha256=digest,
        size=size,
        inputs=inputs,
        outputs=outputs,
    )


def _signature(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if importlib.util.find_spec("onnxruntime") is None:
        print(
            "canarium init: inputs and outputs are not read, since onnxruntime is missing: "
            "pip install 'canarium[onnx]'",
            file=sys.stderr,
        )
        return (), ()
    import onnxruntime as ort  # only this needs it

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a class of its own for each status
        raise InitError(f"{path} cannot be read as an ONNX model: {error}") from error
    return (
        tuple(_tensor(tensor) for tensor in session.get_inputs()),
        tuple(_tensor(tensor) for tensor in session.get_outputs()),
    )


def _tensor(tensor: Any) -> str:
    word = str(tensor.type).removeprefix("tensor(").removesuffix(")")
    shape = ", ".join(str(size) if isinstance(size, int) else "?" for size in tensor.shape)
    return f"{tensor.name} {_TYPES.get(word, word.upper())} [{shape}]"


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
    spec = validation.parse_spec(yaml.safe_load(text)["spec"])
    problems = (
        spec if not isinstance(spec, ModelDeploymentSpec) else validation.validate(spec, draft.name)
    )
    if problems:
        raise InitError("\n".join(str(problem) for problem in problems))


def _write(output: Path, model: ModelFile, draft: Draft, text: str) -> list[Path]:
    """Write the manifest, and, for a ConfigMap, a kustomization beside it, unless there is one."""
    files: dict[Path, str] = {output: text}
    beside = output.with_name("kustomization.yaml")
    if _travels(model, draft) and not beside.exists():
        path = os.path.relpath(model.path, output.absolute().parent)
        files[beside] = drafting.kustomization(model, draft, path, output.name)
    for file, content in files.items():
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(content)
        except FileExistsError as error:
            words = f"{file} is there already, and is not written over: remove it, or name another with -o"
            raise InitError(words) from error
        except OSError as error:
            raise InitError(f"{file}: {error.strerror}") from error
    return list(files)


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
        path = os.path.relpath(model.path, output.absolute().parent)
        if path.startswith(".."):
            print(
                f"  kustomize reads no file outside its folder: copy the model beside {output.name}",
                file=sys.stderr,
            )
        command = f"kubectl apply --server-side -k {folder}"
    else:
        command = f"kubectl apply --server-side -f {output}"
        if _travels(model, draft):
            name, key = draft.uri.removeprefix("configmap://").split("/", 1)
            made = f"kubectl create configmap {name} --from-file={key}={model.path}"
            print(f"  its ConfigMap: add it to kustomization.yaml, or {made}")
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
