"""Object storage on S3 and what speaks it, by the `minio` client.

There are two endpoints: the one that the server itself uses, and the one that presigned URLs name. The host is part of
what is signed, so a URL for the one is never made from a URL for the other. With the region given, signing needs no
network.

What the store says is absent is None; any other failure is `StorageUnavailable`, whose text has the store's error code
and never a URL, a key of an object or a credential.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import BinaryIO, cast
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name

from musehub_plugin.config import Settings
from musehub_plugin.errors import ConfigError, StorageUnavailable
from musehub_plugin.ids import to_digest
from musehub_plugin.storage.base import PresignedUpload, stored_name, upload_name
from musehub_plugin.storage.rangefile import RangeFile
from musehub_plugin.storage.sigv4 import presign

CONNECT_SECONDS = 2.0
READ_SECONDS = 10.0
# The store works on its own before it answers: a copy, the end of a multipart upload.
PATIENT_SECONDS = 300.0
# Half the memory of a streamed upload: a part is read while the one before is still held. S3 wants at least 5 MiB a
# part, and at most 10,000 parts.
PART_SIZE = 8 * 1024 * 1024
MAX_PARTS = 10_000


class S3Storage:
    """Blobs, mpacks and uploads in one bucket, below one prefix; clients fetch and upload there by themselves.

    Args:
        endpoint: `host[:port]` that the server uses.
        access_key: name of the credentials.
        secret_key: their secret.
        bucket: must exist.
        prefix: put before every key, empty or ending with `/`.
        region: the bucket's region.
        secure: whether the endpoint speaks TLS.
        public_endpoint: `host[:port]` that presigned URLs name; left out: `endpoint`.
        public_secure: whether that speaks TLS; left out: `secure`.

    Raises:
        ValueError: the endpoint, the bucket's name or the region has a form that S3 does not know.
    """

    supports_presign = True

    def __init__(
        self,
        endpoint: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        *,
        prefix: str = "",
        region: str = "us-east-1",
        secure: bool = True,
        public_endpoint: str | None = None,
        public_secure: bool | None = None,
    ) -> None:
        check_bucket_name(bucket)
        self.bucket = bucket
        self.prefix = prefix
        self.region = region
        self._endpoint = endpoint
        self._access_key = access_key
        self._secret_key = secret_key
        self._secure = secure
        self._lock = threading.Lock()
        self._clients: dict[tuple[int, float], Minio] = {}
        self._bucket_seen = False
        # Signs, and never connects.
        self._public = Minio(
            public_endpoint or endpoint,
            access_key,
            secret_key,
            region=region,
            secure=secure if public_secure is None else public_secure,
        )
        self._client(READ_SECONDS)

    def __repr__(self) -> str:
        return f"S3Storage({self._endpoint!r}, bucket={self.bucket!r}, prefix={self.prefix!r})"

    # Blobs

    def put(self, oid: str, data: bytes) -> str:
        """Store a blob and return its URI."""
        return self._put(self._key("blobs", stored_name(oid)), io.BytesIO(data), len(data))

    def get(self, oid: str) -> bytes | None:
        """Return a blob's bytes, or None where it is not stored."""
        return self._get(self._key("blobs", stored_name(oid)))

    def exists(self, oid: str) -> bool:
        """Say whether a blob is stored."""
        return self._stat(self._key("blobs", stored_name(oid))) is not None

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        """Return a URL from which anyone can GET the blob for `ttl_seconds`, 1 second to 7 days."""
        return self._presign_get(self._key("blobs", stored_name(oid)), ttl_seconds)

    def delete(self, oid: str) -> None:
        """Remove a blob; absence is no error."""
        self._delete(self._key("blobs", stored_name(oid)))

    # Mpacks

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        """Store an mpack and return its URI."""
        return self._put(self._key("mpacks", stored_name(mpack_id)), io.BytesIO(data), len(data))

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        """Store an mpack from a seekable file's current position to its end, and return its URI.

        One part of 16 MiB is in memory at a time; what goes wrong leaves nothing under the mpack's name.
        """
        here = file.tell()
        size = file.seek(0, os.SEEK_END) - here
        file.seek(here)
        return self._put(self._key("mpacks", stored_name(mpack_id)), file, size)

    def get_mpack(self, mpack_id: str) -> bytes | None:
        """Return an mpack's bytes, or None where it is not stored."""
        return self._get(self._key("mpacks", stored_name(mpack_id)))

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        """Return an mpack as a seekable file over range requests, or None where it is not stored."""
        return self._open(self._key("mpacks", stored_name(mpack_id)))

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        """Return a URL from which anyone can GET the mpack for `ttl` seconds, 1 second to 7 days."""
        return self._presign_get(self._key("mpacks", stored_name(mpack_id)), ttl)

    def delete_mpack(self, mpack_id: str) -> None:
        """Remove an mpack; absence is no error."""
        self._delete(self._key("mpacks", stored_name(mpack_id)))

    # Uploads

    def presign_upload(self, key: str, *, mpack_id: str, size_bytes: int, ttl_seconds: int) -> PresignedUpload:
        """Return a URL that takes exactly these bytes: their SHA-256 and their number are signed headers.

        Stores differ in what they enforce. What was uploaded must be hashed before it is believed.
        """
        name = self._key("uploads", upload_name(key))
        headers = {
            "Content-Length": str(size_bytes),
            "x-amz-checksum-sha256": base64.b64encode(to_digest(mpack_id)).decode(),
        }
        url = self._presign("PUT", name, headers, ttl_seconds)
        return PresignedUpload(url=url, method="PUT", headers=headers)

    def open_upload(self, key: str) -> BinaryIO | None:
        """Return an upload as a seekable file over range requests, or None where nothing was uploaded."""
        return self._open(self._key("uploads", upload_name(key)))

    def delete_upload(self, key: str) -> None:
        """Forget the upload; absence is no error."""
        self._delete(self._key("uploads", upload_name(key)))

    # The store itself

    def ping(self) -> None:
        """Return where the store answers, the credentials hold and the bucket exists.

        Raises:
            StorageUnavailable: one of them is not so; the text says which.
        """
        with _failing("look for its bucket"):
            if not self._client(READ_SECONDS).bucket_exists(self.bucket):
                raise StorageUnavailable(f"object storage has no bucket {self.bucket!r}")
        self._bucket_seen = True

    def _key(self, area: str, name: str) -> str:
        return f"{self.prefix}{area}/{name[:2]}/{name[2:]}"

    def _uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def _put(self, key: str, file: BinaryIO, size: int) -> str:
        part_size = max(PART_SIZE, -(-size // MAX_PARTS))
        with _failing("store an object"):
            # One part at a time: parallel ones would each take a part's memory.
            self._client(PATIENT_SECONDS if size > PART_SIZE else READ_SECONDS).put_object(
                self.bucket, key, file, size, part_size=part_size, num_parallel_uploads=1
            )
        self._bucket_seen = True
        return self._uri(key)

    def _get(self, key: str) -> bytes | None:
        with _failing("read an object"):
            try:
                return self._read(key, {})
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return None

    def _read(self, key: str, headers: dict[str, str]) -> bytes:
        response = self._client(READ_SECONDS).get_object(
            self.bucket, key, request_headers=cast("dict[str, str | list[str] | tuple[str]]", headers)
        )
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def _stat(self, key: str) -> tuple[int, str] | None:
        """Return size and ETag of an object, or None where it is not stored."""
        with _failing("look for an object"):
            try:
                found = self._client(READ_SECONDS).stat_object(self.bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
            else:
                self._bucket_seen = True
                return found.size or 0, found.etag or ""
        if not self._bucket_seen:
            # An answer to HEAD has no body: a missing bucket looks like a missing object.
            self.ping()
        return None

    def _open(self, key: str) -> BinaryIO | None:
        found = self._stat(key)
        if found is None:
            return None
        size, etag = found

        def fetch(offset: int, length: int) -> bytes:
            headers = {"Range": f"bytes={offset}-{offset + length - 1}", "If-Match": f'"{etag}"'}
            with _failing("read an object"):
                data = self._read(key, headers)
            if len(data) != length:
                raise StorageUnavailable(f"object storage sent {len(data)} bytes of an object, not {length}")
            return data

        # Typed as the abstract file that it is; BinaryIO is the name that callers know.
        return cast(BinaryIO, RangeFile(fetch, size))

    def _delete(self, key: str) -> None:
        with _failing("remove an object"):
            self._client(READ_SECONDS).remove_object(self.bucket, key)

    def _presign_get(self, key: str, ttl_seconds: int) -> str:
        return self._presign("GET", key, {}, ttl_seconds)

    def _presign(self, method: str, key: str, headers: Mapping[str, str], ttl_seconds: int) -> str:
        """Return a signed URL, as the client of `minio` makes them in three times the time, where it has no headers."""
        return presign(
            method,
            self._public_bucket + quote(key, safe="/-_.~"),
            headers=headers,
            access_key=self._access_key,
            secret_key=self._secret_key,
            region=self.region,
            now=datetime.now(UTC),
            ttl_seconds=ttl_seconds,
        )

    @cached_property
    def _public_bucket(self) -> str:
        """Where the bucket's objects are for clients, by the host's name or by the path, as the store wants it."""
        url = self._public.get_presigned_url("GET", self.bucket, "-", expires=timedelta(minutes=1))
        return url.partition("?")[0].removesuffix("-")

    def _client(self, read_seconds: float) -> Minio:
        """Return the client with this patience; after a fork a new one, since connections cannot be shared."""
        name = (os.getpid(), read_seconds)
        with self._lock:
            if name not in self._clients:
                self._clients[name] = Minio(
                    self._endpoint,
                    self._access_key,
                    self._secret_key,
                    region=self.region,
                    secure=self._secure,
                    http_client=_pool(read_seconds),
                )
            return self._clients[name]


def s3_storage(settings: Settings) -> S3Storage:
    """Return the S3 storage that the settings name.

    Raises:
        ConfigError: an endpoint, the bucket or the region has a form that S3 does not know.
    """
    url = urlsplit(settings.storage)
    prefix = url.path.strip("/")
    endpoint, secure = _endpoint(settings.s3_endpoint, settings.s3_secure)
    if settings.s3_secure is not None:
        secure = settings.s3_secure
    public, public_secure = endpoint, secure
    if settings.s3_public_endpoint:
        public, public_secure = _endpoint(settings.s3_public_endpoint, settings.s3_secure)
    try:
        return S3Storage(
            endpoint,
            settings.s3_access_key,
            settings.s3_secret_key,
            settings.s3_bucket or url.netloc,
            prefix=f"{prefix}/" if prefix else "",
            region=settings.s3_region,
            secure=secure,
            public_endpoint=public,
            public_secure=public_secure,
        )
    except ValueError as error:
        raise ConfigError(f"MUSEHUB_S3_ENDPOINT, MUSEHUB_S3_BUCKET or MUSEHUB_S3_REGION: {error}") from None


def _endpoint(text: str, secure: bool | None) -> tuple[str, bool]:
    """Return `host[:port]` and whether it speaks TLS: by its scheme, else as configured, else it does."""
    scheme, separator, host = text.rpartition("://")
    if separator:
        return host, scheme == "https"
    return host, True if secure is None else secure


def _pool(read_seconds: float) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=16,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
        # Few tries: a caller who may come back is waiting. No redirects: the client handles what S3 means by them. A
        # store's Retry-After is not obeyed, since it would decide how long a worker sleeps.
        retries=urllib3.Retry(
            total=2,
            connect=1,
            read=1,
            redirect=False,
            status_forcelist=(500, 502, 503, 504),
            backoff_factor=0.2,
            respect_retry_after_header=False,
        ),
        # The system's authorities, or those of SSL_CERT_FILE: a store in the house may have one of its own.
        cert_reqs="CERT_REQUIRED",
    )


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Turn what the client raises into `StorageUnavailable`; the cause is dropped, since its text holds URLs."""
    try:
        yield
    except S3Error as error:
        request = f" (request {error.request_id})" if error.request_id else ""
        raise StorageUnavailable(f"object storage cannot {what}: {error.code}{request}") from None
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ParseError) as error:
        raise StorageUnavailable(f"object storage cannot {what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason is not None:
        return type(error.reason).__name__
    return type(error).__name__
