"""What becomes of a request between two machines, against real sockets: connections, their ends, and TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from musehub_plugin.client.connections import ConnectionBroke, Connections, Response

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def served(
    *connections: list[bytes],
    wrapped: Callable[[socket.socket], socket.socket] = lambda it: it,
    closed: threading.Event | None = None,
) -> Iterator[str]:
    """Run a server that gives one answer for each request of a connection, then closes it, and sets `closed`.

    Yields:
        Its host and port.
    """

    def serve() -> None:
        for answers in connections:
            try:
                with wrapped(listening.accept()[0]) as connection:
                    for answer in answers:
                        asked = connection.recv(1 << 16)
                        while b"\r\n\r\n" not in asked and (more := connection.recv(1 << 16)):
                            asked += more
                        connection.sendall(answer)
            except OSError:
                # A client that trusts nobody hangs up, and so does the end of the test.
                continue
            finally:
                if closed is not None:
                    closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def get(connections: Connections, place: str, path: str = "/x", scheme: str = "http") -> Response:
    return connections.request("GET", f"{scheme}://{place}{path}", headers={}, body=None, timeout=10)


def test_a_connection_is_used_again_once_an_answer_was_read() -> None:
    with served([OK, OK]) as place:
        connections = Connections()
        assert [get(connections, place).read(9) for _ in range(2)] == [b"ok", b"ok"]
        connections.close()


def test_a_connection_that_the_other_side_has_closed_is_replaced() -> None:
    closed = threading.Event()
    with served([OK], [OK], closed=closed) as place:
        connections = Connections()
        assert get(connections, place).read(9) == b"ok"
        assert closed.wait(10)
        assert get(connections, place).read(9) == b"ok"
        connections.close()


def test_an_answer_that_was_closed_unread_is_not_taken_for_the_next_one() -> None:
    with served([OK, OK], [OK.replace(b"ok", b"no")]) as place:
        connections = Connections()
        get(connections, place).close()
        assert get(connections, place).read(9) == b"no"
        connections.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_an_answer_that_ends_too_soon_broke_off(answer: bytes) -> None:
    connections = Connections()
    with served([answer]) as place, pytest.raises(ConnectionBroke, match="broke") as caught:
        get(connections, place).read(100)
    assert not caught.value.hopeless


def test_what_came_before_a_break_is_given() -> None:
    with served([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]) as place:
        connections = Connections()
        answer = get(connections, place)
        assert (answer.read1(100), answer.read1(100)) == (b"short", b"")


def test_a_refusal_that_comes_before_the_body_was_sent_is_read() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    pieces = [bytes(1 << 16)] * 200
    headers = {"Content-Length": str(200 << 16)}
    with served([refusal]) as place:
        answer = Connections().request("PUT", f"http://{place}/", headers=headers, body=pieces, timeout=10)
        assert answer.status == 413


def test_silence_is_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(ConnectionBroke, match="in time"):
            Connections().request("GET", url, headers={}, body=None, timeout=0.05)


@pytest.mark.parametrize(
    "url", ["ftp://h/", "http://", "http://[::1/", "http://h:0/", "http://h:x/", "http://a..b/", ""]
)
def test_a_url_that_is_none_is_hopeless(url: str) -> None:
    with pytest.raises(ConnectionBroke, match="a URL that is none") as caught:
        Connections().request("GET", url, headers={}, body=None, timeout=10)
    assert caught.value.hopeless


def test_a_path_that_would_be_another_line_is_refused() -> None:
    with served([OK]) as place, pytest.raises(ConnectionBroke, match="a URL that is none"):
        get(Connections(), place, "/x HTTP/1.1")


def test_a_name_without_an_address_is_named_so() -> None:
    with pytest.raises(ConnectionBroke, match="no address"):
        get(Connections(), "hub.invalid")


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


def by_tls(certificate: Path) -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return lambda connection: context.wrap_socket(connection, server_side=True)


def test_a_certificate_that_nobody_trusts_is_hopeless(certificate: Path) -> None:
    with served([OK], wrapped=by_tls(certificate)) as place, pytest.raises(ConnectionBroke, match="trusted") as caught:
        get(Connections(), place, scheme="https")
    assert caught.value.hopeless


def test_a_certificate_of_an_authority_that_the_environment_names_is_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with served([OK, OK], wrapped=by_tls(certificate)) as place:
        connections = Connections()
        assert [get(connections, place, scheme="https").read(9) for _ in range(2)] == [b"ok", b"ok"]
        connections.close()


def test_a_certificate_for_another_name_is_not_trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with served([OK], wrapped=by_tls(certificate)) as place, pytest.raises(ConnectionBroke, match="trusted"):
        get(Connections(), place.replace("127.0.0.1", "localhost"), scheme="https")
