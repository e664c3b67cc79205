"""Signatures of commits by an SSH key, in the format of OpenSSH's PROTOCOL.sshsig: git, GitHub and GitLab read it."""

import base64
import hashlib
import textwrap
from typing import Final

import paramiko
from dulwich.objects import Commit

from canarium_operator.adapters.git.ssh import load_key

_MAGIC: Final = b"SSHSIG"
_NAMESPACE: Final = b"git"


def sign(commit: Commit, key: str, passphrase: str) -> None:
    """Sign a commit in place.

    Raises:
        problems.RemoteError: the key cannot be used.
    """
    commit.gpgsig = signature_of(commit.as_raw_string(), load_key(key, passphrase))


def signature_of(data: bytes, key: paramiko.PKey) -> bytes:
    """Make the armored signature of some bytes."""
    digest = hashlib.sha512(data).digest()
    signed = _MAGIC + b"".join(map(_string, (_NAMESPACE, b"", b"sha512", digest)))
    # RSA keys must not sign with SHA-1, which is what their own name stands for.
    algorithm = "rsa-sha2-512" if key.get_name() == "ssh-rsa" else None
    raw = key.sign_ssh_data(signed, algorithm).asbytes()
    fields = (key.asbytes(), _NAMESPACE, b"", b"sha512", raw)
    blob = _MAGIC + (1).to_bytes(4, "big") + b"".join(map(_string, fields))
    lines = textwrap.wrap(base64.b64encode(blob).decode(), 70)
    armored = ["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----"]
    return "\n".join(armored).encode()


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
