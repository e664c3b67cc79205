"""The vocabulary that the operator, the runtime and the tools share.

Nothing here does IO, and nothing but pydantic and the standard library is imported, so that each side can
depend on it without inheriting the other's weight.
"""

GROUP = "canarium.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"
SHORT_NAME = "mdep"
