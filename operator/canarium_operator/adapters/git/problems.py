"""What can go wrong with a repository elsewhere, in this package's own words."""


class RemoteError(Exception):
    """The repository could not be read or written.

    Attributes:
        reason: a value of `conditions.Reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MovedError(Exception):
    """The ref is not where it was."""
