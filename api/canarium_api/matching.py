"""How a request is told from others: a header, a cookie, a key."""

from pydantic import Field

from canarium_api.base import ApiModel, rules

HEADER_PATTERN = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"
COOKIE_VALUE_PATTERN = r"^[A-Za-z0-9!#$%&'()*+\-./:<=>?@\[\]^_`{|}~]+$"
"""Characters that a cookie's value may have (RFC 6265, section 4.1.1)."""


class HeaderMatch(ApiModel):
    """A header that selects a revision."""

    name: str = Field(min_length=1, max_length=256, pattern=HEADER_PATTERN)
    """Name of the header; case does not matter."""
    value: str = Field(min_length=1, max_length=4096)
    """Its exact value."""


class CookieMatch(ApiModel):
    """A cookie that selects a revision."""

    name: str = Field(min_length=1, max_length=256, pattern=HEADER_PATTERN)
    """Name of the cookie; case matters."""
    value: str = Field(min_length=1, max_length=1024, pattern=COOKIE_VALUE_PATTERN)
    """Its exact value."""


class KeySource(ApiModel):
    """Where a request carries the key of its user."""

    model_config = rules(
        (
            "has(self.header) != has(self.cookie)",
            "abTest.sticky takes either header or cookie: name the one that carries the key of a user",
        ),
    )

    header: str | None = Field(default=None, min_length=1, max_length=256, pattern=HEADER_PATTERN)
    """Name of the header that holds the key, such as `x-user-id`."""
    cookie: str | None = Field(default=None, min_length=1, max_length=256, pattern=HEADER_PATTERN)
    """Name of the cookie that holds the key."""
