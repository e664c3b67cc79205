"""The server's TLS: certificates from files that are read again when they change; connections live on.

Each handshake takes the context that is current at that moment: the one that the server listens with has a callback
that puts the newest in its place. So a new certificate, and another client CA as well (certificates can be added to a
live context, but never removed), hold from the next connection on.
"""

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from canarium_api.security_config import ClientCertificates, SecuritySettings
from canarium_runtime.errors import LoadError
from canarium_runtime.security.watching import POLL_SECONDS, ReloadError, Watch

_log = logging.getLogger(__name__)
_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
}


class ServerTls:
    """Contexts of one server.

    Args:
        settings: files, and whether clients show certificates.

    Raises:
        LoadError: the files cannot be used.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        assert settings.tls_certificate_file is not None  # noqa: S101 - asked for with TLS only
        assert settings.tls_key_file is not None  # noqa: S101
        self._certificate = settings.tls_certificate_file
        self._key = settings.tls_key_file
        self._client_ca = settings.tls_client_ca_file
        self._asks = settings.tls_client_certificates is not ClientCertificates.NONE
        paths = [self._certificate, self._key, *([self._client_ca] if self._client_ca else [])]
        self._current: ssl.SSLContext | None = None
        self.watch = Watch("tls", [Path(p) for p in paths], self._load)
        self.watch.check()
        if self._current is None:
            message = f"the certificate of the server cannot be used: {self.watch.problem}"
            raise LoadError("InvalidConfig", message)
        self.context: ssl.SSLContext = self._make()
        """What the server listens with."""
        self.context.sni_callback = self._switch

    async def run(self, seconds: float = POLL_SECONDS) -> None:
        """Look after the files until cancelled."""
        await self.watch.run(seconds)

    def _switch(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _load(self) -> None:
        self._current = self._make()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        try:
            # A key with a password would make OpenSSL ask for it on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            raise ReloadError(_explained(error, self._certificate, self._key)) from error
        if self._asks:
            # Always optional to the transport: probes have no certificate. `Guard` refuses who must show one.
            context.verify_mode = ssl.CERT_OPTIONAL
            # A session that is taken up again is not verified again, so it would outlive the CA.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                msg = f"{Path(self._client_ca or '').name}: no certificates (PEM) in it"
                raise ReloadError(msg) from error
        return context


def _explained(error: Exception, certificate: str, key: str) -> str:
    reason = getattr(error, "reason", None) or type(error).__name__
    names = f"{Path(certificate).name} and {Path(key).name}"
    if reason == "KEY_VALUES_MISMATCH":
        return f"{names} do not belong together"
    return f"{names} are not a certificate and its key, both PEM and without a password ({reason})"


def subject_of(certificate: Mapping[str, Any] | None) -> str:
    """Name the owner of a client certificate, for `Credentials.certificate`; "" for none.

    A SPIFFE id (a URI among the alternative names) names workloads better than a subject, so it goes first.

    Args:
        certificate: what `get_extra_info("peercert")` of the transport gives.
    """
    if not certificate:
        return ""
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI" and value.startswith("spiffe://"):
            return str(value)
    parts = [
        f"{_SHORT.get(name, name)}={_escaped(value)}"
        for relative in certificate.get("subject", ())
        for name, value in relative
    ]
    return ",".join(reversed(parts)) or f"serial={certificate.get('serialNumber', '')}"


def _escaped(value: str) -> str:
    """Escape what parts two attributes, as RFC 4514 does, so that no value can pass for two."""
    for special in '\\,+"<>;=':
        value = value.replace(special, "\\" + special)
    return value
