"""`python -m canarium_runtime`: serve one model, as the environment says (see `canarium_api.runtime_config`).

Imported only once it is known: the server, or the parent of several, which needs none of the server's libraries.
"""

import logging
import os
import sys

from pydantic import ValidationError

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import LoadFailure, RuntimeConfig
from canarium_runtime import cgroup, logs, termination
from canarium_runtime.processes import shares


def main() -> int:
    """Run the server; the exit code."""
    logs.configure("info")
    reading: type[RuntimeConfig | JobsConfig] = RuntimeConfig
    try:
        config = RuntimeConfig.from_env(os.environ)
        reading = JobsConfig
        jobs = JobsConfig.from_env(os.environ)
    except ValidationError as error:
        message = f"settings are wrong: {reading.describe(error)}"
        failure = LoadFailure(reason="InvalidConfig", message=message, permanent=True)
        logging.getLogger(__name__).error(failure.message)
        termination.write(failure)
        return 2
    logs.configure(config.log_level)
    count = shares.count(config, cgroup.usable_cpus())
    if count > 1:
        from canarium_runtime.processes import parent

        return parent.run(config, count)
    from canarium_runtime import server

    return server.run(config, jobs)


if __name__ == "__main__":
    sys.exit(main())
