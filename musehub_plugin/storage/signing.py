"""Signed URLs for the backends whose bytes the plugin serves itself.

A URL is a capability: whoever holds it may do one thing (one method on one stored file) until one moment.
Its form is `{base}{prefix}/{kind}/{64 hex}?exp=..&sig=..`, for uploads with `size` and `digest` as well.
The signature is HMAC-SHA256 over length-prefixed fields, so that no two grants share a signed text.
Nothing here knows Flask.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from musehub_plugin.errors import Forbidden
from musehub_plugin.ids import is_hex

DEFAULT_PREFIX = "/-/musehub/storage"
MIN_KEY_BYTES = 32
# What SigV4 allows: a URL means the same whichever backend is configured.
MAX_TTL_SECONDS = 7 * 24 * 3600

# The one method that each kind of file takes. HEAD is not GET: a GET URL answers 403 to HEAD on S3 as well.
METHODS = {"blob": "GET", "mpack": "GET", "upload": "PUT"}

_CONTEXT = b"musehub-storage-url-1"
_REQUIRED = frozenset({"exp", "sig"})
_ALLOWED = _REQUIRED | {"size", "digest"}
# No sign, no leading zero, no Unicode digit: one spelling a number. 19 digits stay below 2^64.
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})")


class SignatureRefused(Forbidden):
    """A signed URL that does not hold: malformed, changed, for something else, or expired.

    `reason` is "malformed", "mismatch" or "expired". The text never quotes the URL.
    """

    code = "signature-refused"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Grant:
    """What a verified URL allows."""

    method: str
    kind: str
    key: str
    """64 hex digits: an id without its prefix, or an upload's key."""
    expires_at: int
    """Unix time, in seconds."""
    size: int | None
    """Bytes that an upload must have, or None where the URL does not say."""
    digest: str | None
    """SHA-256 of an upload's bytes in hex, or None where the URL does not say."""


class UrlSigner:
    """Makes and checks signed URLs.

    Args:
        keys: secrets of at least 32 bytes each; the first signs, all verify, so that a key is rotated by
            putting its successor in front and removing it once the longest URL has expired.
        base_url: called for each URL, returns scheme and host (and mount point) without a final slash.
        prefix: path under `base_url` where the plugin serves storage, without a final slash.
        clock: returns Unix time in seconds.

    Raises:
        ValueError: there is no key, or one is too short.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        base_url: Callable[[], str],
        *,
        prefix: str = DEFAULT_PREFIX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not keys:
            raise ValueError("a URL signer needs at least one key")
        if any(len(key) < MIN_KEY_BYTES for key in keys):
            raise ValueError(f"each signing key needs at least {MIN_KEY_BYTES} bytes")
        self._keys = tuple(bytes(key) for key in keys)
        self._base_url = base_url
        self._clock = clock
        self.prefix = prefix

    def sign(
        self,
        method: str,
        kind: str,
        key: str,
        *,
        ttl_seconds: int,
        size: int | None = None,
        digest: str | None = None,
    ) -> str:
        """Return an absolute URL that allows `method` on one stored file.

        Args:
            method: the one that `METHODS` names for `kind`.
            kind: "blob", "mpack" or "upload".
            key: 64 lowercase hex digits.
            ttl_seconds: life of the URL, 1 second to 7 days.
            size: bytes that an upload must have.
            digest: SHA-256 of an upload's bytes, 64 lowercase hex digits.

        Raises:
            ValueError: an argument is none of these.
        """
        if METHODS.get(kind) != method:
            raise ValueError(f"cannot sign {method!r:.20} for {kind!r:.20}")
        if not is_hex(key):
            raise ValueError("a storage key is 64 lowercase hex digits")
        if digest is not None and not is_hex(digest):
            raise ValueError("a digest is 64 lowercase hex digits")
        if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"a signed URL lives 1 to {MAX_TTL_SECONDS} seconds, not {ttl_seconds}")
        if size is not None and not 0 <= size < 2**63:
            raise ValueError(f"an upload cannot have {size} bytes")
        query = {"exp": str(int(self._clock()) + ttl_seconds)}
        if size is not None:
            query["size"] = str(size)
        if digest is not None:
            query["digest"] = digest
        query["sig"] = _signature(self._keys[0], method, kind, key, query).hex()
        return f"{self._base_url()}{self.prefix}/{kind}/{key}?{urlencode(query)}"

    def verify(
        self, method: str, kind: str, key: str, query: Iterable[tuple[str, str]], now: float | None = None
    ) -> Grant:
        """Return what the URL of a request allows.

        Args:
            method: the request's method.
            kind: the path segment that names the kind of file.
            key: the path segment that names the file.
            query: all query parameters in order, decoded once, duplicates included.
            now: Unix time in seconds; default: the signer's clock.

        Raises:
            SignatureRefused: anything is not exactly as it was signed, or the URL has expired. Expiry is told
                only to a caller whose signature holds.
        """
        given = _read_query(query)
        if METHODS.get(kind) != method or not is_hex(key):
            raise SignatureRefused("mismatch", "This URL was not signed for this request.")
        # On bytes: compare_digest raises TypeError for a str that is not ASCII. All keys are tried, always.
        claimed = given["sig"].encode()
        holds = [
            hmac.compare_digest(_signature(secret, method, kind, key, given).hex().encode(), claimed)
            for secret in self._keys
        ]
        if not any(holds):
            raise SignatureRefused("mismatch", "This URL was not signed for this request.")
        expires_at = int(given["exp"])
        moment = self._clock() if now is None else now
        if moment >= expires_at:
            late = int(moment - expires_at)
            raise SignatureRefused("expired", f"This URL expired {late} seconds ago; ask for a new one.")
        size = int(given["size"]) if "size" in given else None
        return Grant(method, kind, key, expires_at, size, given.get("digest"))


def _read_query(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters, each present once and in its only spelling."""
    given: dict[str, str] = {}
    for name, value in query:
        if name not in _ALLOWED:
            raise SignatureRefused("malformed", "The URL has a parameter that was not signed.")
        if name in given:
            raise SignatureRefused("malformed", f"The URL has {name!r} twice.")
        given[name] = value
    for name in sorted(_REQUIRED - given.keys()):
        raise SignatureRefused("malformed", f"The URL lacks {name!r}.")
    for name in ("exp", "size"):
        if name in given and _NUMBER.fullmatch(given[name]) is None:
            raise SignatureRefused("malformed", f"{name!r} is not a whole number.")
    for name in ("sig", "digest"):
        if name in given and not is_hex(given[name]):
            raise SignatureRefused("malformed", f"{name!r} is not 64 lowercase hex digits.")
    return given


def _signature(secret: bytes, method: str, kind: str, key: str, query: dict[str, str]) -> bytes:
    """Return the HMAC of the fields, each behind its length; length 0 is an absent one: none can be empty."""
    mac = hmac.new(secret, _CONTEXT, hashlib.sha256)
    for value in (method, kind, key, query["exp"], query.get("size", ""), query.get("digest", "")):
        raw = value.encode()
        mac.update(len(raw).to_bytes(4, "big") + raw)
    return mac.digest()
