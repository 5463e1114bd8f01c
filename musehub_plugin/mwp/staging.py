"""Blobs that a push sent ahead: hashed, kept apart for their user and repo, and gone once they are of no use.

The blobs of one request lie in storage as one file, under an id that is derived from a random key like that of any
upload; no bytes can be found that hash to it, and no URL of it is ever made. A ticket says for how long.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from musehub_plugin.errors import Invalid, StorageUnavailable, TooLarge
from musehub_plugin.hub import Hub
from musehub_plugin.ids import from_digest
from musehub_plugin.signals import reached
from musehub_plugin.storage.base import Deletes, ask
from musehub_plugin.storage.temporary import temporary_room
from musehub_plugin.storage.uploads import open_mpack, put_mpack_file, staged_id
from musehub_plugin.store import contents, mpacks, staging
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_SPOOL_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Received:
    """How many blobs of a request were stored, and how many the repo or the user had already."""

    stored: int
    skipped: int


def lacking_objects(db: Database, repo_id: str, user_id: str, object_ids: list[str]) -> list[str]:
    """Return those of `object_ids` that a push by this user would have to send, in their order.

    What another repo holds, or another user has staged, makes no difference.
    """
    known = (
        contents.held_objects(db, repo_id, object_ids) | staging.staged_blobs(db, repo_id, user_id, object_ids).keys()
    )
    return [object_id for object_id in object_ids if object_id not in known]


def stage(hub: Hub, db: Database, repo_id: str, user_id: str, sent: Iterable[tuple[str, bytes]]) -> Received:
    """Keep blobs for a push that is to come.

    Args:
        hub: the app's plugin.
        db: the unit of work.
        repo_id: the repo.
        user_id: who will push.
        sent: ids and contents; read twice.

    Raises:
        Invalid: a content does not hash to its id; nothing is kept.
        TooLarge: the user would have more than `MUSEHUB_MWP_MAX_STAGED` bytes staged for this repo.
        StorageUnavailable: object storage did not answer, or there is no room for a copy.
    """
    discard(hub, db, db.transaction(lambda: staging.forget_expired(db, repo_id, user_id)))
    object_ids = [_checked(hub, object_id, content) for object_id, content in sent]
    lacking = set(lacking_objects(db, repo_id, user_id, list(dict.fromkeys(object_ids))))
    if not lacking:
        return Received(0, len(object_ids))
    upload_key = secrets.token_hex(32)
    blobs: dict[str, staging.StagedBlob] = {}
    with temporary_room(), tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
        for object_id, content in sent:
            if object_id in lacking and object_id not in blobs:
                blobs[object_id] = staging.StagedBlob(object_id, upload_key, file.tell(), len(content))
                file.write(content)
        size = file.tell()
        limit = hub.settings.mwp_max_staged
        if staging.staged_bytes(db, repo_id, user_id) + size > limit:
            raise TooLarge(
                f"More than {limit} bytes would wait for a push to this repo: push with musehub instead.", limit=limit
            )
        # Before the file is there: what is interrupted from here on is collected by its ticket.
        mpacks.add_ticket(
            db,
            upload_key=upload_key,
            repo_id=repo_id,
            user_id=user_id,
            mpack_id=staged_id(upload_key),
            size_bytes=size,
            ttl_seconds=hub.settings.upload_ttl,
        )
        db.commit()
        reached("stage.ticketed")
        file.seek(0)
        put_mpack_file(hub.storage, staged_id(upload_key), file)
    reached("stage.stored")
    db.transaction(lambda: staging.add_staged(db, repo_id, user_id, blobs.values()))
    return Received(len(blobs), len(object_ids) - len(blobs))


def _checked(hub: Hub, object_id: str, content: bytes) -> str:
    if len(content) > hub.settings.max_blob:
        raise TooLarge(f"blob {object_id} has {len(content)} bytes.", limit=hub.settings.max_blob)
    if from_digest(hashlib.sha256(content).digest()) != object_id:
        raise Invalid(f"blob {object_id} does not hash to its id.", code="hash-mismatch")
    return object_id


class StagedContents:
    """Contents of staged blobs, copied to a file of one's own; iterate the ids that were found.

    Args:
        file: the copy.
        places: where in it each blob is: start and size.
    """

    def __init__(self, file: IO[bytes], places: Mapping[str, tuple[int, int]]) -> None:
        self._file = file
        self._places = places

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._places

    def read(self, object_id: str) -> bytes:
        """Return a blob's bytes; whoever uses them hashes them again."""
        start, size = self._places[object_id]
        self._file.seek(start)
        return self._file.read(size)


@contextmanager
def staged_contents(
    hub: Hub,
    db: Database,
    repo_id: str,
    user_id: str,
    object_ids: Iterable[str],
    sent: Iterable[tuple[str, bytes]],
) -> Iterator[StagedContents]:
    """Give the contents of those of `object_ids` that this user has staged for this repo, or sends along.

    They are copied in the order in which they lie in storage, so that each file is read once, and can be read in any
    order afterwards.

    Args:
        hub: the app's plugin.
        db: the unit of work; only read.
        repo_id: the repo.
        user_id: who pushes.
        object_ids: the blobs that are asked for.
        sent: ids and contents that came along with the push.

    Raises:
        StorageUnavailable: object storage did not answer, or there is no room for a copy.
    """
    wanted = set(object_ids)
    staged = staging.staged_blobs(db, repo_id, user_id, wanted)
    by_upload: dict[str, list[staging.StagedBlob]] = {}
    for blob in sorted(staged.values(), key=lambda blob: (blob.upload_key, blob.start)):
        by_upload.setdefault(blob.upload_key, []).append(blob)
    places: dict[str, tuple[int, int]] = {}
    with temporary_room(), tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as copy:

        def keep(object_id: str, content: bytes) -> None:
            places[object_id] = (copy.tell(), len(content))
            copy.write(content)

        for object_id, content in sent:
            if object_id in wanted and object_id not in places:
                keep(object_id, content)
        for upload_key, blobs in by_upload.items():
            source = open_mpack(hub.storage, staged_id(upload_key))
            if source is None:
                # Let go a moment ago, by a push that needed the same blobs or by the clock: the push will name them.
                logger.warning("a staged file of repo %s is not in storage", repo_id)
                continue
            with source:
                for blob in blobs:
                    if blob.object_id not in places:
                        source.seek(blob.start)
                        keep(blob.object_id, source.read(blob.size_bytes))
        yield StagedContents(copy, places)


def discard(hub: Hub, db: Database, upload_keys: list[str]) -> None:
    """Remove the files of uploads of which nothing is staged any more, then their tickets."""
    removed = []
    for upload_key in upload_keys:
        try:
            if isinstance(hub.storage, Deletes):
                ask(hub.storage.delete_mpack, staged_id(upload_key))
            removed.append(upload_key)
        except StorageUnavailable as error:
            # The ticket stays, and with it the next collection finds the file.
            logger.warning("a staged file could not be removed: %s", error)
    if removed:
        db.transaction(lambda: mpacks.drop_tickets(db, removed))
