"""The plugin's own signed URLs, over HTTP.

For a directory, for memory, and for a backend that has the contract's methods alone.
"""

from __future__ import annotations

import io
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import blob_id, to_hex
from musehub_plugin.storage import FileStorage, MemoryStorage, Storage, UrlSigner, uploads
from musehub_plugin.web.storage_routes import make_storage_blueprint

KEY, NEXT_KEY = b"k" * 32, b"n" * 32
CONTENT = bytes(range(256)) * 300
MPACK = blob_id(CONTENT)
NAME = to_hex(MPACK)


class Minimal:
    """A third party's backend: the contract's names and no others."""

    supports_presign = False

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}

    def put(self, oid: str, data: bytes) -> str:
        self.kept["blob", oid] = data
        return f"minimal:{oid}"

    def get(self, oid: str) -> bytes | None:
        return self.kept.get(("blob", oid))

    def exists(self, oid: str) -> bool:
        return ("blob", oid) in self.kept

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        self.kept["mpack", mpack_id] = data
        return f"minimal:{mpack_id}"

    def get_mpack(self, mpack_id: str) -> bytes | None:
        return self.kept.get(("mpack", mpack_id))

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        raise NotImplementedError

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        raise NotImplementedError


@dataclass
class Site:
    """An app that serves a storage, and the clock of its signer."""

    storage: Storage
    signer: UrlSigner
    client: FlaskClient
    clock: list[float]

    def get(self, url: str, **headers: str) -> TestResponse:
        # Buffered: read to the end and closed, as a server does it.
        return self.client.get(url, headers={"Accept": "application/json", **headers}, buffered=True)

    def mpack_url(self, ttl: int = 60) -> str:
        return uploads.mpack_url(self.storage, self.signer, MPACK, ttl)

    def upload_url(self, key: str, content: bytes = CONTENT, size: int | None = None) -> str:
        return uploads.presign_upload(
            self.storage,
            self.signer,
            key,
            mpack_id=blob_id(content),
            size_bytes=len(content) if size is None else size,
            ttl_seconds=60,
        ).url

    def uploaded(self, key: str) -> bytes | None:
        file = uploads.open_upload(self.storage, key)
        if file is None:
            return None
        with file:
            return file.read()


def make_site(storage: Storage | None = None, keys: tuple[bytes, ...] = (KEY,)) -> Site:
    clock = [time.time()]
    signer = UrlSigner(keys, lambda: "http://localhost", clock=lambda: clock[0])
    store = storage or MemoryStorage(signer)
    app = Flask(__name__)
    app.register_blueprint(make_storage_blueprint(lambda: store, lambda: signer), url_prefix="/-/musehub")
    return Site(store, signer, app.test_client(), clock)


BACKENDS: dict[str, Callable[[Path], Storage]] = {
    "file": lambda path: FileStorage(path / "store"),
    "memory": lambda path: MemoryStorage(),
    "minimal": lambda path: Minimal(),
}


@pytest.fixture(params=BACKENDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    storage = BACKENDS[request.param](tmp_path)
    made = make_site(storage)
    use_signer = getattr(storage, "use_signer", None)
    if use_signer is not None:
        use_signer(made.signer)
    storage.put_mpack(MPACK, CONTENT)
    storage.put(MPACK, CONTENT)
    return made


def with_query(url: str, **changes: str | None) -> str:
    """Return `url` with parameters replaced, added, or removed where None."""
    path, _, query = url.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&"))
    pairs.update({name: value for name, value in changes.items() if value is not None})
    return (
        path + "?" + "&".join(f"{name}={value}" for name, value in pairs.items() if changes.get(name, "") is not None)
    )


def flipped(hex_digits: str, at: int = 0) -> str:
    """Return hex digits with one bit changed."""
    digit = format(int(hex_digits[at], 16) ^ 1, "x")
    return hex_digits[:at] + digit + hex_digits[at + 1 :]


def test_a_signed_url_gives_the_bytes(site: Site) -> None:
    response = site.get(site.mpack_url())
    assert (response.status_code, response.data) == (200, CONTENT)


def test_a_storage_with_a_signer_of_its_own_is_asked_by_its_own_urls() -> None:
    storage = MemoryStorage(UrlSigner([NEXT_KEY], lambda: "http://localhost"))
    storage.put_mpack(MPACK, CONTENT)
    site = make_site(storage)
    by_the_apps = site.signer.sign("GET", "mpack", NAME, ttl_seconds=60)
    assert [site.get(url).status_code for url in (site.mpack_url(), by_the_apps)] == [200, 403]


def test_a_signed_url_gives_a_blob(site: Site) -> None:
    response = site.get(site.signer.sign("GET", "blob", NAME, ttl_seconds=60))
    assert (response.status_code, response.data) == (200, CONTENT)


def test_s65_the_bytes_are_an_attachment_that_only_the_client_keeps(site: Site) -> None:
    headers = site.get(site.mpack_url()).headers
    kept = re.fullmatch(r"private, immutable, max-age=(\d+)", headers["Cache-Control"])
    assert kept is not None
    # As long as the URL, less what it took to get here.
    assert 0 < int(kept[1]) <= 60
    assert headers["Content-Disposition"] == f'attachment; filename="{NAME}.mpack"'
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["ETag"] == f'"{NAME}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Length"] == str(len(CONTENT))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("0-0", 0, 1),
        ("10-99", 10, 100),
        ("76000-", 76000, 76800),
        ("-5", 76795, 76800),
        ("-76800", 0, 76800),
        ("-100000", 0, 76800),
    ],
)
def test_a_range_gives_its_part(site: Site, asked: str, start: int, end: int) -> None:
    response = site.get(site.mpack_url(), Range=f"bytes={asked}")
    assert (response.status_code, response.data) == (206, CONTENT[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", ["bytes=76800-", "bytes=1000000-2000000", "bytes=0-1,5-6", "bytes=x"])
def test_a_range_that_cannot_be_given_is_416(site: Site, asked: str) -> None:
    response = site.get(site.mpack_url(), Range=asked)
    assert response.status_code == 416


def test_a_range_past_the_end_says_how_long_the_file_is(site: Site) -> None:
    response = site.get(site.mpack_url(), Range="bytes=76800-")
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_a_range_in_an_unknown_unit_is_ignored(site: Site) -> None:
    response = site.get(site.mpack_url(), Range="lines=1-2")
    assert (response.status_code, response.data) == (200, CONTENT)


def test_a_range_holds_for_the_same_bytes_only(site: Site) -> None:
    url = site.mpack_url()
    same = site.get(url, **{"Range": "bytes=0-9", "If-Range": f'"{NAME}"'})
    other = site.get(url, **{"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code, other.data) == (206, 200, CONTENT)


def test_bytes_that_the_client_has_are_304(site: Site) -> None:
    response = site.get(site.mpack_url(), **{"If-None-Match": f'"{NAME}"'})
    assert (response.status_code, response.data) == (304, b"")


def test_an_empty_mpack_is_served() -> None:
    site = make_site()
    empty = blob_id(b"")
    site.storage.put_mpack(empty, b"")
    assert site.get(uploads.mpack_url(site.storage, site.signer, empty, 60)).data == b""


def test_a_missing_file_is_404(site: Site) -> None:
    response = site.get(site.signer.sign("GET", "mpack", flipped(NAME), ttl_seconds=60))
    assert (response.status_code, response.headers["Cache-Control"]) == (404, "no-store")


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "PATCH", "DELETE"])
def test_s63_a_get_url_allows_get_alone(site: Site, method: str) -> None:
    assert site.client.open(site.mpack_url(), method=method).status_code == 403


def test_s70_an_expired_url_is_403(site: Site) -> None:
    url = site.mpack_url(ttl=60)
    site.clock[0] += 61
    assert site.get(url).status_code == 403


@pytest.mark.parametrize("at", [0, 31, 63])
def test_s70_a_flipped_bit_is_403(site: Site, at: int) -> None:
    url = site.mpack_url()
    signature = url.rpartition("sig=")[2]
    bad_signature = with_query(url, sig=flipped(signature, at))
    other_key = url.replace(NAME, flipped(NAME, at))
    assert [site.get(bad_signature).status_code, site.get(other_key).status_code] == [403, 403]


@pytest.mark.parametrize("exp", ["-1", "9" * 30, "%D9%A1", "1.5", "", "1e9", "+1", "%201", None])
def test_s70_an_expiry_that_was_not_signed_is_403(site: Site, exp: str | None) -> None:
    assert site.get(with_query(site.mpack_url(), exp=exp)).status_code == 403


@pytest.mark.parametrize("extra", ["&x=1", "&exp=1", "&x", "&response-content-type=text/html", "&sig=0"])
def test_s70_a_parameter_that_was_not_signed_is_403(site: Site, extra: str) -> None:
    assert site.get(site.mpack_url() + extra).status_code == 403


@pytest.mark.parametrize("sig", [None, "", "0", "0" * 64, "%C3%A4" * 64, "0" * 63, "\uff10" * 64])
def test_s70_s71_a_signature_of_another_form_is_403(site: Site, sig: str | None) -> None:
    assert site.get(with_query(site.mpack_url(), sig=sig)).status_code == 403


def test_s70_a_get_url_does_not_upload(site: Site) -> None:
    url = site.mpack_url().replace("/mpack/", "/upload/")
    assert site.client.put(url, data=CONTENT).status_code == 403


def test_s70_a_rotated_key_holds_until_it_is_removed() -> None:
    storage = Minimal()
    storage.put_mpack(MPACK, CONTENT)
    url = make_site(storage).mpack_url()
    during = make_site(storage, (NEXT_KEY, KEY)).get(url)
    after = make_site(storage, (NEXT_KEY,)).get(url)
    assert (during.status_code, after.status_code) == (200, 403)


@pytest.mark.parametrize(
    "path",
    [
        "mpack/..",
        "mpack/%2e%2e",
        "mpack/..%2f..%2fetc%2fpasswd",
        "mpack/%2Fetc%2Fpasswd",
        "mpack/CON",
        "mpack/a%00b",
        "mpack/" + NAME[:-1],
        "mpack/" + NAME + "0",
        "other/" + NAME,
        "../" + NAME,
    ],
)
def test_s72_a_path_of_another_form_is_404(site: Site, path: str) -> None:
    query = urlsplit(site.mpack_url()).query
    assert site.get(f"/-/musehub/storage/{path}?{query}").status_code == 404


def test_s64_a_refusal_does_not_repeat_the_url(site: Site) -> None:
    url = with_query(site.mpack_url(), exp="1")
    response = site.get(url)
    assert url.rpartition("sig=")[2] not in response.text
    assert NAME not in response.text


def test_no_identity_is_asked_for(site: Site) -> None:
    assert site.get(site.mpack_url(), Authorization="Bearer nonsense").status_code == 200


def test_a_storage_that_is_down_is_503() -> None:
    class Down(Minimal):
        def get_mpack(self, mpack_id: str) -> bytes | None:
            raise StorageUnavailable("secret endpoint")

    site = make_site(Down())
    response = site.get(site.mpack_url())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "secret" not in response.text


@pytest.fixture
def key() -> str:
    return secrets.token_hex(32)


def test_an_upload_is_taken_and_is_no_mpack(site: Site, key: str) -> None:
    content = b"pushed" * 50_000
    response = site.client.put(site.upload_url(key, content), data=content)
    assert response.status_code == 200
    assert (site.uploaded(key), site.storage.get_mpack(blob_id(content))) == (content, None)


def test_s66_bytes_with_another_digest_are_refused_and_not_kept(site: Site, key: str) -> None:
    response = site.client.put(site.upload_url(key), data=b"x" * len(CONTENT))
    assert (response.status_code, site.uploaded(key)) == (422, None)


def test_s68_bytes_beyond_the_signed_size_are_413_and_not_kept(site: Site, key: str) -> None:
    response = site.client.put(site.upload_url(key), data=CONTENT + b"x")
    assert (response.status_code, site.uploaded(key)) == (413, None)


def test_s68_a_chunked_body_beyond_the_signed_size_is_413_and_not_kept(site: Site, key: str) -> None:
    response = put_chunked(site, site.upload_url(key), CONTENT * 10)
    assert (response.status_code, site.uploaded(key)) == (413, None)


def test_fewer_bytes_than_signed_are_422_and_not_kept(site: Site, key: str) -> None:
    sent = site.client.put(site.upload_url(key), data=CONTENT[:-1])
    chunked = put_chunked(site, site.upload_url(key), CONTENT[:-1])
    assert (sent.status_code, chunked.status_code, site.uploaded(key)) == (422, 422, None)


def test_a_chunked_body_of_the_signed_size_is_taken(site: Site, key: str) -> None:
    assert put_chunked(site, site.upload_url(key), CONTENT).status_code == 200


def test_s45_an_upload_that_breaks_off_is_400_and_not_kept(site: Site, key: str) -> None:
    response = site.client.put(
        site.upload_url(key), data=CONTENT[:-1], environ_overrides={"CONTENT_LENGTH": str(len(CONTENT))}
    )
    assert (response.status_code, site.uploaded(key)) == (400, None)


def test_s49_a_compressed_upload_is_415(site: Site, key: str) -> None:
    response = site.client.put(site.upload_url(key), data=CONTENT, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


@pytest.mark.parametrize("name", ["size", "digest"])
def test_s70_an_upload_url_without_size_or_digest_is_403(site: Site, key: str, name: str) -> None:
    changed: dict[str, Any] = {"size": len(CONTENT), "digest": NAME, name: None}
    url = site.signer.sign("PUT", "upload", key, ttl_seconds=60, **changed)
    assert site.client.put(url, data=CONTENT).status_code == 403


def test_s70_a_size_that_was_not_signed_is_403(site: Site, key: str) -> None:
    assert site.client.put(with_query(site.upload_url(key), size="1"), data=b"x").status_code == 403


def test_s70_an_upload_url_does_not_read(site: Site, key: str) -> None:
    url = site.upload_url(key)
    site.client.put(url, data=CONTENT)
    assert site.get(url).status_code == 403


def test_the_hosts_own_limit_does_not_refuse_an_upload(site: Site, key: str) -> None:
    site.client.application.config["MAX_CONTENT_LENGTH"] = 100
    assert site.client.put(site.upload_url(key), data=CONTENT).status_code == 200


def test_a_storage_that_takes_uploads_by_itself_gets_none_here(key: str) -> None:
    class Direct(Minimal):
        def presign_upload(self, key: str, **options: Any) -> None: ...
        def open_upload(self, key: str) -> None: ...
        def delete_upload(self, key: str) -> None: ...

    site = make_site(Direct())
    url = site.signer.sign("PUT", "upload", key, ttl_seconds=60, size=len(CONTENT), digest=NAME)
    assert site.client.put(url, data=CONTENT).status_code == 404


def put_chunked(site: Site, url: str, content: bytes) -> TestResponse:
    return site.client.put(
        url,
        input_stream=io.BytesIO(content),
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
