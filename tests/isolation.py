"""Install each part alone into an empty environment, import it, and look for what must not be there.

The images are made of the same extras, so this is what keeps torch out of the operator and kopf out of the runtime.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = {
    "operator": (
        "operator",
        [
            "canarium_api",
            "canarium_operator.__main__",
            "canarium_operator.adapters.forges",
            "canarium_operator.adapters.git.child",
            "canarium_operator.adapters.git.signing",
        ],
        ["torch", "onnxruntime", "numpy", "fastapi", "sklearn"],
    ),
    "runtime": (
        "runtime,onnx",
        [
            "canarium_api",
            "canarium_runtime.__main__",
            "canarium_runtime.loader",
            "canarium_runtime.backends.onnx",
            "canarium_runtime.backends.python",
            "canarium_runtime.backends.chain",
            "canarium_runtime.caching",
        ],
        ["redis", "sqlalchemy", "grpc", "kopf", "kubernetes", "torch", "prometheus_api_client"],
    ),
    "dashboard": (
        "dashboard",
        ["canarium_api", "canarium_dashboard.__main__"],
        ["torch", "onnxruntime", "numpy", "kopf", "prometheus_api_client", "redis"],
    ),
}
PROBE = """
import importlib, importlib.util, sys
for name in {present!r}:
    importlib.import_module(name)
bad = [name for name in {absent!r} if importlib.util.find_spec(name)]
sys.exit(f"must not be installed: {{', '.join(bad)}}" if bad else 0)
"""


def main() -> int:
    """Check all parts; gives the number of failures."""
    failures = 0
    for name, (extras, present, absent) in PARTS.items():
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder) / "bin" / "python"
            print(f"{name}: installing canarium[{extras}] alone", flush=True)
            venv.create(folder, with_pip=True)
            install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            constraints = ["--constraint", str(ROOT / "constraints.txt")]
            subprocess.run([*install, *constraints, f"{ROOT}[{extras}]"], check=True)
            probe = PROBE.format(present=present, absent=absent)
            done = subprocess.run([python, "-c", probe], cwd=folder, check=False)
            failures += done.returncode != 0
            print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
