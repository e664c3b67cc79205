"""The one error that reaches the user: what went wrong, and what the cluster said about it."""


class DemoError(Exception):
    """The demo cannot go on.

    Args:
        problem: one sentence.
        details: what helps to understand it, several lines.
    """

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.details = details

    def __str__(self) -> str:
        return f"{self.problem}\n{self.details.rstrip()}" if self.details else self.problem
