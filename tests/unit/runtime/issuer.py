"""An issuer of tokens on the loopback: discovery, signing keys, and the tokens themselves."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm


class Issuer:
    """Signs tokens, and publishes its keys."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.status = 200
        self.names_itself: str | None = None
        """What its discovery document says; None: the truth."""
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def add_key(self, kid: str, kind: str = "RSA", **more: Any) -> None:
        """Make a key and publish it."""
        if kind == "RSA":
            key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
        else:
            key = ec.generate_private_key(ec.SECP256R1())
            public = json.loads(ECAlgorithm.to_jwk(key.public_key()))
        public.pop("key_ops", None)
        self.keys[kid] = key
        self.published.append({**public, "kid": kid, "use": "sig", **more})

    def token(self, kid: str = "one", algorithm: str = "RS256", **claims: Any) -> bytes:
        """Sign a token that is good but for what is said; a claim at None is left out."""
        now = int(time.time())
        good = {
            "iss": self.url, "aud": "fraud", "sub": "user-7", "exp": now + 300, "iat": now,
            **claims,
        }  # fmt: skip
        payload = {name: value for name, value in good.items() if value is not None}
        return jwt.encode(payload, self.keys[kid], algorithm, headers={"kid": kid}).encode()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Issuer"]:
        """Answer on the loopback."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        self.requests.append(path)
        self.asked.set()
        await self.gate.wait()
        document: Any = {"keys": self.published}
        if path.startswith("/.well-known"):
            document = {"issuer": self.names_itself or self.url, "jwks_uri": f"{self.url}/keys"}
        body = json.dumps(document).encode()
        head = (
            f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()
