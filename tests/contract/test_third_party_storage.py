"""The contract's section 6: a storage object with the eight names, and nothing else, serves pushes and fetches."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
from rq.timeouts import JobTimeoutException

from musehub_plugin import ids
from musehub_plugin.errors import ConfigError
from musehub_plugin.storage.base import ask
from musehub_plugin.testing import History, make_commit, store_object
from musehub_plugin.testing.apps import run_jobs
from tests.environment import HubEnvironment
from tests.exchange import Caller

REPO = "alice/songs"


class BytesStorage:
    """What a third party would write in a minute: no streams, no uploads, no deletion, no URLs of its own."""

    supports_presign = False

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.mpacks: dict[str, bytes] = {}

    def put(self, oid: str, data: bytes) -> str:
        assert type(data) is bytes
        self.blobs[oid] = data
        return f"third-party:{oid}"

    def get(self, oid: str) -> bytes | None:
        return self.blobs.get(oid)

    def exists(self, oid: str) -> bool:
        return oid in self.blobs

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        assert type(data) is bytes
        self.mpacks[mpack_id] = data
        return f"third-party:{mpack_id}"

    def get_mpack(self, mpack_id: str) -> bytes | None:
        return self.mpacks.get(mpack_id)

    def presign_get(self, oid: str, ttl_seconds: int = 3600) -> str:
        raise NotImplementedError

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        raise NotImplementedError


class SigningStorage(BytesStorage):
    """One that hands out URLs of a store that clients reach by themselves."""

    supports_presign = True

    def presign_mpack_get(self, mpack_id: str, ttl: int) -> str:
        return f"https://store.example/{mpack_id}?for={ttl}"


def test_a_push_and_a_fetch_work_with_eight_names(hub: HubEnvironment) -> None:
    storage = BytesStorage()
    alice = Caller(hub.make_app(MUSEHUB_STORAGE=storage), "alice")
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a.txt": b"one", "empty": b""})
    second = history.commit({"a.txt": b"two", "empty": b""}, [first])
    assert alice.push(REPO, history.pack(want=[first]), first).status_code == 200
    assert alice.push(REPO, history.pack(have=[first]), second, expected_head=first).status_code == 200
    everything, delta = alice.pull(REPO, [second]), alice.pull(REPO, [second], [first])
    assert everything.commits == history.commits
    assert everything.blobs == history.blobs
    assert set(delta.blobs) == {ids.blob_id(b"two")}
    assert storage.get_mpack(everything.answer["mpack_id"]) == everything.data


def test_blobs_by_id_are_read_with_eight_names(hub: HubEnvironment) -> None:
    storage = BytesStorage()
    app = hub.make_app(MUSEHUB_STORAGE=storage)
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        blob = store_object(session, repo_id, b"kept by id", storage=storage, in_row=False)
        commit = make_commit(session, repo_id, {"a": blob})
    assert Caller(app).pull(REPO, [commit]).blobs == {blob: b"kept by id"}


def test_bytes_that_were_not_signed_for_are_refused_with_eight_names(hub: HubEnvironment) -> None:
    storage = BytesStorage()
    alice = Caller(hub.make_app(MUSEHUB_STORAGE=storage), "alice")
    hub.create_repo(REPO)
    history = History()
    history.commit({"a": b"1"})
    pack = history.pack()
    ticket = alice.presign(REPO, pack).get_json()
    for wrong in (pack[:-1], pack + b"x", bytes(len(pack))):
        assert alice.upload(ticket, wrong) in {413, 422}
    assert storage.mpacks == {}
    assert alice.upload(ticket, pack) == 200


class OutOfReach(BytesStorage):
    """One whose server can be away; it says so by what Python raises then."""

    error: Exception | None = None

    def put_mpack(self, mpack_id: str, data: bytes) -> str:
        self._answer()
        return super().put_mpack(mpack_id, data)

    def get_mpack(self, mpack_id: str) -> bytes | None:
        self._answer()
        return super().get_mpack(mpack_id)

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


class ClientError(Exception):
    """What a library for a store raises, such as boto's `ClientError`: its own kind."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("https://key:secret@store"),
        TimeoutError(),
        OSError(5, "I/O error"),
        ClientError("SlowDown"),
        RuntimeError("status 500"),
    ],
    ids=repr,
)
def test_a_store_that_is_away_is_503_at_every_step(hub: HubEnvironment, error: Exception) -> None:
    storage = OutOfReach()
    alice = Caller(hub.make_app(MUSEHUB_STORAGE=storage), "alice")
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    assert alice.push(REPO, history.pack(want=[first]), first).status_code == 200
    pack = history.pack(have=[first])
    ticket = alice.presign(REPO, pack).get_json()
    storage.error = error
    assert alice.upload(ticket, pack) == 503
    storage.error = None
    assert alice.upload(ticket, pack) == 200
    storage.error = error
    for answer in (alice.unpack(REPO, ids.blob_id(pack), second), alice.fetch(REPO, [first])):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")
        assert "Retry-After" in answer.headers
    storage.error = None
    assert alice.unpack(REPO, ids.blob_id(pack), second).status_code == 200
    assert alice.pull(REPO, [second]).commits == history.commits


@pytest.fixture
def failing(hub: HubEnvironment) -> tuple[OutOfReach, Caller, str]:
    """A store that can fail, who reads a repo from it, and the head of that repo."""
    storage = OutOfReach()
    alice = Caller(hub.make_app(MUSEHUB_STORAGE=storage), "alice")
    hub.create_repo(REPO)
    history = History()
    head = history.commit({"a": b"1"})
    assert alice.push(REPO, history.pack(), head).status_code == 200
    return storage, alice, head


def test_what_a_library_raised_is_in_the_log_without_its_secrets(
    failing: tuple[OutOfReach, Caller, str], caplog: pytest.LogCaptureFixture
) -> None:
    storage, alice, head = failing
    storage.error = ClientError("GET https://key:secret@store/bucket/name?X-Amz-Signature=0a1b: SlowDown")
    assert alice.fetch(REPO, [head]).status_code == 503
    assert "ClientError: GET https://...@store/bucket/name?... SlowDown" in caplog.text
    assert "in get_mpack" in caplog.text
    assert not {"secret", "0a1b"} & set(re.findall(r"\w+", caplog.text))


@pytest.mark.parametrize("error", [TypeError("no such argument"), KeyError("bucket"), NotImplementedError()], ids=repr)
def test_a_mistake_in_a_backend_is_500(failing: tuple[OutOfReach, Caller, str], error: Exception) -> None:
    storage, alice, head = failing
    storage.error = error
    assert alice.fetch(REPO, [head]).status_code == 500


def test_a_jobs_time_limit_is_no_outage(failing: tuple[OutOfReach, Caller, str]) -> None:
    storage, _, _ = failing
    storage.error = JobTimeoutException()
    with pytest.raises(JobTimeoutException):
        ask(storage.get_mpack, ids.blob_id(b""))


class FailingFile(BytesIO):
    """A file of a store that can be away."""

    def __init__(self, data: bytes, answer: Callable[[], None]) -> None:
        super().__init__(data)
        self._answer = answer

    def read(self, size: int | None = -1, /) -> bytes:
        self._answer()
        return super().read(size)


class StreamingStorage(OutOfReach):
    """One that gives files, and is away as soon as they are read."""

    def open_mpack(self, mpack_id: str) -> BinaryIO | None:
        data = self.mpacks.get(mpack_id)
        return None if data is None else FailingFile(data, self._answer)

    def put_mpack_file(self, mpack_id: str, file: BinaryIO) -> str:
        return self.put_mpack(mpack_id, file.read())


@pytest.mark.parametrize("error", [ConnectionResetError(), ClientError("SlowDown")], ids=repr)
def test_a_store_that_is_away_while_its_file_is_read_is_503(hub: HubEnvironment, error: Exception) -> None:
    storage = StreamingStorage()
    app = hub.make_app(MUSEHUB_STORAGE=storage)
    alice = Caller(app, "alice")
    hub.create_repo(REPO)
    history = History()
    first = history.commit({"a": b"1"})
    second = history.commit({"a": b"2"}, [first])
    pack = history.pack()
    assert alice.upload(alice.presign(REPO, pack).get_json(), pack) == 200
    storage.error = error
    unpacked = alice.unpack(REPO, ids.blob_id(pack), second)
    storage.error = None
    assert alice.unpack(REPO, ids.blob_id(pack), second).status_code == 200
    run_jobs(app)
    storage.error = error
    fetched = alice.fetch(REPO, [second], [first])
    for answer in (unpacked, fetched):
        assert (answer.status_code, answer.get_json()["code"]) == (503, "storage-unavailable")


def test_a_store_that_presigns_names_its_own_urls(hub: HubEnvironment) -> None:
    storage = SigningStorage()
    app = hub.make_app(MUSEHUB_STORAGE=storage, MUSEHUB_PRESIGN_TTL=77)
    repo_id = hub.create_repo(REPO)
    with hub.session() as session:
        commit = make_commit(session, repo_id, {"a": b"1"})
    answer = Caller(app).fetch(REPO, [commit]).get_json()
    url = urlsplit(answer["mpack_url"])
    assert (url.netloc, url.path, url.query) == ("store.example", f"/{answer['mpack_id']}", "for=77")
    assert ids.blob_id(storage.mpacks[answer["mpack_id"]]) == answer["mpack_id"]


@pytest.mark.parametrize("name", ["put", "get", "exists", "put_mpack", "get_mpack", "presign_get", "presign_mpack_get"])
def test_a_store_that_lacks_a_method_is_refused_by_name(hub: HubEnvironment, name: str) -> None:
    members: dict[str, Any] = {key: value for key, value in vars(BytesStorage).items() if key != name}
    with pytest.raises(ConfigError, match=rf"MUSEHUB_STORAGE.*\b{name}\b"):
        hub.make_app(MUSEHUB_STORAGE=type("Incomplete", (), members)())
