"""The process that writes one outcome: `python -m canarium_operator.adapters.git.child`, a job on its standard input.

It holds credentials in memory alone, and ends with its answer as one line of JSON.
"""

import resource
import sys
from typing import Final

from canarium_operator.adapters.git.writing import write
from canarium_operator.core.outcomes.jobs import GitAnswer, from_json

MAX_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""Of data: a repository whose newest commits are huge ends this process, not the operator."""


def main() -> int:
    """Do the job."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, hard))
    job, access = from_json(sys.stdin.read())
    try:
        answer = write(job, access)
    except MemoryError:
        message = f"the newest commits of {job.branch} need more than {MAX_MEMORY_BYTES >> 20} MiB"
        answer = GitAnswer(problem="GitFileUnusable", message=message)
    print(answer.to_json(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
