"""Whom the client trusts, against a real TLS server."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgpack
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from musehub_plugin.client import HubTransport, HubUnreachable
from tests.unit.client.scripted_server import scripted_server

BODY = msgpack.packb({"x": 1})
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-msgpack\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 that no authority signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    path.write_bytes(text)
    return path


@contextmanager
def served(certificate: Path, asked: list[bytes]) -> Iterator[int]:
    """Run a TLS server that answers one request of each connection; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                # The end of the test.
                return
            try:
                with context.wrap_socket(accepted, server_side=True) as connection:
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(ANSWER)
            except OSError:
                # A client that trusts nobody hangs up.
                accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def get(host: str, port: int, waits: list[float]) -> object:
    hub = HubTransport(f"https://{host}:{port}/ada/engine", token="s3cr3t", sleep=waits.append)
    try:
        return hub.get("refs")
    finally:
        hub.close()


def test_a_certificate_of_an_authority_that_the_environment_names_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with served(certificate, []) as port:
        assert get("127.0.0.1", port, []) == {"x": 1}


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", False), ("localhost", True)])
def test_a_hub_whose_certificate_is_not_trusted_gets_nothing_and_is_not_asked_again(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, trusted: bool
) -> None:
    if trusted:
        # It is for the address, not for the name.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[bytes] = []
    waits: list[float] = []
    with served(certificate, asked) as port, pytest.raises(HubUnreachable, match="certificate is not trusted"):
        get(host, port, waits)
    assert (asked, waits) == ([], [])


def test_a_certificate_that_is_not_trusted_says_why_and_what_names_another_authority(certificate: Path) -> None:
    with served(certificate, []) as port, pytest.raises(HubUnreachable, match=r"self-signed.*SSL_CERT_FILE"):
        get("127.0.0.1", port, [])


def test_a_server_that_speaks_no_tls_is_not_called_untrusted() -> None:
    with scripted_server() as server, pytest.raises(HubUnreachable, match="TLS failed"):
        get("127.0.0.1", int(server.origin.rpartition(":")[2]), [])
