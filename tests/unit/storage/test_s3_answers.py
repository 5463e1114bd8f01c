"""S3 storage and answers that a real store gives on bad days alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from musehub_plugin.errors import StorageUnavailable
from musehub_plugin.ids import fake_id
from musehub_plugin.storage.s3 import S3Storage
from tests.unit.client.scripted_server import Answer, ScriptedServer, scripted_server

OID = fake_id("file")
THERE = Answer(200, b"its bytes")
BUSY = Answer(503, b"<Error><Code>SlowDown</Code></Error>", {"Content-Type": "application/xml"})


@contextmanager
def storage_of(*answers: Answer) -> Iterator[tuple[S3Storage, ScriptedServer]]:
    """Give S3 storage at a store that gives these answers."""
    with scripted_server(*answers) as server:
        yield S3Storage(urlsplit(server.origin).netloc, "access", "secret", "bucket", secure=False), server


def test_a_store_that_is_busy_for_a_moment_is_asked_again() -> None:
    with storage_of(BUSY, THERE) as (storage, _):
        assert storage.get(OID) == THERE.body


def test_a_store_that_stays_busy_does_not_decide_how_long_a_worker_waits() -> None:
    wait = Answer(BUSY.status, BUSY.body, {**BUSY.headers, "Retry-After": "3600"})
    with storage_of(wait) as (storage, server):
        with pytest.raises(StorageUnavailable):
            storage.get(OID)
        assert len(server.asked) == 3


def test_a_redirect_is_not_followed() -> None:
    with storage_of(Answer(307, b"", {"Location": "/elsewhere"}), THERE) as (storage, server):
        with pytest.raises(StorageUnavailable):
            storage.get(OID)
        assert not [asked for asked in server.asked if asked.path == "/elsewhere"]


def test_an_object_that_may_not_be_looked_for_is_not_absent() -> None:
    with storage_of(THERE, Answer(403)) as (storage, _):
        assert storage.exists(OID)
        with pytest.raises(StorageUnavailable):
            storage.exists(OID)


def test_a_range_of_another_length_than_was_asked_for_is_refused() -> None:
    found = Answer(200, bytes(100), {"ETag": '"one"', "Last-Modified": "Mon, 23 Nov 2026 12:00:00 GMT"})
    with storage_of(found, Answer(206, bytes(50))) as (storage, _):
        file = storage.open_mpack(OID)
        assert file is not None
        with pytest.raises(StorageUnavailable, match="sent 50 bytes of an object, not 100"):
            file.read()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>not <closed>", {"Content-Type": "application/xml"}),
        Answer(200, b"half", {"Content-Length": "8"}),
        Answer(0),
    ],
    ids=["no answer of S3's", "half an answer", "none"],
)
def test_whatever_goes_wrong_is_unavailable(answer: Answer) -> None:
    with storage_of(answer) as (storage, _), pytest.raises(StorageUnavailable):
        storage.get(OID)


def test_s64_a_store_that_is_away_is_told_without_a_url() -> None:
    storage = S3Storage("127.0.0.1:1", "access", "secret", "bucket", secure=False)
    with pytest.raises(StorageUnavailable, match=r"^object storage cannot read an object: NewConnectionError$"):
        storage.get(OID)


def test_a_url_is_signed_by_the_time_of_utc_wherever_the_server_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = S3Storage("s3.hub.invalid", "access", "secret", "bucket")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        query = parse_qs(urlsplit(storage.presign_get(OID, 60)).query)
    finally:
        monkeypatch.undo()
        time.tzset()
    signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - signed).total_seconds()) < 60
