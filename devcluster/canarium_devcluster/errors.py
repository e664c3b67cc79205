"""The one error that reaches the user: what is wrong, and what to do about it.

Everything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class DevclusterError(Exception):
    """Something is wrong that the user can put right."""

    def __init__(self, problem: str, remedy: str = "", details: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        sentence = f"{self.problem}: {self.remedy}" if self.remedy else self.problem
        return f"{self.details.rstrip()}\n{sentence}" if self.details else sentence
