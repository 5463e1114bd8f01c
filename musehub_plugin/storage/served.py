"""What the backends whose URLs lead to the plugin have in common: signing, and the checks of an upload."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from musehub_plugin.storage.base import PresignedUpload, UploadRefused, stored_name, upload_name
from musehub_plugin.storage.signing import UrlSigner

CHUNK = 1 << 20


class SignsForPlugin:
    """Presigning by a `UrlSigner`.

    Args:
        signer: makes the URLs. Left out: one with a key of the backend's own and `http://localhost` as its
            base, until an app gives its signer by `use_signer`.
    """

    supports_presign = True

    def __init__(self, signer: UrlSigner | None) -> None:
        self._signer = signer
        self._signer_is_own = signer is not None

    @property
    def signer(self) -> UrlSigner:
        """Makes and checks this backend's URLs."""
        if self._signer is None:
            self._signer = UrlSigner([self.own_key()], lambda: "http://localhost")
        return self._signer

    def use_signer(self, signer: UrlSigner) -> None:
        """Take the app's signer, unless the backend was built with one of its own."""
        if not self._signer_is_own:
            self._signer = signer

    def own_key(self) -> bytes:
        """Return the key to sign with where no signer is given."""
        return secrets.token_bytes(32)

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        """Return a URL from which anyone can GET the blob for `ttl_seconds`, 1 second to 7 days."""
        return self.signer.sign("GET", "blob", stored_name(oid), ttl_seconds=ttl_seconds)

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        """Return a URL from which anyone can GET the mpack for `ttl` seconds, 1 second to 7 days."""
        return self.signer.sign("GET", "mpack", stored_name(mpack_id), ttl_seconds=ttl)

    def presign_upload(self, key: str, *, mpack_id: str, size_bytes: int, ttl_seconds: int) -> PresignedUpload:
        """Return a URL that takes exactly these bytes; size and digest are in its signed query."""
        url = self.signer.sign(
            "PUT",
            "upload",
            upload_name(key),
            ttl_seconds=ttl_seconds,
            size=size_bytes,
            digest=stored_name(mpack_id),
        )
        return PresignedUpload(url=url, method="PUT", headers={"Content-Type": "application/octet-stream"})


def checked_chunks(file: BinaryIO, *, size: int | None, digest: str | None) -> Iterator[bytes]:
    """Yield a body in chunks of at most 1 MiB, and end only if it was what was signed.

    Args:
        file: the body.
        size: bytes that it must have, or None.
        digest: SHA-256 in hex that it must have, or None.

    Raises:
        UploadRefused: size or digest differ; whoever stores the chunks must then forget them.
    """
    seen = 0
    hasher = hashlib.sha256()
    while chunk := file.read(CHUNK if size is None else min(CHUNK, size - seen + 1)):
        seen += len(chunk)
        if size is not None and seen > size:
            raise UploadRefused(f"The body is longer than the {size} bytes that were signed.")
        hasher.update(chunk)
        yield chunk
    if size is not None and seen != size:
        raise UploadRefused(f"The body has {seen} bytes, {size} were signed.")
    if digest is not None and hasher.hexdigest() != digest:
        raise UploadRefused("The body's SHA-256 is not the one that was signed.")
