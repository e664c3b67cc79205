"""TLS of the gRPC server, from the same files as that of HTTP; a new certificate holds from the next connection on.

One limitation: gRPC asks clients for certificates always or never. Where they are optional, clients of gRPC are not
asked, and come with keys or tokens.
"""

import logging
from pathlib import Path
from typing import Any

import grpc

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.security_config import ClientCertificates
from canarium_runtime.errors import LoadError

_log = logging.getLogger(__name__)


def credentials_of(config: RuntimeConfig) -> grpc.ServerCredentials:
    """Make the credentials of a server that has a certificate.

    Raises:
        LoadError: InvalidConfig: the files cannot be read.
    """
    try:
        held = _read(config)
    except OSError as error:
        message = f"the certificate of the gRPC server cannot be read: {error.strerror}"
        raise LoadError("InvalidConfig", message) from error

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal held
        try:
            found = _read(config)
        except OSError:
            return None  # the HTTP server's watch says so
        if found == held:
            return None
        held = found
        _log.info("gRPC: new certificates are in force")
        return _configuration(found)

    required = config.tls_client_certificates is ClientCertificates.REQUIRED
    first: Any = renewed  # its types do not know that it may give None: nothing new
    return grpc.dynamic_ssl_server_credentials(_configuration(held), first, required)


def _read(config: RuntimeConfig) -> tuple[bytes, bytes, bytes | None]:
    assert config.tls_key_file is not None  # noqa: S101 - asked for with TLS only
    assert config.tls_certificate_file is not None  # noqa: S101
    ca = config.tls_client_ca_file
    return (
        Path(config.tls_key_file).read_bytes(),
        Path(config.tls_certificate_file).read_bytes(),
        Path(ca).read_bytes() if ca else None,
    )


def _configuration(
    held: tuple[bytes, bytes, bytes | None],
) -> grpc.ServerCertificateConfiguration:
    key, chain, ca = held
    return grpc.ssl_server_certificate_configuration([(key, chain)], ca)
