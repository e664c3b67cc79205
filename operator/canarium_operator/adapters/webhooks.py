"""`ports.Webhooks` over HTTP, by way of aiohttp."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from canarium_operator.errors import WebhookError

_MAX_ANSWER: Final = 64 * 1024
"""Bytes that are read of an answer."""


class HttpWebhooks:
    """Posts JSON documents; redirects are not followed, since a bearer token must not travel on."""

    async def post(
        self, url: str, token: str | None, body: Mapping[str, Any], timeout: float
    ) -> tuple[int, Any]:
        """Post a document.

        Args:
            url: where to.
            token: bearer token, or None.
            body: a JSON document.
            timeout: seconds for all of it.

        Returns:
            The status, and the answer as JSON; None where it is none.

        Raises:
            WebhookError: no answer. The message names the host alone: a webhook's path is a secret.
        """
        headers = {"User-Agent": "canarium-operator"}
        if token:
            headers["Authorization"] = f"Bearer {token.strip()}"
        host = urlsplit(url).hostname or "the URL"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout)) as session,
                session.post(url, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                return answer.status, _document(await answer.content.read(_MAX_ANSWER))
        except TimeoutError:
            msg = f"{host} did not answer within {timeout:g} s"
            raise WebhookError(msg) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            msg = f"{host} cannot be reached ({type(error).__name__})"
            raise WebhookError(msg) from None


def _document(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
