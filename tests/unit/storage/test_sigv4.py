"""Presigned S3 URLs with signed headers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minio import Minio

from musehub_plugin.storage.s3 import S3Storage
from musehub_plugin.storage.sigv4 import presign
from tests.effort import effort

NOW = datetime(2013, 5, 24, tzinfo=UTC)


def presigned(
    method: str = "GET",
    url: str = "https://s3.example/bucket/key",
    ttl: int = 60,
    headers: Mapping[str, str] | None = None,
) -> str:
    return presign(
        method,
        url,
        headers=headers or {},
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
        now=NOW,
        ttl_seconds=ttl,
    )


def test_the_published_example_has_the_published_signature() -> None:
    # "Example: Presigned URL" of the S3 API reference, Authenticating Requests: Using Query Parameters.
    url = presigned(url="https://examplebucket.s3.amazonaws.com/test.txt", ttl=86400)
    wanted = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert parse_qs(urlsplit(url).query)["X-Amz-Signature"] == [wanted]


@given(
    method=st.sampled_from(["GET", "PUT"]),
    key=st.text("abcdef0123456789/", min_size=1, max_size=20).filter(lambda key: "//" not in f"/{key}/"),
    ttl=st.integers(1, 7 * 24 * 3600),
)
@effort(50)
def test_without_headers_the_signature_is_the_clients(method: str, key: str, ttl: int) -> None:
    access, secret = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    client = Minio("s3.example:9000", access, secret, region="us-east-1")
    theirs = client.get_presigned_url(method, "bucket", key, expires=timedelta(seconds=ttl), request_date=NOW)
    ours = presigned(method, f"https://s3.example:9000/bucket/{key}", ttl)
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(theirs).query)


def test_s66_headers_are_named_as_signed() -> None:
    query = parse_qs(urlsplit(presigned("PUT", headers={"Content-Length": "3", "x-amz-checksum-sha256": "x"})).query)
    assert query["X-Amz-SignedHeaders"] == ["content-length;host;x-amz-checksum-sha256"]


def test_s66_another_header_value_has_another_signature() -> None:
    assert presigned("PUT", headers={"Content-Length": "3"}) != presigned("PUT", headers={"Content-Length": "4"})


@pytest.mark.parametrize("ttl", [0, -1, 7 * 24 * 3600 + 1])
def test_s69_a_life_out_of_bounds_is_refused(ttl: int) -> None:
    with pytest.raises(ValueError, match="lives 1 to 604800 seconds"):
        presigned(ttl=ttl)


@pytest.mark.parametrize("endpoint", ["s3.example:9000", "s3.amazonaws.com", "s3.eu-central-1.amazonaws.com"])
@pytest.mark.parametrize("prefix", ["", "hub/", "a hub~1/\N{LATIN SMALL LETTER E WITH ACUTE}+/"])
def test_a_url_of_an_mpack_is_the_clients_whatever_the_endpoint_and_the_prefix(endpoint: str, prefix: str) -> None:
    keys = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    storage = S3Storage(endpoint, *keys, "bucket", prefix=prefix, region="eu-central-1")
    ours = storage.presign_mpack_get("sha256:" + "a" * 64, 60)
    client = Minio(endpoint, *keys, region="eu-central-1")
    theirs = client.get_presigned_url(
        "GET",
        "bucket",
        f"{prefix}mpacks/aa/{'a' * 62}",
        expires=timedelta(seconds=60),
        request_date=datetime.strptime(parse_qs(urlsplit(ours).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z"),
    )
    assert ours == theirs
