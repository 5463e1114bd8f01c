"""Settings: every `MUSEHUB_*` key, read once, checked, frozen.

`make_settings` is pure: it sees a mapping and knows nothing of Flask, so that a test or a script can build settings
from a dictionary. A wrong value raises `ConfigError` with the name of the key and what it should be.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from musehub_plugin.errors import ConfigError

logger = logging.getLogger(__name__)

# SigV4 refuses longer lives; the client side of minio raises, boto would sign a URL that the store rejects.
MAX_PRESIGN_TTL = 7 * 24 * 3600

# What may stand in a URL as it is: a host with its port, and a path that Flask takes for nothing but text.
_HOST = re.compile(r"([0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_PATH = re.compile(r"(/[0-9A-Za-z._~!$&'()*+,;=:@-]+)*")


@dataclass(frozen=True)
class Settings:
    """What `MUSEHUB_*` says; one field a key, named without the prefix.

    Durations are in seconds, sizes in bytes.
    """

    storage: Any
    """URL (`file:///path`, `memory://`, `s3://bucket/prefix`) or an object with the storage interface."""
    s3_endpoint: str = ""
    """`http(s)://host:port` or `host:port` that the server itself uses."""
    s3_public_endpoint: str = ""
    """The host that presigned URLs name; default: `s3_endpoint`."""
    s3_access_key: str = field(default="", repr=False)
    s3_secret_key: str = field(default="", repr=False)
    s3_bucket: str = ""
    s3_region: str = "us-east-1"
    """Must be set for signing to be offline."""
    s3_secure: bool | None = None
    """TLS to object storage; default: by the endpoint's scheme, TLS where it has none."""
    redis_url: str = field(default="", repr=False)
    """Empty: jobs run in the process."""
    queue: str = "musehub"
    url_prefix: str = ""
    ops_prefix: str = "/-/musehub"
    mwp_prefix: str | None = "/mwp"
    """Where the released `muse` command finds the repos; None: nowhere. Its last part is then no name for an owner."""
    mwp_max_body: int = 64 * 1024 * 1024
    """Size of a body of `muse push`; it sends up to 400 blobs in one. Past 8 MiB it goes through a temporary file."""
    mwp_max_ids: int = 250_000
    """Ids in one list of a body of the `muse` command, which sends every commit that it has; some 300 bytes each."""
    mwp_max_staged: int = 1024**3
    """Bytes of blobs that a user may have sent ahead of a push to one repo; they expire with `upload_ttl`."""
    public_url: str = ""
    """Scheme and host under which clients reach the app; needed where the plugin serves storage behind a proxy."""
    signing_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Keys of the plugin's own signed URLs: the first signs, all verify. Default: derived from SECRET_KEY."""
    presign_ttl: int = 900
    upload_ttl: int = 3600
    retry_after: int = 2
    bind_key: str | None = None
    max_body: int = 8 * 1024 * 1024
    max_wants: int = 1_000
    max_haves: int = 100_000
    max_push: int = 5 * 1024**3
    """Size of a pushed mpack: what one S3 PUT takes."""
    max_push_raw: int = 64 * 1024**3
    """Size of a pushed mpack's blobs, unpacked."""
    max_blob: int = 2 * 1024**3
    push_room: int = 32 * 1024**2
    """Bytes of pushed mpacks that a process takes in at once, those of up to 1 MiB apart. A larger one is taken in
    alone; what there is no room for is told to come back. 0: as many as come."""
    max_commits: int = 1_000_000
    max_manifest_entries: int = 1_000_000
    """Paths in one manifest of a pushed mpack."""
    max_manifest_total: int = 250_000_000
    """Paths in all manifests of a pushed mpack together: hashing them costs 0.1 microseconds each."""
    job_timeout: int = 3600
    """How long one run of a job may take before the worker ends it."""
    job_lease: int = 60
    """How long a job whose worker died stays taken; a worker that lives extends it."""
    job_attempts: int = 5
    """Attempts at a job that fails for other reasons than an outage."""
    metrics_token: str = field(default="", repr=False)
    """Bearer token for `{ops}/metrics`; empty: there are no metrics to be had over HTTP."""
    gc_grace: int = 24 * 3600
    """How long garbage stays; longer than any URL, ticket or lease lives."""
    index_inline: int = 1_000
    """Pushes of up to so many blobs are indexed in the push's own transaction (some 30 ms); 0: always by a job."""
    fetch_inline: int = 256 * 1024
    """Packs of up to so many bytes travel in the answer to a fetch, where the client takes them so; 0: none do."""
    max_builds: int = 16
    """Packs that are made at once for fetches, on all machines together."""
    build_wait: int = 10
    """How long a fetch waits for a pack that another is making, or for its turn, before it answers 503."""
    build_by_job: int = 20_000
    """Commits and blobs of a fetch from which on a job makes its pack while the client waits, where there is a queue;
    0: never."""
    repack_packs: int = 32
    """Packs of a repo that the job after a push lets gather before it makes few big ones of them; 0: no such job."""
    repack_bytes: int = 1024**2
    """Their bytes, likewise; in a large repo an eighth of its size."""
    frame_cache: int = 512 * 1024**2
    """Disk of a process for decompressed frames, of which small fetches are made; 0: none."""
    graph_cache: int = 64 * 1024**2
    """Memory of a process for the packed histories that it plans with: some 200 bytes a commit."""
    sweep_interval: int = 30
    """How often a worker looks for jobs that the queue has lost."""

    @property
    def least_grace(self) -> int:
        """The shortest time for which garbage must stay: URLs, tickets and leases that are out live no longer."""
        return max(self.presign_ttl, self.upload_ttl, self.job_lease) + 1


def make_settings(config: Mapping[str, Any], *, default_storage: str) -> Settings:
    """Return the settings that `config` holds.

    Args:
        config: a Flask config or any mapping; keys that do not start with `MUSEHUB_` are ignored.
        default_storage: the storage URL where `MUSEHUB_STORAGE` is unset.

    Raises:
        ConfigError: a key is misspelled or its value is wrong; the message names the key.
    """
    known = {f.name for f in fields(Settings)}
    given = {key[len("MUSEHUB_") :].lower(): value for key, value in config.items() if key.startswith("MUSEHUB_")}
    values: dict[str, Any] = {"storage": default_storage}
    for name, value in given.items():
        if name not in known:
            _refuse_misspelled(name, known)
        elif value is not None or name in _NONE_SWITCHES_OFF:
            values[name] = value
    checked = {name: _CHECKS.get(name, _as_is)(f"MUSEHUB_{name.upper()}", value) for name, value in values.items()}
    settings = Settings(**checked)
    _check_together(settings)
    return settings


# Read by `musehub_plugin.auth.jwt`, where a host uses it.
_READ_ELSEWHERE = {"jwt_keys", "jwt_algorithms", "jwt_issuer", "jwt_audience"}


_NONE_SWITCHES_OFF = frozenset({"mwp_prefix"})


def _refuse_misspelled(name: str, known: set[str]) -> None:
    if name in _READ_ELSEWHERE:
        return
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if close:
        raise ConfigError(f"MUSEHUB_{name.upper()}: no such setting; did you mean MUSEHUB_{close[0].upper()}?")
    # A key of a later release must not keep an earlier one from starting when an operator rolls back.
    logger.warning("MUSEHUB_%s: no such setting, ignored", name.upper())


def _as_is(key: str, value: Any) -> Any:
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{key}: expected a string, got {type(value).__name__}")
    return value


def _seconds(low: int, high: int) -> Any:
    def check(key: str, value: Any) -> int:
        number = _whole(key, value)
        if not low <= number <= high:
            raise ConfigError(f"{key}: expected {low} to {high} seconds, got {number}")
        return number

    return check


def _positive(key: str, value: Any) -> int:
    number = _whole(key, value)
    if number < 1:
        raise ConfigError(f"{key}: expected a whole number of at least 1, got {number}")
    return number


def _not_negative(key: str, value: Any) -> int:
    number = _whole(key, value)
    if number < 0:
        raise ConfigError(f"{key}: expected a whole number of at least 0, got {number}")
    return number


def _whole(key: str, value: Any) -> int:
    # Environment variables arrive as text; Flask's from_prefixed_env decodes them only where they are JSON.
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key}: expected a whole number, got {value!r:.40}")
    return value


def _flag(key: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ConfigError(f"{key}: expected true or false, got {value!r:.40}")


def _prefix(key: str, value: Any) -> str:
    text = _text(key, value).rstrip("/")
    if not _is_path(text):
        raise ConfigError(
            f"{key}: expected an empty string or a path that starts with '/', of characters that need no escape in a "
            f"URL, got {text!r:.80}"
        )
    return text


def _optional_prefix(key: str, value: Any) -> str | None:
    return None if value is None else _prefix(key, value)


def _origin(key: str, value: Any) -> str:
    text = _text(key, value)
    if text:
        _refuse_credentials(key, text, "a client needs none to reach the app")
        parts = _location(text)
        if parts is None or parts.scheme not in {"http", "https"} or not _is_path(parts.path.rstrip("/")):
            raise ConfigError(f"{key}: expected http(s)://host[:port][/prefix], got {text!r:.80}")
    return text.rstrip("/")


def _endpoint(key: str, value: Any) -> str:
    text = _text(key, value)
    if not text:
        return text
    _refuse_credentials(key, text)
    parts = _location(text if "://" in text else f"//{text}")
    if parts is None or parts.scheme not in {"", "http", "https"}:
        raise ConfigError(f"{key}: expected host[:port] or http(s)://host[:port], got {text!r:.80}")
    if parts.path.rstrip("/"):
        raise ConfigError(f"{key}: expected no path, got {text!r:.80}")
    return text.rstrip("/")


def _location(url: str) -> SplitResult | None:
    """Return a URL's parts, or None where URLs that are made of it would lead elsewhere or nowhere.

    Its host is ASCII (an international name has a form that is), its port is one, and it ends with its path.
    """
    try:
        parts = urlsplit(url)
        good = parts.port is None or parts.port > 0
    except ValueError:
        return None
    # urlsplit drops line ends and tabs; what is made of the setting would have them.
    good = good and not any(character.isspace() for character in url) and not (parts.query or parts.fragment)
    return parts if good and _HOST.fullmatch(parts.netloc) else None


def _is_path(text: str) -> bool:
    """Say whether a text can be put before the paths of routes and into URLs, as it is."""
    return _PATH.fullmatch(text) is not None and not {".", ".."}.intersection(text.split("/"))


def _refuse_credentials(
    key: str, url: str, instead: str = "use MUSEHUB_S3_ACCESS_KEY and MUSEHUB_S3_SECRET_KEY"
) -> None:
    # Before any other complaint, since those repeat the value.
    if "@" in url:
        raise ConfigError(f"{key}: must not hold credentials; {instead}")


def _keys(key: str, value: Any) -> tuple[bytes, ...]:
    items: Sequence[Any] = [value] if isinstance(value, str | bytes) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str | bytes) for item in items):
        raise ConfigError(f"{key}: expected a key or a list of keys, as str or bytes")
    keys = tuple(item.encode() if isinstance(item, str) else item for item in items)
    if any(len(item) < 32 for item in keys):
        raise ConfigError(f"{key}: each key needs at least 32 bytes")
    return keys


_STORAGE_METHODS = ("put", "get", "exists", "put_mpack", "get_mpack", "presign_get", "presign_mpack_get")


def _redis(key: str, value: Any) -> str:
    url = _text(key, value)
    if not url:
        return url
    # No text here quotes the URL: what is wrong with it may be a password without its @.
    try:
        parts = urlsplit(url)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        port_is_good = False
    if not port_is_good:
        raise ConfigError(f"{key}: expected a host and a port from 1 to 65535")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ConfigError(f"{key}: expected redis://, rediss:// or unix://")
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not (database.isascii() and database.isdecimal()):
        # Redis' client passes over what is no number, and uses database 0.
        raise ConfigError(f"{key}: expected the number of a database after the host, such as /0")
    return url


def _storage(key: str, value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute().as_uri()
    if isinstance(value, type):
        raise ConfigError(f"{key}: expected an object, got the class {value.__name__}: call it")
    if not isinstance(value, str):
        missing = [name for name in _STORAGE_METHODS if not callable(getattr(value, name, None))]
        missing += [] if hasattr(value, "supports_presign") else ["supports_presign"]
        if missing:
            raise ConfigError(f"{key}: {type(value).__name__} lacks {', '.join(missing)} of the storage interface")
        return value
    parts = urlsplit(value)
    if parts.scheme != "file":
        # A folder may have an @ in its name; what a file URL has before one is a host, and refused below.
        _refuse_credentials(key, value)
    if not value.startswith(("file:", "memory:", "s3://")):
        raise ConfigError(f"{key}: expected file:///path, memory:// or s3://bucket, got {value!r:.80}")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise ConfigError(f"{key}: expected three slashes and an absolute path, file:///path, and no host")
    if parts.query or parts.fragment:
        raise ConfigError(f"{key}: expected no ? and no # (in a folder's name %3F and %23), got {value!r:.80}")
    if parts.scheme == "s3" and {".", ".."}.intersection(parts.path.split("/")):
        raise ConfigError(f"{key}: expected no . and no .. in the prefix, which clients resolve, got {value!r:.80}")
    return value


_CHECKS: dict[str, Any] = {
    "storage": _storage,
    "s3_endpoint": _endpoint,
    "s3_public_endpoint": _endpoint,
    "s3_access_key": _text,
    "s3_secret_key": _text,
    "s3_bucket": _text,
    "s3_region": _text,
    "s3_secure": _flag,
    "redis_url": _redis,
    "queue": _text,
    "url_prefix": _prefix,
    "ops_prefix": _prefix,
    "mwp_prefix": _optional_prefix,
    "mwp_max_body": _positive,
    "mwp_max_ids": _positive,
    "mwp_max_staged": _positive,
    "public_url": _origin,
    "signing_keys": _keys,
    "presign_ttl": _seconds(1, MAX_PRESIGN_TTL),
    "upload_ttl": _seconds(1, MAX_PRESIGN_TTL),
    "retry_after": _seconds(1, 3600),
    "bind_key": _text,
    "job_timeout": _seconds(1, 24 * 3600),
    "job_lease": _seconds(1, 24 * 3600),
    "job_attempts": _positive,
    "metrics_token": _text,
    "gc_grace": _seconds(1, 10 * 365 * 24 * 3600),
    "index_inline": _not_negative,
    "fetch_inline": _not_negative,
    "max_builds": _positive,
    "build_wait": _seconds(0, 3600),
    "build_by_job": _not_negative,
    "repack_packs": _not_negative,
    "repack_bytes": _positive,
    "frame_cache": _not_negative,
    "graph_cache": _not_negative,
    "sweep_interval": _seconds(1, 24 * 3600),
    "max_body": _positive,
    "max_wants": _positive,
    "max_haves": _positive,
    "max_push": _positive,
    "max_push_raw": _positive,
    "max_blob": _positive,
    "push_room": _not_negative,
    "max_commits": _positive,
    "max_manifest_entries": _positive,
    "max_manifest_total": _positive,
}


def _check_together(settings: Settings) -> None:
    if isinstance(settings.storage, str) and settings.storage.startswith("s3://"):
        bucket = urlsplit(settings.storage).netloc
        if not bucket and not settings.s3_bucket:
            raise ConfigError("MUSEHUB_S3_BUCKET: needed, since MUSEHUB_STORAGE names no bucket (s3://bucket)")
        if bucket and settings.s3_bucket and bucket != settings.s3_bucket:
            raise ConfigError("MUSEHUB_S3_BUCKET: contradicts the bucket that MUSEHUB_STORAGE names")
        for name in ("s3_endpoint", "s3_access_key", "s3_secret_key", "s3_region"):
            if not getattr(settings, name):
                raise ConfigError(f"MUSEHUB_{name.upper()}: needed, since MUSEHUB_STORAGE is s3://")
    if settings.gc_grace < settings.least_grace:
        raise ConfigError(
            f"MUSEHUB_GC_GRACE: expected more than {settings.least_grace - 1} seconds, the longest of "
            "MUSEHUB_PRESIGN_TTL, MUSEHUB_UPLOAD_TTL and MUSEHUB_JOB_LEASE"
        )
    if settings.ops_prefix == "":
        raise ConfigError("MUSEHUB_OPS_PREFIX: must not be empty")
    if settings.mwp_prefix == settings.url_prefix:
        raise ConfigError(
            "MUSEHUB_MWP_PREFIX: the same as MUSEHUB_URL_PREFIX, and both have /{owner}/{slug}/refs and fetch; set "
            "MUSEHUB_URL_PREFIX to another path, such as '/hub', or MUSEHUB_MWP_PREFIX to None"
        )
    if settings.mwp_prefix == settings.ops_prefix:
        raise ConfigError("MUSEHUB_MWP_PREFIX: the same as MUSEHUB_OPS_PREFIX; set it to another path, or to None")
    if not settings.queue:
        raise ConfigError("MUSEHUB_QUEUE: must not be empty")
