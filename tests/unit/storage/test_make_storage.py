"""Which backend settings give."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from musehub_plugin.config import make_settings
from musehub_plugin.errors import ConfigError
from musehub_plugin.ids import fake_id
from musehub_plugin.storage import FileStorage, MemoryStorage, Storage, UrlSigner, make_storage

OID = fake_id("file")
SIGNER = UrlSigner([b"k" * 32], lambda: "https://hub.example")
S3 = {
    "MUSEHUB_STORAGE": "s3://bucket",
    "MUSEHUB_S3_ENDPOINT": "http://minio:9000",
    "MUSEHUB_S3_ACCESS_KEY": "access",
    "MUSEHUB_S3_SECRET_KEY": "a secret of some length",
}


def storage_of(**config: Any) -> Storage:
    return make_storage(make_settings(config, default_storage="memory://"), SIGNER)


def test_memory_is_memory() -> None:
    assert isinstance(storage_of(MUSEHUB_STORAGE="memory://"), MemoryStorage)


def test_a_file_url_is_its_directory(tmp_path: Path) -> None:
    storage = storage_of(MUSEHUB_STORAGE=(tmp_path / "with space").as_uri())
    assert isinstance(storage, FileStorage)
    assert storage.root == tmp_path / "with space"


def test_the_apps_signer_signs_for_a_backend_that_the_plugin_serves() -> None:
    url = storage_of(MUSEHUB_STORAGE="memory://").presign_get(OID)
    assert url.startswith("https://hub.example/-/musehub/storage/blob/")


def test_a_backend_object_takes_the_apps_signer() -> None:
    assert storage_of(MUSEHUB_STORAGE=MemoryStorage()).presign_get(OID).startswith("https://hub.example/")


def test_a_backend_object_keeps_a_signer_of_its_own() -> None:
    own = UrlSigner([b"o" * 32], lambda: "https://own.example")
    assert storage_of(MUSEHUB_STORAGE=MemoryStorage(own)).presign_get(OID).startswith("https://own.example/")


def test_s74_urls_name_the_public_endpoint_and_need_no_network() -> None:
    # Neither name resolves: a look at the network would fail.
    storage = storage_of(**S3, MUSEHUB_S3_PUBLIC_ENDPOINT="https://s3.hub.invalid")
    assert urlsplit(storage.presign_get(OID, 60))[:2] == ("https", "s3.hub.invalid")


def test_without_a_public_endpoint_urls_name_the_endpoint() -> None:
    assert urlsplit(storage_of(**S3).presign_mpack_get(OID, 60))[:2] == ("http", "minio:9000")


@pytest.mark.parametrize(
    ("endpoint", "secure", "scheme"),
    [("minio:9000", None, "https"), ("minio:9000", False, "http"), ("http://minio:9000", True, "https")],
)
def test_the_scheme_is_as_configured_and_tls_otherwise(endpoint: str, secure: bool | None, scheme: str) -> None:
    storage = storage_of(**S3 | {"MUSEHUB_S3_ENDPOINT": endpoint, "MUSEHUB_S3_SECURE": secure})
    assert urlsplit(storage.presign_get(OID, 60)).scheme == scheme


@pytest.mark.parametrize(
    ("endpoint", "secure", "scheme"),
    [("s3.hub.invalid", None, "https"), ("s3.hub.invalid", False, "http"), ("https://s3.hub.invalid", False, "https")],
)
def test_the_scheme_of_the_public_endpoint_is_its_own_else_as_configured(
    endpoint: str, secure: bool | None, scheme: str
) -> None:
    storage = storage_of(**S3 | {"MUSEHUB_S3_PUBLIC_ENDPOINT": endpoint, "MUSEHUB_S3_SECURE": secure})
    assert urlsplit(storage.presign_get(OID, 60))[:2] == (scheme, "s3.hub.invalid")


def test_keys_lie_below_the_prefix_of_the_url() -> None:
    storage = storage_of(**S3 | {"MUSEHUB_STORAGE": "s3://bucket/hubs/one/"})
    hex_digits = OID.partition(":")[2]
    assert urlsplit(storage.presign_get(OID, 60)).path == f"/bucket/hubs/one/blobs/{hex_digits[:2]}/{hex_digits[2:]}"


@pytest.mark.parametrize("bucket", ["ab", "a..b"])
def test_a_bucket_name_that_s3_does_not_know_is_a_config_error(bucket: str) -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_S3_BUCKET"):
        storage_of(**S3 | {"MUSEHUB_STORAGE": f"s3://{bucket}"})


def test_the_secret_is_not_in_the_repr() -> None:
    assert "secret" not in repr(storage_of(**S3))
