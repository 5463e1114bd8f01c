"""Settings: each wrong value is refused by the name of its key."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from musehub_plugin.config import MAX_PRESIGN_TTL, Settings, make_settings
from musehub_plugin.errors import ConfigError
from musehub_plugin.storage import MemoryStorage

S3 = {
    "MUSEHUB_STORAGE": "s3://bucket",
    "MUSEHUB_S3_ENDPOINT": "http://127.0.0.1:9000",
    "MUSEHUB_S3_ACCESS_KEY": "access",
    "MUSEHUB_S3_SECRET_KEY": "secret",
}
SIZES = ("MAX_BODY", "MAX_WANTS", "MAX_HAVES", "MAX_PUSH", "MAX_PUSH_RAW", "MAX_BLOB", "MAX_COMMITS")
MWP = ("MWP_MAX_BODY", "MWP_MAX_IDS", "MWP_MAX_STAGED")
COUNTS = (*SIZES, *MWP, "MAX_MANIFEST_ENTRIES", "MAX_MANIFEST_TOTAL", "JOB_ATTEMPTS")
SECONDS = {
    "PRESIGN_TTL": MAX_PRESIGN_TTL,
    "UPLOAD_TTL": MAX_PRESIGN_TTL,
    "RETRY_AFTER": 3600,
    "JOB_TIMEOUT": 86400,
    "JOB_LEASE": 86400,
    "SWEEP_INTERVAL": 86400,
    "GC_GRACE": 10 * 365 * 86400,
}
TEXTS = ("METRICS_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET", "S3_REGION", "REDIS_URL", "QUEUE", "BIND_KEY")

BAD: list[tuple[str, Any]] = [
    ("STORAGE", "ftp://host/path"),
    ("STORAGE", "/var/lib/musehub"),
    ("STORAGE", "file://relative/path"),
    ("STORAGE", "s3://access:secret@bucket"),
    ("STORAGE", "s3://bucket?prefix=packs"),
    ("STORAGE", "s3://bucket/../other"),
    ("STORAGE", "file:///srv/packs#1"),
    ("STORAGE", 7),
    ("STORAGE", {}),
    ("S3_ENDPOINT", "ftp://host"),
    ("S3_ENDPOINT", "http://host:port"),
    ("S3_ENDPOINT", "http://host:99999"),
    ("S3_ENDPOINT", "http://"),
    ("S3_ENDPOINT", "http://user:word@host"),
    ("S3_ENDPOINT", "http://host/bucket"),
    ("S3_ENDPOINT", "http://the host"),
    ("S3_ENDPOINT", "http://host\n"),
    ("S3_ENDPOINT", "http://minio.höst"),
    ("S3_PUBLIC_ENDPOINT", "https://host/?x=1"),
    ("S3_PUBLIC_ENDPOINT", 9000),
    ("S3_SECURE", "perhaps"),
    ("S3_SECURE", 2),
    ("REDIS_URL", "http://127.0.0.1:6379"),
    ("REDIS_URL", "127.0.0.1:6379"),
    ("QUEUE", ""),
    ("URL_PREFIX", "muse"),
    ("URL_PREFIX", 1),
    ("URL_PREFIX", "/<owner>"),
    ("URL_PREFIX", "/a b"),
    ("URL_PREFIX", "/a/../b"),
    ("URL_PREFIX", "//a"),
    ("URL_PREFIX", "/a?b"),
    ("URL_PREFIX", "/a\n"),
    ("MWP_PREFIX", "mwp"),
    ("MWP_PREFIX", 1),
    ("OPS_PREFIX", ""),
    ("OPS_PREFIX", "/"),
    ("OPS_PREFIX", "ops"),
    ("PUBLIC_URL", "hub.example.org"),
    ("PUBLIC_URL", "ftp://hub.example.org"),
    ("PUBLIC_URL", "https://user@hub.example.org"),
    ("PUBLIC_URL", "https:///path"),
    ("PUBLIC_URL", "https://hub.example.org:99999"),
    ("PUBLIC_URL", "https://hub.example.org\n"),
    ("PUBLIC_URL", "https://hub.example.org?forge=1"),
    ("PUBLIC_URL", "https://hub.example.org#forge"),
    ("PUBLIC_URL", "https://hub.example.org/a//b"),
    ("SIGNING_KEYS", "short"),
    ("SIGNING_KEYS", ["x" * 32, b"x" * 31]),
    ("SIGNING_KEYS", 32),
    ("SIGNING_KEYS", [32]),
    ("INDEX_INLINE", -1),
    ("FETCH_INLINE", -1),
    ("MAX_BUILDS", 0),
    ("BUILD_WAIT", -1),
    ("BUILD_BY_JOB", -1),
    ("REPACK_PACKS", "few"),
    ("REPACK_BYTES", 0),
    ("FRAME_CACHE", -1),
    ("GRAPH_CACHE", "64M"),
    ("PUSH_ROOM", "32M"),
    ("INDEX_INLINE", "many"),
    *((name, value) for name in COUNTS for value in (0, -1, "many", 1.5, True, "1e3", "٣")),
    *((name, value) for name, high in SECONDS.items() for value in (0, high + 1, "soon", 2.5, False)),
    *((name, 5) for name in TEXTS),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{name}={value!r:.40}" for name, value in BAD])
def test_a_bad_value_is_refused_by_the_name_of_its_key(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"MUSEHUB_{name}:"):
        make_settings({f"MUSEHUB_{name}": value}, default_storage="memory://")


def test_every_key_has_a_bad_value_here() -> None:
    assert {name.lower() for name, _ in BAD} == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize("secret", ["S3_SECRET_KEY", "S3_ACCESS_KEY", "SIGNING_KEYS", "REDIS_URL"])
def test_a_secret_is_not_in_the_settings_text(secret: str) -> None:
    value = "redis://:canary-canary-canary-canary-canary@h" if secret == "REDIS_URL" else "canary-" * 6
    assert "canary" not in repr(make_settings({**S3, f"MUSEHUB_{secret}": value}, default_storage="memory://"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MUSEHUB_STORAGE", "s3://access:canary@bucket"),
        ("MUSEHUB_STORAGE", "ftp://access:canary@host"),
        ("MUSEHUB_STORAGE", "file://access:canary@host/path"),
        ("MUSEHUB_S3_ENDPOINT", "http://access:canary@host"),
        ("MUSEHUB_S3_ENDPOINT", "ftp://access:canary@host"),
        ("MUSEHUB_PUBLIC_URL", "https://access:canary@host"),
        ("MUSEHUB_REDIS_URL", "http://:canary@host"),
        ("MUSEHUB_REDIS_URL", "redis://host:canary/0"),
        ("MUSEHUB_REDIS_URL", "redis://host/canary"),
        ("MUSEHUB_SIGNING_KEYS", "canary"),
    ],
)
def test_s64_a_refusal_does_not_repeat_a_secret(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_settings({key: value}, default_storage="memory://")
    assert "canary" not in str(refusal.value)


@pytest.mark.parametrize(
    ("misspelled", "meant"),
    [
        ("MUSEHUB_S3_ACESS_KEY", "MUSEHUB_S3_ACCESS_KEY"),
        ("MUSEHUB_REDIS_URI", "MUSEHUB_REDIS_URL"),
        ("MUSEHUB_STORGE", "MUSEHUB_STORAGE"),
        ("MUSEHUB_PRESIGNTTL", "MUSEHUB_PRESIGN_TTL"),
    ],
)
def test_a_misspelled_key_is_refused_with_the_one_that_was_meant(misspelled: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"{misspelled}: .* {meant}"):
        make_settings({misspelled: "x"}, default_storage="memory://")


def test_a_key_of_a_later_release_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    make_settings({"MUSEHUB_TELEPORT": "on"}, default_storage="memory://")
    assert "MUSEHUB_TELEPORT" in caplog.text


def test_keys_of_others_are_not_looked_at() -> None:
    assert make_settings({"MUSE_HUB": 1, "SECRET_KEY": "x"}, default_storage="memory://").storage == "memory://"


def test_the_defaults_work_without_any_key() -> None:
    settings = make_settings({}, default_storage="file:///somewhere")
    assert (settings.storage, settings.queue, settings.url_prefix) == ("file:///somewhere", "musehub", "")
    assert (settings.ops_prefix, settings.redis_url, settings.bind_key) == ("/-/musehub", "", None)
    assert (settings.max_wants, settings.max_haves, settings.max_body) == (1_000, 100_000, 8 * 1024 * 1024)


def test_none_is_the_default() -> None:
    assert make_settings({"MUSEHUB_REDIS_URL": None}, default_storage="memory://").redis_url == ""


@pytest.mark.parametrize("value", ["30", " 30 ", 30])
def test_a_number_may_come_as_text_from_the_environment(value: Any) -> None:
    assert make_settings({"MUSEHUB_RETRY_AFTER": value}, default_storage="memory://").retry_after == 30


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("0", False), (True, True), ("Off", False)])
def test_a_flag_may_come_as_text_from_the_environment(value: Any, expected: bool) -> None:
    assert make_settings({"MUSEHUB_S3_SECURE": value}, default_storage="memory://").s3_secure is expected


def test_a_path_is_file_storage(tmp_path: Path) -> None:
    assert make_settings({"MUSEHUB_STORAGE": tmp_path}, default_storage="memory://").storage == tmp_path.as_uri()


def test_an_object_with_the_storage_interface_is_kept() -> None:
    storage = MemoryStorage()
    assert make_settings({"MUSEHUB_STORAGE": storage}, default_storage="memory://").storage is storage


def test_a_storage_object_that_does_not_say_whether_it_makes_urls_is_refused() -> None:
    names = ("put", "get", "exists", "put_mpack", "get_mpack", "presign_get", "presign_mpack_get")
    mute = type("Mute", (), dict.fromkeys(names, print))()
    with pytest.raises(ConfigError, match="MUSEHUB_STORAGE: Mute lacks supports_presign of"):
        make_settings({"MUSEHUB_STORAGE": mute}, default_storage="memory://")


def test_a_storage_class_in_place_of_an_object_is_refused() -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_STORAGE: expected an object, got the class MemoryStorage"):
        make_settings({"MUSEHUB_STORAGE": MemoryStorage}, default_storage="memory://")


def test_what_a_storage_object_lacks_is_named() -> None:
    class Half:
        def put(self, oid: str, data: bytes) -> str:
            return oid

    with pytest.raises(ConfigError, match=r"Half lacks get, exists, .*presign_mpack_get"):
        make_settings({"MUSEHUB_STORAGE": Half()}, default_storage="memory://")


@pytest.mark.parametrize("missing", ["MUSEHUB_S3_ENDPOINT", "MUSEHUB_S3_ACCESS_KEY", "MUSEHUB_S3_SECRET_KEY"])
def test_s3_without_one_of_its_keys_is_refused_by_its_name(missing: str) -> None:
    given = {key: value for key, value in S3.items() if key != missing}
    with pytest.raises(ConfigError, match=f"{missing}: needed"):
        make_settings(given, default_storage="memory://")


def test_s3_without_a_region_could_not_sign_offline() -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_S3_REGION"):
        make_settings({**S3, "MUSEHUB_S3_REGION": ""}, default_storage="memory://")


@pytest.mark.parametrize(
    "given", [{"MUSEHUB_STORAGE": "s3://"}, {"MUSEHUB_S3_BUCKET": "other"}], ids=["no bucket", "two buckets"]
)
def test_s3_needs_one_bucket(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="MUSEHUB_S3_BUCKET"):
        make_settings({**S3, **given}, default_storage="memory://")


@pytest.mark.parametrize("prefix", ["/muse", "/muse/", "/a/b"])
def test_a_prefix_loses_its_last_slash(prefix: str) -> None:
    assert make_settings({"MUSEHUB_URL_PREFIX": prefix}, default_storage="memory://").url_prefix == prefix.rstrip("/")


def test_s69_a_url_may_live_for_a_week_and_no_longer() -> None:
    week_long = {"MUSEHUB_PRESIGN_TTL": 604_800, "MUSEHUB_GC_GRACE": 604_801}
    settings = make_settings(week_long, default_storage="memory://")
    assert settings.presign_ttl == 604_800
    with pytest.raises(ConfigError, match="MUSEHUB_PRESIGN_TTL"):
        make_settings({"MUSEHUB_PRESIGN_TTL": 604_801}, default_storage="memory://")


@pytest.mark.parametrize("longer", ["MUSEHUB_PRESIGN_TTL", "MUSEHUB_UPLOAD_TTL", "MUSEHUB_JOB_LEASE"])
def test_r32_garbage_is_kept_for_longer_than_anything_may_name_it(longer: str) -> None:
    make_settings({"MUSEHUB_GC_GRACE": 7201, longer: 7200}, default_storage="memory://")
    with pytest.raises(ConfigError, match="MUSEHUB_GC_GRACE"):
        make_settings({"MUSEHUB_GC_GRACE": 7200, longer: 7200}, default_storage="memory://")


def test_the_settings_of_jwts_are_known(caplog: pytest.LogCaptureFixture) -> None:
    names = ("KEYS", "ALGORITHMS", "ISSUER", "AUDIENCE")
    make_settings({f"MUSEHUB_JWT_{name}": "x" for name in names}, default_storage="memory://")
    assert caplog.text == ""
