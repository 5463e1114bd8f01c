"""HTTP to any host: straight by the standard library, or through the proxy that the environment names.

The standard library's client takes a third of the time that urllib3 takes to load, which is a fifth of a short clone;
what is above requests (what is tried again, how long is waited) is the transport's own in any case. Proxies are
urllib3's: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import selectors
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, Protocol
from urllib.parse import SplitResult, quote, urlsplit

CONNECT_SECONDS: Final = 15.0
"""Seconds to wait for a connection, at most."""
# What a URL may hold and means something there.
_KEPT: Final = "/?%:@!$&'()*+,;=~[]"
_PORTS: Final = {"http": 80, "https": 443}


class ConnectionBroke(Exception):
    """A request came to no answer, or an answer to no end.

    Args:
        reason: why, without the URL, which may be a secret.

    Attributes:
        hopeless: whether another try would come to the same.
    """

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless


class Response(Protocol):
    """An answer whose body is read in pieces; all but `close` raise `ConnectionBroke`."""

    @property
    def status(self) -> int:
        """The status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by name in any case."""
        ...

    def read(self, size: int) -> bytes:
        """Return so many bytes of the body; fewer where it ends."""
        ...

    def read1(self, size: int) -> bytes:
        """Return what has come of the body, up to so many bytes; none where it ends or breaks off."""
        ...

    def close(self) -> None:
        """End the connection; without that, the next request may use it once the body was read to its end."""
        ...


class Connections:
    """Connections to hosts, one to each, used one at a time. They end with this object, and so do answers.

    Certificates are verified against the system's authorities, or those that SSL_CERT_FILE names.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, int, str], http.client.HTTPConnection] = {}

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None, timeout: float
    ) -> Response:
        """Send a request, and return the answer as soon as it begins. No redirect is followed, nothing tried again.

        Args:
            method: the method.
            url: an absolute URL.
            headers: the headers; with a body in pieces, `Content-Length` is one of them.
            body: the body, if any.
            timeout: seconds to wait for each piece of the answer, and for a connection, though that not for longer
                than `CONNECT_SECONDS`.

        Raises:
            ConnectionBroke: there was no answer.
            WorkdirError: the environment names a proxy that is none.
        """
        with _translated():
            proxy = _proxy_of(_split(url))
        if proxy is not None:
            # Here and not above: see the module.
            from musehub_plugin.client.proxied import request

            return request(proxy, method, url, headers=headers, body=body, timeout=timeout)
        with _translated():
            connection, target = self._connection(url, timeout)
            try:
                # Who refuses a body may do so before all of it is there.
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body=body, headers=headers)
                return _Answer(connection.getresponse(), connection)
            except BaseException:
                # What was half done is gone on with by no other request.
                connection.close()
                raise

    def __del__(self) -> None:
        # Not everybody who asks something has an end that he knows of.
        self.close()

    def close(self) -> None:
        """Close all connections."""
        # Another thread may be asking something ahead.
        for connection in list(self._open.values()):
            connection.close()
        self._open.clear()

    def _connection(self, url: str, timeout: float) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection to a URL's host, and what to ask for there."""
        parts = _split(url)
        place = parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme
        connection = self._open.get(place)
        if connection is None:
            connection = self._open[place] = _made(*place)
        if connection.sock is not None and _has_ended(connection.sock):
            connection.close()
        if connection.sock is None:
            connection.timeout = min(timeout, CONNECT_SECONDS)
            try:
                connection.connect()
            except (ssl.SSLError, socket.gaierror, TimeoutError):
                raise
            except OSError:
                raise ConnectionBroke("no connection") from None
        connection.sock.settimeout(timeout)
        target = parts.path or "/"
        target += f"?{parts.query}" if parts.query else ""
        return connection, target if target.isascii() else quote(target, safe=_KEPT)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in _PORTS or parts.port == 0:
            raise http.client.InvalidURL
        parts.hostname.encode("idna")
    except ValueError:
        raise http.client.InvalidURL from None
    return parts


def _made(host: str, port: int, scheme: str) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port)
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return http.client.HTTPSConnection(host, port, context=context)


class _Answer:
    """An answer that comes straight."""

    def __init__(self, answer: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> None:
        self._answer = answer
        self._connection = connection
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers  # type: ignore[assignment] # a mapping, though typed as none

    def read(self, size: int) -> bytes:
        with _translated():
            data = self._answer.read(size)
        # It gives what came where the connection ended too soon.
        if len(data) < size and self._answer.length:
            raise ConnectionBroke("the connection broke")
        return data

    def read1(self, size: int) -> bytes:
        with _translated():
            return self._answer.read1(size)

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what goes wrong between two machines as `ConnectionBroke`; its own text may hold the URL."""
    try:
        yield
    except http.client.InvalidURL:
        raise ConnectionBroke("a URL that is none", hopeless=True) from None
    except ssl.SSLEOFError:
        raise ConnectionBroke("the connection broke") from None
    except ssl.SSLError:
        # A certificate that is wrong stays wrong.
        raise ConnectionBroke("its certificate is not trusted, or TLS failed", hopeless=True) from None
    except socket.gaierror:
        raise ConnectionBroke("its name has no address") from None
    except TimeoutError:
        raise ConnectionBroke("no answer in time") from None
    except (http.client.HTTPException, OSError):
        raise ConnectionBroke("the connection broke") from None


def _has_ended(connection: socket.socket) -> bool:
    """Say whether the other side closed a connection on which nothing is awaited, or sent what nobody asked for."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))


def is_this_machine(host: str | None) -> bool:
    """Say whether a host is this machine, by its name or its address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _proxy_of(parts: SplitResult) -> str | None:
    """Return the proxy that the environment names for a URL."""
    # What is on this machine no proxy can reach; and a token that may go to this machine in the clear may not to one.
    if is_this_machine(parts.hostname):
        return None
    if sys.platform.startswith("linux") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Here and not above: most of its weight is of no use.
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
