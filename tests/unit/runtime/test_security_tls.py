"""TLS with real handshakes: what is spoken, and what a change of the files does."""

import asyncio
import contextlib
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.errors import LoadError
from canarium_runtime.security.tls import ServerTls, subject_of


class Files:
    """Certificate, key and client CA of a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.issue(self.authority)
        self.clients.cert_pem.write_to_path(folder / "ca.crt")

    def issue(self, authority: trustme.CA) -> None:
        """Write a new certificate."""
        made = authority.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(self.folder / "tls.key")
        made.cert_chain_pems[0].write_to_path(self.folder / "tls.crt")

    def settings(self, **more: Any) -> RuntimeConfig:
        return RuntimeConfig(
            model_uri="file:///m",
            tls_certificate_file=str(self.folder / "tls.crt"),
            tls_key_file=str(self.folder / "tls.key"),
            tls_client_ca_file=str(self.folder / "ca.crt"),
            **more,
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@contextlib.asynccontextmanager
async def serving(tls: ServerTls) -> AsyncIterator[int]:
    """A server that answers each line with the subject of its client; gives the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await reader.readline():
                peer = subject_of(writer.get_extra_info("peercert"))
                writer.write(f"{peer or 'nobody'}\n".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def client_context(
    authority: trustme.CA, certificate: trustme.LeafCert | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"who am I\n")
    return (await reader.readline()).decode().strip()


async def met(port: int, context: ssl.SSLContext) -> str:
    """Connect, ask once and leave; "" where the server hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return await ask(reader, writer)
    finally:
        writer.close()


async def test_modern_tls_with_http_1(files: Files) -> None:
    """TLS 1.2 and 1.3 with ALPN; nothing older, and not plain."""
    async with serving(ServerTls(files.settings())) as port:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(files.authority)
            context.minimum_version = context.maximum_version = version
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            writer.close()
        old = client_context(files.authority)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old)


async def test_a_new_certificate_is_taken_and_connections_live_on(files: Files) -> None:
    """World: an open connection; event: a certificate of another authority; world: both go on."""
    tls = ServerTls(files.settings())
    async with serving(tls) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(files.authority)
        )
        other = trustme.CA()
        files.issue(other)
        assert tls.watch.check()
        with pytest.raises(ssl.SSLCertVerificationError):
            await met(port, client_context(files.authority))
        assert await met(port, client_context(other)) == "nobody"
        assert await ask(reader, writer) == "nobody"
        writer.close()


async def test_broken_files_leave_the_old_certificate_in_force(files: Files) -> None:
    """World: a key of another certificate; event: a look; world: as before, and said."""
    tls = ServerTls(files.settings())
    async with serving(tls) as port:
        files.authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(
            files.folder / "tls.key"
        )
        assert not tls.watch.check()
        assert "tls.crt and tls.key do not belong together" in tls.watch.problem
        assert await met(port, client_context(files.authority)) == "nobody"


@pytest.mark.parametrize("mode", ["Optional", "Required"])
async def test_client_certificates_name_their_owner(files: Files, mode: str) -> None:
    """One that is shown is checked. Who has none comes in too, as probes must; the guard does the rest."""
    tls = ServerTls(files.settings(tls_client_certificates=mode))
    mine = files.clients.issue_cert("bob.clients", common_name="bob", organization_name="Acme, Inc")
    strange = trustme.CA().issue_cert("eve.clients", common_name="eve")
    async with serving(tls) as port:
        named = await met(port, client_context(files.authority, mine))
        assert named.startswith("CN=bob,")
        assert "O=Acme\\, Inc" in named
        assert await met(port, client_context(files.authority)) == "nobody"
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await met(port, client_context(files.authority, strange)) == ""


async def test_without_client_certificates_none_is_asked_for(files: Files) -> None:
    tls = ServerTls(files.settings())
    mine = files.clients.issue_cert("bob.clients", common_name="bob")
    async with serving(tls) as port:
        assert await met(port, client_context(files.authority, mine)) == "nobody"


def met_again(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[str, ssl.SSLSession | None]:
    """As `met`, by a plain socket, which can take a session up again; gives the session, too."""
    plain = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure:
        secure.sendall(b"who am I\n")
        return secure.recv(1000).decode().strip(), secure.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_withdrawn_client_authority_is_not_believed_any_more(
    files: Files, version: ssl.TLSVersion
) -> None:
    """World: a client of the old authority, with a session that it may take up again; event: another authority."""
    tls = ServerTls(files.settings(tls_client_certificates="Optional"))
    old = client_context(files.authority, files.clients.issue_cert("bob", common_name="bob"))
    old.maximum_version = version
    newer = trustme.CA()
    async with serving(tls) as port:
        name, session = await asyncio.to_thread(met_again, port, old, None)
        assert name.startswith("CN=bob,")
        newer.cert_pem.write_to_path(files.folder / "ca.crt")
        assert tls.watch.check()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            name, _ = await asyncio.to_thread(met_again, port, old, session)
            assert name == ""
        new = client_context(files.authority, newer.issue_cert("ann", common_name="ann"))
        assert (await met(port, new)).startswith("CN=ann,")


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_server_without_a_certificate_does_not_start(files: Files, content: bytes) -> None:
    """And says which files are wrong."""
    (files.folder / "tls.crt").write_bytes(content)
    with pytest.raises(LoadError, match=r"tls\.crt and tls\.key"):
        ServerTls(files.settings())


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        pytest.param(None, "", id="none"),
        pytest.param({}, "", id="not checked"),
        pytest.param({"subject": ((("commonName", "bob"),),)}, "CN=bob", id="a name"),
        pytest.param(
            {"subject": ((("countryName", "DE"),), (("commonName", "b,CN=ann"),))},
            "CN=b\\,CN\\=ann,C=DE",
            id="a name that would pass for two",
        ),
        pytest.param(
            {"subject": ((("commonName", "x"),),), "subjectAltName": (("URI", "spiffe://d/ns/a/sa/b"),)},
            "spiffe://d/ns/a/sa/b",
            id="SPIFFE",
        ),
        pytest.param({"subject": (), "serialNumber": "0A"}, "serial=0A", id="no name"),
    ],
)  # fmt: skip
def test_subjects_are_written_as_one_name(certificate: Any, name: str) -> None:
    assert subject_of(certificate) == name
