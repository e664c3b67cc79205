"""`canarium serve MODEL`: the inference server on this machine, without a cluster.

The server is that of the cluster, configured by the same settings; this adds flags, errors in words, and at a terminal
the lines that say where it is and how to ask it. Nothing of the server is imported before it is to run.
"""

import argparse
import errno
import importlib.util
import json
import logging
import os
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from canarium_api.runtime_config import RuntimeConfig
from canarium_cli.serve_settings import UsageError, settings

_LIBRARIES: Final = {"onnx": "onnxruntime", "torch": "torch"}
"""What some formats need besides the server itself; the extra is named as the format."""
_SERVER: Final = ("uvicorn", "uvloop", "fastapi", "numpy", "orjson", "prometheus_client")
_POLL_SECONDS: Final = 0.1
_MAX_ELEMENTS: Final = 64
"""Of the inputs of an example that is to be pasted."""
_EXAMPLES: Final = {"BYTES": "text", "BOOL": False}
_LOCAL_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - to say how to reach it


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="canarium serve",
        description="Serve a model on this machine, as pods serve it in a cluster.",
        epilog="Every setting of docs/reference/settings.md can be given by --set, in --config, or as CANARIUM_*.",
    )
    made.add_argument("model", metavar="MODEL", nargs="?", help="path or URI of the model")
    made.add_argument(
        "--config", type=Path, metavar="FILE", help="a ModelDeployment, or settings, in YAML"
    )
    made.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="one setting; may be repeated"
    )
    made.add_argument("--name", help="name in URLs (default: model)")
    made.add_argument("--version", help="version in URLs and answers (default: 1)")
    made.add_argument("--sha256", metavar="DIGEST", help="serve nothing else")
    made.add_argument(
        "--format", help="format of the model (default: by the name of the file, else onnx)"
    )
    made.add_argument("--port", help="port (default: 8080)")
    made.add_argument(
        "--host",
        help="address to listen on (default: 127.0.0.1, this machine; 0.0.0.0: every network)",
    )
    made.add_argument(
        "--workers", metavar="N", help="batches that run at the same time (default: 1)"
    )
    made.add_argument(
        "--processes", metavar="N", help="serving processes; auto: one a CPU (default: 1)"
    )
    made.add_argument("--max-batch-size", metavar="N", help="most rows in one run (default: 32)")
    made.add_argument(
        "--max-delay", metavar="DURATION", help="longest wait for a batch (default: 100ms)"
    )
    made.add_argument(
        "--log-level", help="debug, info, warning or error (default: info; at a terminal: warning)"
    )
    return made


def main() -> int:
    """Run the command that `sys.argv` holds; the exit status."""
    words = parser().parse_args()
    terminal = sys.stdout.isatty()
    try:
        config = settings(words, os.environ)
        if terminal and "log_level" not in config.model_fields_set:
            config = config.model_copy(update={"log_level": "warning"})
        _check_libraries(config)
        _check_port(config)
    except UsageError as error:
        print(f"canarium serve: {error}", file=sys.stderr)
        return 2
    try:
        return _serve(config, terminal=terminal)
    except KeyboardInterrupt:  # before the server took the signals
        return 130


def _serve(config: RuntimeConfig, *, terminal: bool) -> int:
    """Run the server in this process, told by the environment, as it is in a pod."""
    from canarium_runtime import __main__ as runtime

    os.environ.update(config.to_env())
    os.environ.setdefault("CANARIUM_TERMINATION_LOG", os.devnull)
    os.environ["CANARIUM_LOG_FORMAT"] = "text" if terminal else "json"
    if terminal:
        print(f"Loading {_shown(config.model_uri)} ... (Ctrl-C stops)", flush=True)
    threading.Thread(target=_announce, args=(config, terminal), daemon=True).start()
    return runtime.main()


def _check_libraries(config: RuntimeConfig) -> None:
    own = _LIBRARIES.get(config.model_format.value)
    missing = [n for n in (own, *_SERVER) if n and importlib.util.find_spec(n) is None]
    if missing:
        extras = f"runtime,{config.model_format.value}" if own else "runtime"
        msg = f"the Python package {missing[0]!r} is missing: pip install 'canarium[{extras}]'"
        raise UsageError(msg)


def _check_port(config: RuntimeConfig) -> None:
    """Find out now what would otherwise be known only after the model is loaded, in other words."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror as error:
        msg = f"--host {config.host}: not an address of this machine ({error.strerror})"
        raise UsageError(msg) from error
    except OSError as error:
        where = f"port {config.port} of {config.host}"
        if error.errno == errno.EADDRINUSE:
            msg = f"{where} is in use by another program: stop that, or choose another with --port"
        elif error.errno == errno.EACCES:
            msg = f"{where} is not for ordinary users: choose one above 1023 with --port"
        else:
            msg = f"{where} cannot be had: {error.strerror}"
        raise UsageError(msg) from error


def _announce(config: RuntimeConfig, terminal: bool) -> None:
    """Wait until the server is ready, and say where it is."""
    host = _LOCAL_HOSTS.get(config.host, f"[{config.host}]" if ":" in config.host else config.host)
    url = f"{'https' if config.tls_certificate_file else 'http'}://{host}:{config.port}"
    started = time.monotonic()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is this very process
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )

    def get(path: str) -> Any:
        with opener.open(url + path, timeout=5) as answer:
            return json.load(answer)

    while True:
        try:
            get("/v2/health/ready")
            break
        except (OSError, ValueError, urllib.error.URLError):
            time.sleep(_POLL_SECONDS)
    if terminal:
        try:
            inputs = get(f"/v2/models/{config.model_name}")["inputs"]
        except (OSError, ValueError, KeyError):
            inputs = []  # clients must say who they are
        print(text(config, url, inputs, time.monotonic() - started), flush=True)
    else:
        log = logging.getLogger(__name__)
        log.info("the model is served", extra={"doors": doors(config, url)})


def doors(config: RuntimeConfig, url: str) -> dict[str, str]:
    """Where the server can be asked for what."""
    found = {
        "predict": f"{url}/predict",
        "V2": f"{url}/v2/models/{config.model_name}/infer",
        "docs": f"{url}/docs",
        "health": f"{url}/health",
        "metrics": f"{url}/metrics",
    }
    if port := getattr(config, "grpc_port", None):
        found["gRPC"] = f"{urlsplit(url).hostname}:{port}"
    return found


def text(
    config: RuntimeConfig, url: str, inputs: Sequence[Mapping[str, Any]], seconds: float
) -> str:
    """Write what a person wants to know when the server is ready.

    Args:
        config: settings.
        url: of the server, from this machine.
        inputs: what its model takes (`/v2/models/NAME`); empty: not known.
        seconds: how long it took.
    """
    processes = "" if config.processes == 1 else ", several processes"
    lines = [
        f"Ready after {seconds:.1f} s: model {config.model_name!r}, version {config.model_version}{processes}",
        *(f"  {name:<8} {where}" for name, where in doors(config, url).items()),
    ]
    if config.host in ("127.0.0.1", "::1", "localhost"):
        lines.append("Only this machine reaches it; --host 0.0.0.0 lets others in.")
    return "\n".join([*lines, *(["", *example(url, inputs)] if inputs else [])])


def example(url: str, inputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write a request of the right shape, to be pasted; where that would be long, say what is expected."""
    values: dict[str, Any] = {}
    for tensor in inputs:
        shape = [1 if size < 0 else size for size in tensor["shape"]]
        value = _EXAMPLES.get(tensor["datatype"], 0)
        for size in reversed(shape):
            value = [value] * min(size, _MAX_ELEMENTS + 1)
        values[tensor["name"]] = value
    if json.dumps(values).count(",") > _MAX_ELEMENTS:
        expected = ", ".join(f"{t['name']} {t['datatype']} {t['shape']}" for t in inputs)
        return [f"It takes {expected}: see {url}/docs for how to send that."]
    body = json.dumps({"inputs": values})
    quoted = body.replace("'", "'\\''")
    return ["Try it:", f"  curl {url}/predict -H 'Content-Type: application/json' -d '{quoted}'"]


def _shown(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return unquote(parts.path)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"  # no password, no signature


if __name__ == "__main__":
    sys.exit(main())
