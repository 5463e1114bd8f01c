"""The contract's section 7: every key that it names has a default, and a bad value is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from musehub_plugin import MuseHub
from musehub_plugin.errors import ConfigError

S3 = {
    "MUSEHUB_STORAGE": "s3://bucket",
    "MUSEHUB_S3_ENDPOINT": "http://127.0.0.1:9",
    "MUSEHUB_S3_ACCESS_KEY": "key",
    "MUSEHUB_S3_SECRET_KEY": "a-secret-that-must-not-show",
}


def host(tmp_path: Path, **config: Any) -> Flask:
    app = Flask("host", instance_path=str(tmp_path))
    app.config.update(config)
    MuseHub(app)
    return app


def test_a_host_that_sets_nothing_starts(tmp_path: Path) -> None:
    assert "musehub" in host(tmp_path).extensions


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MUSEHUB_STORAGE", "ftp://host/path"),
        ("MUSEHUB_STORAGE", "not a url"),
        ("MUSEHUB_STORAGE", "file://relative/path"),
        ("MUSEHUB_STORAGE", "s3://key:secret@bucket"),
        ("MUSEHUB_STORAGE", "s3:/prefix"),
        ("MUSEHUB_STORAGE", "S3://bucket"),
        ("MUSEHUB_STORAGE", 7),
        ("MUSEHUB_STORAGE", object()),
        ("MUSEHUB_S3_ENDPOINT", "ftp://host"),
        ("MUSEHUB_S3_ENDPOINT", "http://key:secret@host"),
        ("MUSEHUB_S3_ENDPOINT", "http://host/path"),
        ("MUSEHUB_S3_PUBLIC_ENDPOINT", "http://host:port"),
        ("MUSEHUB_S3_ACCESS_KEY", 7),
        ("MUSEHUB_S3_SECRET_KEY", b"bytes"),
        ("MUSEHUB_S3_BUCKET", 7),
        ("MUSEHUB_S3_REGION", 7),
        ("MUSEHUB_S3_SECURE", "perhaps"),
        ("MUSEHUB_REDIS_URL", "http://host"),
        ("MUSEHUB_REDIS_URL", 6379),
        ("MUSEHUB_REDIS_URL", "redis://host:99999/0"),
        ("MUSEHUB_REDIS_URL", "redis://host:port/0"),
        ("MUSEHUB_REDIS_URL", "redis://[host/0"),
        ("MUSEHUB_REDIS_URL", "redis://host/queue"),
        ("MUSEHUB_REDIS_URL", "redis:/0"),
        ("MUSEHUB_REDIS_URL", "unix:/run/redis.sock"),
        ("MUSEHUB_REDIS_URL", "REDIS://host/0"),
        ("MUSEHUB_QUEUE", ""),
        ("MUSEHUB_QUEUE", 7),
        ("MUSEHUB_URL_PREFIX", "no-slash"),
        ("MUSEHUB_URL_PREFIX", 7),
        ("MUSEHUB_OPS_PREFIX", "no-slash"),
        ("MUSEHUB_OPS_PREFIX", ""),
        ("MUSEHUB_PRESIGN_TTL", 0),
        ("MUSEHUB_PRESIGN_TTL", "soon"),
        ("MUSEHUB_PRESIGN_TTL", 1.5),
        ("MUSEHUB_PRESIGN_TTL", True),
        ("MUSEHUB_PRESIGN_TTL", 7 * 24 * 3600 + 1),
        ("MUSEHUB_RETRY_AFTER", 0),
        ("MUSEHUB_RETRY_AFTER", -1),
        ("MUSEHUB_BIND_KEY", 7),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_key(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        host(tmp_path, **{key: value})


@pytest.mark.parametrize("key", ["MUSEHUB_S3_ENDPOINT", "MUSEHUB_S3_ACCESS_KEY", "MUSEHUB_S3_SECRET_KEY"])
def test_what_s3_needs_is_asked_for_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        host(tmp_path, **{name: value for name, value in S3.items() if name != key})


def test_two_different_buckets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^MUSEHUB_S3_BUCKET: "):
        host(tmp_path, **S3, MUSEHUB_S3_BUCKET="another")


def test_a_misspelled_key_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MUSEHUB_PRESIGN_TLL.*MUSEHUB_PRESIGN_TTL"):
        host(tmp_path, MUSEHUB_PRESIGN_TLL=60)


def test_no_error_shows_a_secret(tmp_path: Path) -> None:
    secret = S3["MUSEHUB_S3_SECRET_KEY"]
    wrong: dict[str, Any] = {"S3_REGION": 7, "S3_ENDPOINT": f"http://key:{secret}@host", "QUEUE": ""}
    for name, value in wrong.items():
        with pytest.raises(ConfigError) as caught:
            host(tmp_path, **{**S3, f"MUSEHUB_{name}": value})
        assert secret not in str(caught.value)


def test_urls_are_signed_for_the_configured_time(tmp_path: Path) -> None:
    settings = host(tmp_path, MUSEHUB_PRESIGN_TTL="60", MUSEHUB_RETRY_AFTER="9").extensions["musehub"].settings
    assert (settings.presign_ttl, settings.retry_after) == (60, 9)
