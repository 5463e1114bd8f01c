"""HTTP to a hub and to its object storage: one request at a time, tried again where that can help.

Two calls, kept apart: `HubTransport.post` and `get` talk to the hub and carry the bearer token; `download`
and `upload` talk to whatever host a presigned URL names and carry nothing but what presigning asked for.
Object storage refuses a request that is authorised twice, and a token is nobody's business but the hub's. No
redirect is followed.

What is asked and answered is logged at level DEBUG, without tokens, and without the URLs of object storage, which are
permissions.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import msgpack
import urllib3

from musehub_plugin._version import __version__
from musehub_plugin.client.download import CHUNK, BrokenOffError, Download
from musehub_plugin.client.errors import HubRefused, HubUnreachable, InsecureTokenError, printable
from musehub_plugin.client.pools import Pools, is_this_machine
from musehub_plugin.client.problems import decode_answer, read_problem
from musehub_plugin.client.progress import Progress, silent
from musehub_plugin.client.remoteconfig import check_url

MAX_ANSWER: Final = 64 << 20
"""Bytes of an answer from the hub; packs come from object storage and have a limit of their own."""
_ACCEPT: Final = "application/x-msgpack"
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Statuses that a later try may not meet."""
_CRASHES: Final = frozenset({"http-500", "storage-500"})
"""What a 500 is where no hub says what happened: it comes from a server before the hub, or from object storage."""

_BLIND_TRIES: Final = 5
"""Tries of a request that fails without a word on when to come back: about 7 seconds, pauses included."""
_MAX_TRIES: Final = 100
_USER_AGENT: Final = f"musehub/{__version__}"
_HOPELESS: Final = (urllib3.exceptions.SSLError, urllib3.exceptions.LocationValueError)
_Answer = TypeVar("_Answer")
_LOG: Final = logging.getLogger(__name__)


class HubTransport:
    """The connection to one repo of one hub.

    Args:
        url: the repo's URL, `http(s)://host/owner/slug`.
        token: a bearer token, sent to the hub alone; None: anonymous.
        timeout: seconds to wait for a connection, and for each piece of an answer.
        wait_budget: seconds to spend waiting between tries, all tries of one request together, or all since a
            download came on; `Retry-After` is honoured within it.
        sleep: waits for so many seconds; for tests.
        progress: told what is going on with big bodies.

    Raises:
        WorkdirError: `url` is none.
        InsecureTokenError: a token would travel over plain http to another machine.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        wait_budget: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        progress: Progress = silent,
    ) -> None:
        self.url = check_url(url)
        if token is not None and not _is_private_channel(self.url):
            raise InsecureTokenError("a token is sent over https only, or to this machine; use https://")
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._wait_budget = wait_budget
        self._sleep = sleep
        self.progress: Progress = progress
        self._timeout = urllib3.Timeout(connect=min(timeout, 15.0), read=timeout)
        self._pools = Pools(self._timeout)
        self._ahead: dict[str, _Ahead] = {}

    def ask_ahead(self, resource: str) -> None:
        """Begin to ask for a resource, in a thread of its own that ends before the next `get` of it returns.

        So the answer comes while the caller does something else. Errors are the `get`'s.
        """
        self._ahead[resource] = _Ahead(lambda: self._ask("GET", resource, None, None))

    def close(self) -> None:
        """Close the connections."""
        self._pools.close()

    def get(self, resource: str) -> dict[str, Any]:
        """Return the answer of `GET <repo>/<resource>`.

        Raises:
            HubRefused: the hub answered with an error.
            HubUnreachable: it did not answer.
        """

        def attempt() -> dict[str, Any]:
            ahead = self._ahead.pop(resource, None)
            return self._ask("GET", resource, None, None) if ahead is None else ahead.result()

        return self._retried(attempt)

    def post(self, resource: str, body: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Return the answer of `POST <repo>/<resource>`.

        Every request of the protocol may be sent twice without harm, so that one whose answer was lost is
        repeated.

        Args:
            resource: `fetch`, `push/presign`, ...
            body: the request's fields; sent as msgpack.
            timeout: seconds to wait for the answer, where the hub has much to do; None: the connection's.

        Raises:
            HubRefused: the hub answered with an error.
            HubUnreachable: it did not answer.
        """
        packed: bytes = msgpack.packb(body)
        return self._retried(lambda: self._ask("POST", resource, packed, timeout))

    def download(self, resource: str, url: str, target: Path, *, mpack_id: str, size: int) -> None:
        """Fetch an mpack from object storage into a file and check that it is the one.

        Where it breaks off it goes on, for as long as something comes between one break and the next. What came stays
        in the file when this fails, and the next call goes on from there.

        Args:
            resource: the resource whose answer held the URL, which a relative URL is relative to.
            url: the presigned URL.
            target: the file; what is in it already must be a beginning of this mpack, or is thrown away in the end.
            mpack_id: what the bytes must hash to.
            size: how many bytes there must be.

        Raises:
            HubRefused: storage answered with an error; code `storage-...`.
            HubUnreachable: it did not answer, broke off, or sent something else.
        """
        download = Download(target, mpack_id=mpack_id, size=size, progress=self.progress)
        if not download.complete:
            where = urljoin(f"{self.url}/{resource}", url)
            self._retried(lambda: self._receive(where, download), came_on=lambda: download.done, storage=where)

    def upload(self, resource: str, url: str, source: Path, *, method: str, headers: Mapping[str, str]) -> None:
        """Send a file to object storage.

        Args:
            resource: the resource whose answer held the URL.
            url: the presigned URL.
            source: the file.
            method: the method that was presigned.
            headers: the headers that presigning asked for; no others are sent that could matter.

        Raises:
            HubRefused: storage answered with an error; code `storage-...`.
            HubUnreachable: it did not answer.
        """
        where = urljoin(f"{self.url}/{resource}", url)
        self._retried(lambda: self._send(where, source, method, headers), storage=where)

    def _ask(self, method: str, resource: str, body: bytes | None, timeout: float | None) -> dict[str, Any]:
        headers = {"Accept": _ACCEPT, **self._common_headers(), **self._authorization}
        if body is not None:
            headers["Content-Type"] = _ACCEPT
        where = f"{self.url}/{resource}"
        response = self._request(
            method,
            where,
            _shown(where),
            body=body,
            headers=headers,
            timeout=self._timeout if timeout is None else urllib3.Timeout(connect=15.0, read=timeout),
        )
        try:
            content = response.read(MAX_ANSWER + 1)
            if len(content) > MAX_ANSWER:
                raise HubUnreachable(f"the answer of {where} is over {MAX_ANSWER} bytes; is this a muse hub?")
        except BaseException:
            # What is left of the body would be taken for the next answer.
            response.close()
            raise
        response.release_conn()
        if 300 <= response.status < 400:
            target = _shown(response.headers.get("Location", ""))
            detail = f"{where} redirects to {target}; use the repo's own URL"
            raise HubRefused(response.status, "redirected", detail)
        kind = response.headers.get("Content-Type", "")
        if response.status != 200:
            raise read_problem(response.status, kind, content, retry_after=_retry_after(response.headers))
        return decode_answer(kind, content, where)

    def _receive(self, where: str, download: Download) -> None:
        before = download.done
        response = self._request("GET", where, "an mpack", headers={**self._common_headers(), **download.headers()})
        try:
            if response.status not in {200, 206} and not (response.status == 416 and before):
                raise _storage_refused(response)
            download.receive(response)
        finally:
            _LOG.debug("object storage gave %d bytes, from byte %d on", max(0, download.done - before), before)
            # What is left of a body is not worth reading: the connection goes with it.
            response.close()

    def _send(self, where: str, source: Path, method: str, headers: Mapping[str, str]) -> None:
        size = source.stat().st_size
        asked = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        with source.open("rb") as file:
            response = self._request(
                method,
                where,
                "an mpack",
                body=_pieces(file, size, self.progress),
                headers={**asked, "Content-Length": str(size), "User-Agent": _USER_AGENT},
            )
            refused = None if 200 <= response.status < 300 else _storage_refused(response)
            response.close()
            if refused is not None:
                raise refused

    def _request(self, method: str, where: str, shown: str, **options: Any) -> urllib3.BaseHTTPResponse:
        start = time.monotonic()
        response = self._pools.of(where).request(
            method, where, redirect=False, preload_content=False, retries=False, **options
        )
        _LOG.debug(
            "%s %s at %s: %d after %.2f s", method, shown, _host(where), response.status, time.monotonic() - start
        )
        return response

    def _retried(
        self, attempt: Callable[[], _Answer], came_on: Callable[[], int] = lambda: 0, storage: str | None = None
    ) -> _Answer:
        waited = 0.0
        failures = 0
        best = came_on()
        tries = 0
        while tries < _MAX_TRIES:
            tries += 1
            # Jitter keeps clients apart that were turned away together.
            pause = min(30.0, 0.5 * 2**failures) * _between(0.5, 1.0)
            try:
                return attempt()
            except HubRefused as refused:
                asked = refused.retry_after
                passing = refused.status in _PASSING or refused.code in _CRASHES
                if not passing or (asked is None and failures + 1 >= _BLIND_TRIES):
                    raise
                if asked is not None:
                    # The hub's word counts, but a hub that says 0 is not hammered.
                    pause = max(min(1.0, pause), asked * _between(1.0, 1.1))
                if waited + pause > self._wait_budget:
                    raise
                _LOG.debug("turned away (%s); trying again in %.1f s", refused, pause)
            except (urllib3.exceptions.HTTPError, BrokenOffError) as error:
                if came_on() > best:
                    best, failures, tries, waited = came_on(), 0, 0, 0.0
                # A certificate that is wrong stays wrong.
                hopeless = isinstance(error, _HOPELESS)
                if hopeless or failures + 1 >= _BLIND_TRIES or waited + pause > self._wait_budget:
                    raise HubUnreachable(self._unreachable(error, storage)) from None
                _LOG.debug("broke off (%s); trying again in %.1f s", self._unreachable(error, storage), pause)
            self.progress("waiting", 0, None)
            self._sleep(pause)
            waited += pause
            failures += 1
        raise HubUnreachable(f"{self.url} turned this request away {_MAX_TRIES} times; come back later")

    def _unreachable(self, error: Exception, storage: str | None) -> str:
        if isinstance(error, BrokenOffError):
            return str(error)
        # Storage is often at an address that the hub reaches and this machine does not.
        who = self.url if storage is None else f"the object storage of {self.url} at {_host(storage)}"
        return f"{who} is out of reach: {_reason(error)}"

    def _common_headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "identity", "User-Agent": _USER_AGENT}


class _Ahead:
    """One request, asked in a thread of its own."""

    def __init__(self, ask: Callable[[], dict[str, Any]]) -> None:
        self._ask = ask
        self._answer: dict[str, Any] = {}
        self._error: BaseException | None = None
        # Where nobody comes for the answer, nobody waits for it either.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> dict[str, Any]:
        """Wait for the answer and return it, or raise what asking raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is asked for
            self._error = error


def _pieces(file: BinaryIO, size: int, progress: Progress) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece
        progress("sending", file.tell(), size)


def _storage_refused(response: urllib3.BaseHTTPResponse) -> HubRefused:
    # The body is the store's own, often XML with the signed request in it: not for a log.
    reasons = {
        403: "the presigned URL is refused; it may have expired, or a clock is wrong",
        404: "the mpack is gone",
    }
    return HubRefused(
        response.status,
        f"storage-{response.status}",
        f"object storage: {reasons.get(response.status, 'the request is refused')}",
        retry_after=_retry_after(response.headers),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` says, as a number or as a date; None where it says neither."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    if not value:
        return None
    # Dates are rare.
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    # The exceptions' own texts hold the request's URL, and a presigned one is a secret.
    if isinstance(error, urllib3.exceptions.SSLError):
        untrusted = getattr(error.args[0] if error.args else None, "verify_message", None)
        if untrusted is None:
            return "TLS failed; is the URL right?"
        return f"its certificate is not trusted ({untrusted}); SSL_CERT_FILE names another authority"
    reasons: dict[type[Exception], str] = {
        urllib3.exceptions.ProxyError: "the proxy that the environment names does not let it through",
        urllib3.exceptions.NameResolutionError: "its name has no address",
        urllib3.exceptions.NewConnectionError: "no connection",
        urllib3.exceptions.TimeoutError: "no answer in time",
        urllib3.exceptions.LocationValueError: "a URL that is none",
    }
    return next((reasons[kind] for kind in reasons if isinstance(error, kind)), "the connection broke")


def _between(low: float, high: float) -> float:
    return low + (high - low) * int.from_bytes(os.urandom(4), "big") / (1 << 32)


def _is_private_channel(url: str) -> bool:
    """Say whether nobody but the other end can read what is sent to a URL."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_this_machine(parts.hostname)


def _host(url: str) -> str:
    return printable(urlsplit(url).netloc.rpartition("@")[2], 100)


def _shown(location: str) -> str:
    """Return a URL without what may be secret in it."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "somewhere"
    if not parts.netloc:
        return printable(parts.path, 200) or "nowhere"
    return printable(f"{parts.scheme}://{_host(location)}{parts.path}", 200)
