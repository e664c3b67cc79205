"""What can go wrong with jobs, besides one row.

JobError
  SourceError       the rows cannot be read, ever: the job fails with the message
  UnreachableError  a host cannot be reached, or may not be
  StoreError        Redis does not answer as it should: try again later
  TransientError    a chunk could not be run now: another attempt may work
"""


class JobError(Exception):
    """Base of all; the message is for people and has no secrets."""


class SourceError(JobError):
    """The rows of a job cannot be read."""


class UnreachableError(JobError):
    """A request was not sent, or got no answer."""


class StoreError(JobError):
    """Redis failed."""


class TransientError(JobError):
    """Try the chunk again."""
