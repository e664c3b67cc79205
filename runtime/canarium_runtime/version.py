"""Version of this server."""

from importlib.metadata import PackageNotFoundError, version


def server_version() -> str:
    """Version of the installed distribution; "0" in an image that copies only the sources."""
    try:
        return version("canarium")
    except PackageNotFoundError:
        return "0"
