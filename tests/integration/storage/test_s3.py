"""S3 storage against a real store."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import secrets
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3

from musehub_plugin.config import make_settings
from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import blob_id, fake_id
from musehub_plugin.storage.s3 import PART_SIZE, S3Storage, s3_storage
from musehub_plugin.testing.contract import (
    DeletesContract,
    PingsContract,
    PresignContract,
    StorageContract,
    StreamsMPacksContract,
    TakesUploadsContract,
)
from musehub_plugin.testing.services import Service, s3_config, s3_service

CONTENT = b"the bytes of an mpack"


def storage_at(url: str, **changes: str) -> S3Storage:
    return s3_storage(make_settings(s3_config(url) | changes, default_storage="memory://"))


@pytest.fixture(scope="module")
def own_s3() -> Iterator[Service]:
    """The store of the testing kit, whatever store `MUSEHUB_TEST_S3_URL` names."""
    with s3_service() as service:
        yield service


@pytest.fixture
def storage(musehub_s3_url: str) -> S3Storage:
    return storage_at(musehub_s3_url)


def status(method: str, url: str, **request: object) -> int:
    return urllib3.request(method, url, retries=False, timeout=60, **request).status  # type: ignore[arg-type] # passed on


class TestS3Storage(
    PresignContract, StreamsMPacksContract, TakesUploadsContract, DeletesContract, PingsContract, StorageContract
):
    @pytest.fixture
    def storage(self, musehub_s3_url: str) -> S3Storage:
        return storage_at(musehub_s3_url)

    @pytest.fixture
    def broken_storage(self, musehub_s3_url: str) -> S3Storage:
        return storage_at(musehub_s3_url, MUSEHUB_S3_ENDPOINT="http://127.0.0.1:1")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_s63_a_get_url_allows_no_other_method(storage: S3Storage, method: str) -> None:
    storage.put(blob_id(CONTENT), CONTENT)
    assert status(method, storage.presign_get(blob_id(CONTENT), 60)) == 403


def test_s63_a_get_url_takes_ranges(storage: S3Storage) -> None:
    storage.put(blob_id(CONTENT), CONTENT)
    url = storage.presign_get(blob_id(CONTENT), 60)
    answer = urllib3.request("GET", url, headers={"Range": "bytes=4-8"})
    assert (answer.status, answer.data) == (206, CONTENT[4:9])


def test_s66_the_checksum_and_the_size_are_signed_headers(storage: S3Storage) -> None:
    upload = storage.presign_upload("ab" * 32, mpack_id=blob_id(CONTENT), size_bytes=21, ttl_seconds=60)
    query = dict(parse_qsl(urlsplit(upload.url).query))
    wanted = {"Content-Length": "21", "x-amz-checksum-sha256": _checksum(CONTENT)}
    assert (query["X-Amz-SignedHeaders"], upload.headers) == ("content-length;host;x-amz-checksum-sha256", wanted)


@pytest.mark.parametrize("headers", [{}, {"x-amz-checksum-sha256": "b" * 43 + "="}])
def test_s66_an_upload_without_the_signed_checksum_is_403(storage: S3Storage, headers: dict[str, str]) -> None:
    upload = storage.presign_upload(
        secrets.token_hex(32), mpack_id=blob_id(CONTENT), size_bytes=len(CONTENT), ttl_seconds=60
    )
    assert status("PUT", upload.url, headers=headers, body=CONTENT) == 403


def test_s66_a_checksum_moved_into_the_query_is_403(storage: S3Storage) -> None:
    other = CONTENT[::-1]
    upload = storage.presign_upload(
        secrets.token_hex(32), mpack_id=blob_id(CONTENT), size_bytes=len(CONTENT), ttl_seconds=60
    )
    url = f"{upload.url}&x-amz-checksum-sha256={_checksum(other)}"
    assert status("PUT", url, body=other) == 403


def test_s67_a_file_that_is_replaced_while_it_is_read_is_not_mixed(storage: S3Storage) -> None:
    mpack_id = fake_id(secrets.token_hex(8))
    storage.put_mpack(mpack_id, secrets.token_bytes(1_000_000))
    file = storage.open_mpack(mpack_id)
    assert file is not None
    file.read(10)
    storage.put_mpack(mpack_id, secrets.token_bytes(1_000_000))
    file.seek(900_000)
    with pytest.raises(StorageUnavailable, match="PreconditionFailed"):
        file.read(10)


def test_s74_a_url_for_the_public_host_is_refused_at_another(storage: S3Storage, musehub_s3_url: str) -> None:
    storage.put(blob_id(CONTENT), CONTENT)
    public = storage_at(musehub_s3_url, MUSEHUB_S3_PUBLIC_ENDPOINT="http://s3.hub.invalid")
    internal = s3_config(musehub_s3_url)["MUSEHUB_S3_ENDPOINT"]
    rewritten = public.presign_get(blob_id(CONTENT), 60).replace("http://s3.hub.invalid", internal)
    assert status("GET", rewritten) == 403


def test_s74_a_url_for_the_public_host_is_served_there(own_s3: Service) -> None:
    # A store of one's own: one that serves many customers tells them apart by this very name.
    storage_at(own_s3.url).put(blob_id(CONTENT), CONTENT)
    internal = urlsplit(s3_config(own_s3.url)["MUSEHUB_S3_ENDPOINT"])
    public = storage_at(own_s3.url, MUSEHUB_S3_PUBLIC_ENDPOINT="http://s3.hub.invalid")
    url = urlsplit(public.presign_get(blob_id(CONTENT), 60))
    # As a proxy does it: to the internal address, with the Host that the client used.
    proxied = url._replace(netloc=internal.netloc).geturl()
    assert status("GET", proxied, headers={"Host": "s3.hub.invalid"}) == 200


def test_a_large_mpack_goes_up_in_parts(storage: S3Storage) -> None:
    content = secrets.token_bytes(2 * PART_SIZE + 5)
    storage.put_mpack_file(blob_id(content), io.BytesIO(content))
    file = storage.open_mpack(blob_id(content))
    assert file is not None
    with file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == blob_id(content)[7:]  # type: ignore[arg-type] # a file


def test_s72_a_name_that_is_no_id_never_becomes_a_key(storage: S3Storage) -> None:
    with pytest.raises(ValueError, match="not an id"):
        storage.get("sha256:../../other-bucket/secret")


@pytest.mark.parametrize("call", ["get", "exists", "get_mpack", "open_mpack", "delete"])
def test_bad_credentials_are_not_absence(musehub_s3_url: str, call: str) -> None:
    storage = storage_at(musehub_s3_url, MUSEHUB_S3_SECRET_KEY="wrong" * 8)
    with pytest.raises(StorageUnavailable):
        getattr(storage, call)(fake_id("file"))


# A name of ours: buckets of all customers of a store share one space of names.
NO_BUCKET = f"missing-{secrets.token_hex(8)}"
WITHOUT_BUCKET = {"MUSEHUB_STORAGE": f"s3://{NO_BUCKET}", "MUSEHUB_S3_BUCKET": NO_BUCKET}


@pytest.mark.parametrize("call", ["get", "exists", "get_mpack", "open_mpack"])
def test_a_missing_bucket_is_not_absence(musehub_s3_url: str, call: str) -> None:
    with pytest.raises(StorageUnavailable, match=r"bucket|NoSuchBucket"):
        getattr(storage_at(musehub_s3_url, **WITHOUT_BUCKET), call)(fake_id("file"))


def test_ping_says_that_the_bucket_is_missing(musehub_s3_url: str) -> None:
    with pytest.raises(StorageUnavailable, match=f"no bucket '{NO_BUCKET}'"):
        storage_at(musehub_s3_url, **WITHOUT_BUCKET).ping()


def test_s64_errors_and_logs_hold_no_url_and_no_credential(
    musehub_s3_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "musehub_plugin")
    caplog.set_level(logging.INFO, "urllib3")
    storage = storage_at(musehub_s3_url, MUSEHUB_S3_SECRET_KEY="wrong" * 8)
    with pytest.raises(StorageUnavailable) as failure:
        storage.get(fake_id("file"))
    access = s3_config(musehub_s3_url)["MUSEHUB_S3_ACCESS_KEY"]
    said = f"{failure.value!r} {failure.value.__cause__!r} {caplog.text}"
    assert not [secret for secret in (access, "wrong", "://", "X-Amz", "blobs/") if secret in said]


@pytest.mark.faults
def test_a_store_that_goes_away_is_unavailable_and_comes_back(own_s3: Service) -> None:
    storage = storage_at(own_s3.url)
    storage.put(blob_id(CONTENT), CONTENT)
    own_s3.stop()
    with pytest.raises(StorageUnavailable):
        storage.get(blob_id(CONTENT))
    own_s3.start()
    assert storage.get(blob_id(CONTENT)) == CONTENT


def _checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
