"""HTTP through a proxy, by urllib3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.parse import unquote, urlsplit

import urllib3

from musehub_plugin.client.connections import CONNECT_SECONDS, ConnectionBroke, Response
from musehub_plugin.client.errors import WorkdirError

# The first that fits counts.
_REASONS: dict[type[Exception], str] = {
    urllib3.exceptions.ProxyError: "the proxy that the environment names does not let it through",
    urllib3.exceptions.NameResolutionError: "its name has no address",
    urllib3.exceptions.NewConnectionError: "no connection",
    urllib3.exceptions.TimeoutError: "no answer in time",
    urllib3.exceptions.SSLError: "its certificate is not trusted, or TLS failed",
    urllib3.exceptions.LocationValueError: "a URL that is none",
}
_HOPELESS = (urllib3.exceptions.SSLError, urllib3.exceptions.LocationValueError)


def request(
    proxy: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] | None,
    timeout: float,
) -> Response:
    """Do what `Connections.request` does, through a proxy.

    Raises:
        ConnectionBroke: there was no answer.
        WorkdirError: the proxy is none.
    """
    with _translated():
        answer = _pool(proxy).request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=urllib3.Timeout(connect=min(timeout, CONNECT_SECONDS), read=timeout),
            redirect=False,
            preload_content=False,
            retries=False,
        )
    return _Answer(answer)


class _Answer:
    """An answer that comes through a proxy."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    def read(self, size: int) -> bytes:
        with _translated():
            return self._answer.read(size)

    def read1(self, size: int) -> bytes:
        # `stream` would hold back what is there, and lose it where the connection breaks.
        with _translated():
            return self._answer.read1(size, decode_content=False)

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        reason = next((_REASONS[kind] for kind in _REASONS if isinstance(error, kind)), "the connection broke")
        raise ConnectionBroke(reason, hopeless=isinstance(error, _HOPELESS)) from None


@cache
def _pool(proxy: str) -> urllib3.ProxyManager:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        headers = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = urllib3.make_headers(proxy_basic_auth=credentials)
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return urllib3.ProxyManager(address, proxy_headers=headers, retries=False)
    except (ValueError, urllib3.exceptions.HTTPError):
        # Its text may hold a password.
        raise WorkdirError("the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names is no URL") from None
