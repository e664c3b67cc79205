"""Git over ssh by way of paramiko: only hosts that `known_hosts` names are spoken to. Loaded only where ssh is used."""

import io
from typing import IO, Any, Final

import paramiko
from dulwich.client import SSHVendor

from canarium_operator.adapters.git.problems import RemoteError

CONNECT_TIMEOUT: Final = 15.0
"""Seconds for each of the connection's stages."""
READ_TIMEOUT: Final = 60.0
"""Longest silence of the server, in seconds."""


def load_key(text: str, passphrase: str) -> paramiko.PKey:
    """Read a private key: ed25519, ECDSA or RSA.

    Raises:
        RemoteError: it is none of these, or its passphrase is another one.
    """
    kinds = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
    text = text.strip() + "\n"
    for kind in kinds:
        try:
            return kind.from_private_key(io.StringIO(text), password=passphrase or None)
        except paramiko.PasswordRequiredException as error:
            msg = "the key 'identity' is encrypted: put its passphrase under 'password'"
            raise RemoteError("GitSecretUnusable", msg) from error
        except (paramiko.SSHException, ValueError, IndexError, TypeError):
            continue
    msg = "the key 'identity' is no private key of ed25519, ECDSA or RSA, or 'password' is not its passphrase"
    raise RemoteError("GitSecretUnusable", msg)


class KnownHostsVendor(SSHVendor):
    """Runs a git command on a host that is known."""

    def __init__(self, identity: str, passphrase: str, known_hosts: str) -> None:
        """Prepare.

        Args:
            identity: private key.
            passphrase: of the key; empty: it has none.
            known_hosts: lines as in `~/.ssh/known_hosts`.
        """
        self._key = load_key(identity, passphrase)
        self._hosts = _parse_known_hosts(known_hosts)

    def run_command(
        self,
        host: str,
        command: bytes,
        username: str | None = None,
        port: int | None = None,
        password: str | None = None,
        key_filename: str | None = None,
        ssh_command: str | None = None,
        protocol_version: int | None = None,
    ) -> Any:
        """Connect and start the command; see `dulwich.client.SSHVendor`."""
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for entry in self._hosts:
            for name in entry.hostnames:
                client.get_host_keys().add(name, entry.key.get_name(), entry.key)
        try:
            client.connect(
                host,
                port=port or 22,
                username=username or "git",
                pkey=self._key,
                look_for_keys=False,
                allow_agent=False,
                timeout=CONNECT_TIMEOUT,
                banner_timeout=CONNECT_TIMEOUT,
                auth_timeout=CONNECT_TIMEOUT,
            )
            transport = client.get_transport()
            assert transport is not None  # noqa: S101 - connected
            channel = transport.open_session(timeout=CONNECT_TIMEOUT)
            channel.settimeout(READ_TIMEOUT)
            channel.exec_command(command)
        except paramiko.AuthenticationException as error:
            client.close()
            msg = f"{host} does not take the key of the Secret"
            raise RemoteError("GitAccessDenied", msg) from error
        except paramiko.BadHostKeyException as error:
            client.close()
            msg = f"{host} has another host key than 'known_hosts' says: if it was replaced, correct the Secret"
            raise RemoteError("GitAccessDenied", msg) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            client.close()
            if "not found in known_hosts" in str(error):
                msg = f"'known_hosts' does not name {host}: add the line that ssh-keyscan gives, after comparing it"
                raise RemoteError("GitSecretUnusable", msg) from error
            msg = f"{host} cannot be reached by ssh: {_words(error)}"
            raise RemoteError("GitUnreachable", msg) from error
        return _Connection(client, channel)


class _Connection:
    """A running command, as dulwich wants it."""

    def __init__(self, client: paramiko.SSHClient, channel: paramiko.Channel) -> None:
        self._client = client
        self._channel = channel
        self.stderr: IO[bytes] = channel.makefile_stderr("rb")

    def read(self, size: int | None = None) -> bytes:
        """Read all of `size` bytes, as a file does, or what is left."""
        found = b""
        while size is None or len(found) < size:
            part = self._channel.recv(min(size - len(found), 65536) if size else 65536)
            if not part:
                break
            found += part
        return found

    def write(self, data: bytes) -> int:
        """Write all."""
        self._channel.sendall(data)
        return len(data)

    def can_read(self) -> bool:
        """Tell whether something has come."""
        return bool(self._channel.recv_ready())

    def close(self) -> None:
        """End the connection."""
        self._channel.close()
        self._client.close()


def _parse_known_hosts(text: str) -> list[Any]:
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line, number)
        except (paramiko.SSHException, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
            msg = f"line {number} of 'known_hosts' cannot be read"
            raise RemoteError("GitSecretUnusable", msg) from error
        if entry is not None:
            entries.append(entry)
    if not entries:
        msg = "the Secret has no 'known_hosts': without it no host is trusted"
        raise RemoteError("GitSecretUnusable", msg)
    return entries


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
