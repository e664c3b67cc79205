"""`python -m canarium_runtime`: serve one model, as the environment says (see `canarium_api.runtime_config`)."""

import logging
import os
import sys

from pydantic import ValidationError

from canarium_api.runtime_config import LoadFailure, RuntimeConfig
from canarium_runtime import logs, server, termination


def main() -> int:
    """Run the server; the exit code."""
    logs.configure("info")
    try:
        config = RuntimeConfig.from_env(os.environ)
    except ValidationError as error:
        message = f"settings are wrong: {RuntimeConfig.describe(error)}"
        failure = LoadFailure(reason="InvalidConfig", message=message, permanent=True)
        logging.getLogger(__name__).error(failure.message)
        termination.write(failure)
        return 2
    logs.configure(config.log_level)
    return server.run(config)


if __name__ == "__main__":
    sys.exit(main())
