"""Errors of the dashboard. Each message is read by a person, and says what to do.

```
DashboardError
├── SignedOutError       401  no credentials, or none that are accepted
├── ForbiddenError       403  the API server, or the page's guard, says no
├── MissingError         404  there is no such object
├── BadRequestError      400  the request is not one
├── BusyError            503  a bound is reached
└── UnreachableError     502  the API server, or Prometheus, gives no answer
```
"""

from typing import ClassVar


class DashboardError(Exception):
    """Whatever a page is told instead of an answer."""

    status: ClassVar[int] = 500
    """Of HTTP."""


class SignedOutError(DashboardError):
    """Nobody is signed in, or the API server does not accept the token."""

    status = 401


class ForbiddenError(DashboardError):
    """Not allowed."""

    status = 403


class MissingError(DashboardError):
    """There is no such object."""

    status = 404


class BadRequestError(DashboardError):
    """The request cannot be understood, or does not fit."""

    status = 400


class BusyError(DashboardError):
    """Too much is open already."""

    status = 503


class UnreachableError(DashboardError):
    """Another server did not answer, or not as it should."""

    status = 502
