"""Requests of the user's own that are run before ready: declared in the spec, in a file, or in the artefact itself.

They are bodies as clients send them, so they go through decoding, validation and the whole backend: preprocessing,
model and postprocessing. One that fails means that clients' requests would fail, so the server does not become ready.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canarium_api.model_types import ModelFormat
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.backends import archives
from canarium_runtime.backends.base import Array, Backend, BackendError
from canarium_runtime.errors import LoadError, ServingError
from canarium_runtime.repository import Repository
from canarium_runtime.rest.codec import Identity
from canarium_runtime.rest.plain import PredictCodec
from canarium_runtime.rest.v2 import V2Codec
from canarium_runtime.validation import ValidatedInputs

MEMBER: Final = "warmup.jsonl"
"""Name of the file at the top of a zip artefact."""
MAX_SAMPLES: Final = 1000
MAX_FILE_BYTES: Final = 64 * 1024**2
_NOBODY: Final = Identity("", "", "")
"""Only answers say who gave them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, and where it is from."""

    origin: str
    """For messages: `warmup.samples[0]`, `warmup.jsonl line 3`."""
    body: bytes


def collect(config: RuntimeConfig, artefact: Path, repository: Repository) -> list[Sample]:
    """Gather all of them.

    Args:
        config: settings.
        artefact: the verified artefact.
        repository: fetches the file, when one is named.

    Raises:
        LoadError: the file cannot be fetched or read, or there are too many.
    """
    found = [
        Sample(f"warmup.samples[{index}]", json.dumps(body).encode())
        for index, body in enumerate(config.warmup_samples)
    ]
    if config.warmup_uri is not None:
        file = repository.fetch(config.warmup_uri, config.warmup_sha256)
        if file.size_bytes > MAX_FILE_BYTES:
            raise _refused(f"the file of model.warmup.uri has more than {MAX_FILE_BYTES} bytes")
        found.extend(_lines("model.warmup.uri", file.path.read_bytes()))
    if config.model_format in {ModelFormat.PYTHON, ModelFormat.CHAIN}:
        found.extend(_in_archive(artefact))
    if len(found) > MAX_SAMPLES:
        raise _refused(f"there are {len(found)} requests for the warm-up, more than {MAX_SAMPLES}")
    return found


def _in_archive(artefact: Path) -> Iterator[Sample]:
    if not zipfile.is_zipfile(artefact):
        return
    try:
        with zipfile.ZipFile(artefact) as archive:
            if MEMBER not in archive.namelist():
                return
            with archive.open(MEMBER) as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except archives.DAMAGED:
        return  # whoever opens the archive says it better
    if len(content) > MAX_FILE_BYTES:
        raise _refused(f"{MEMBER} in the artefact has more than {MAX_FILE_BYTES} bytes")
    yield from _lines(MEMBER, content)


def _lines(name: str, content: bytes) -> Iterator[Sample]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            yield Sample(f"{name} line {number}", line)


def run(backend: Backend, samples: Sequence[Sample]) -> list[Mapping[str, Array]]:
    """Run them. Call in a worker thread.

    Returns:
        The inputs of each: examples of what clients send.

    Raises:
        LoadError: WarmupFailed, with the request and the reason.
    """
    examples: list[Mapping[str, Array]] = []
    for sample in samples:
        try:
            inputs = _inputs_of(backend, sample.body)
            backend.infer(inputs.arrays, inputs.outputs)
            examples.append(inputs.arrays)
        except (ServingError, BackendError) as error:
            msg = f"{sample.origin} fails: {error}. Change the request or the model: clients' requests would fail, too."
            raise LoadError("WarmupFailed", msg, permanent=True) from error
    return examples


def _inputs_of(backend: Backend, body: bytes) -> ValidatedInputs:
    """Read a body of whichever protocol: V2's `inputs` is an array."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None  # the codec says what is wrong with it
    v2 = isinstance(document, dict) and isinstance(document.get("inputs"), list)
    codec = V2Codec if v2 else PredictCodec
    return codec(backend.spec, _NOBODY).decode(body, None).inputs


def _refused(why: str) -> LoadError:
    return LoadError("WarmupFailed", f"{why}: use fewer", permanent=True)
