"""`python -m canarium_runtime`: serve one model, as the environment says (see `canarium_api.runtime_config`)."""

import logging
import os
import sys

from pydantic import ValidationError

from canarium_api.runtime_config import PREFIX, LoadFailure, RuntimeConfig
from canarium_runtime import logs, server, termination


def main() -> int:
    """Run the server; the exit code."""
    logs.configure("info")
    try:
        config = RuntimeConfig.from_env(os.environ)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors(include_input=False)
        )
        failure = LoadFailure(
            reason="InvalidConfig", message=f"settings are wrong: {problems}", permanent=True
        )
        logging.getLogger(__name__).error(failure.message)
        termination.write(failure)
        return 2
    logs.configure(config.log_level)
    return server.run(config)


if __name__ == "__main__":
    sys.exit(main())
