"""Index: record where in a pushed mpack each blob is, so that a fetch can find it.

The job `mpack.index`. It may run twice, also at once: rows that exist are left as they are.
"""

from __future__ import annotations

import itertools
import logging

from musehub_plugin.hub import Hub, current_app_object
from musehub_plugin.mpack import MPackError, MPackReader
from musehub_plugin.signals import indexed
from musehub_plugin.storage.uploads import open_mpack
from musehub_plugin.store import contents, mpacks
from musehub_plugin.store.session import Database

logger = logging.getLogger(__name__)

_BATCH = 5_000


def index_mpack(hub: Hub, db: Database, mpack_id: str) -> int:
    """Write the index rows of a pushed mpack and return how many blobs it holds.

    An mpack that is missing or unreadable is marked `failed` with the reason, since trying again would not help;
    0 is returned for it, and for one that nobody pushed.

    Raises:
        StorageUnavailable: object storage did not answer; the mpack stays `pending`.
    """
    if mpacks.index_state(db, mpack_id) is None:
        logger.warning("index: mpack %s is not known, nothing to do", mpack_id)
        return 0
    file = open_mpack(hub.storage, mpack_id)
    if file is None:
        return _fail(db, mpack_id, "the mpack is not in storage")
    total = 0
    try:
        with file:
            entries = (
                contents.IndexEntry(entry.object_id, entry.frame, entry.offset, entry.size)
                for entry in MPackReader(file).directory()
            )
            while batch := list(itertools.islice(entries, _BATCH)):
                contents.add_index_entries(db, mpack_id, batch)
                total += len(batch)
    except MPackError as error:
        db.rollback()
        return _fail(db, mpack_id, str(error))
    mpacks.set_index_state(db, mpack_id, "done")
    db.commit()
    indexed.send(current_app_object(), mpack_id=mpack_id, blob_count=total)
    return total


def _fail(db: Database, mpack_id: str, reason: str) -> int:
    logger.error("index: mpack %s failed: %s", mpack_id, reason)
    mpacks.set_index_state(db, mpack_id, "failed", reason)
    db.commit()
    return 0
