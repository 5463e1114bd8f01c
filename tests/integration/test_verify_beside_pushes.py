"""A scrub of a hub that is in use: what is on its way is no damage."""

from __future__ import annotations

from sqlalchemy import delete, func, select

from musehub_plugin import ids
from musehub_plugin.models import MusehubMPackIndex, MusehubObject, MusehubObjectRef
from musehub_plugin.scrub import Scrubbed, scrub
from musehub_plugin.storage.base import Deletes
from musehub_plugin.store.models import MusehubMPackRef
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History
from tests.environment import HubEnvironment
from tests.exchange import Caller


def scrubbed(hub: HubEnvironment) -> Scrubbed:
    with hub.app.app_context():
        return scrub(hub_of(hub.app), hub_of(hub.app).database())


def index_row_count(hub: HubEnvironment) -> int:
    with hub.session() as session:
        return int(session.execute(select(func.count()).select_from(MusehubMPackIndex)).scalar_one())


def test_what_waits_to_be_indexed_is_not_missing(hub: HubEnvironment) -> None:
    hub.create_repo()
    history = History()
    head = history.commit({"a.txt": b"one"})
    without_queue = hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1")
    Caller(without_queue, "alice").push("alice/songs", history.pack(), head)
    assert (index_row_count(hub), scrubbed(hub).problems) == (0, [])


def test_an_index_row_that_collection_took_is_not_missing_while_another_pack_with_its_blob_waits(
    hub: HubEnvironment,
) -> None:
    hub.create_repo()
    history = History()
    first = history.commit({"a.txt": b"one", "b.txt": b"two"})
    hub.caller("alice").push("alice/songs", history.pack(), first)
    with hub.session() as session:
        # As collection leaves it where nobody holds the blob.
        of_blob = MusehubMPackIndex.entity_id == ids.blob_id(b"one")
        session.execute(delete(MusehubMPackIndex).where(of_blob))
        session.execute(delete(MusehubObjectRef).where(MusehubObjectRef.object_id == ids.blob_id(b"one")))
        session.commit()
    hub.create_repo("alice/poems")
    again = History()
    head = again.commit({"a.txt": b"one"})
    without_queue = hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1")
    Caller(without_queue, "alice").push("alice/poems", again.pack(), head)
    assert [problem for problem in scrubbed(hub).problems if problem.kind == "index-wrong"] == []


def test_a_pack_whose_file_a_collection_has_removed_is_not_missing_before_its_row_goes(hub: HubEnvironment) -> None:
    hub.create_repo()
    history = History()
    head = history.commit({"a.txt": b"one"})
    pack = history.pack()
    pack_id = ids.blob_id(pack)
    hub.caller("alice").push("alice/songs", pack, head)
    storage = hub_of(hub.app).storage
    assert isinstance(storage, Deletes)
    storage.delete_mpack(pack_id)
    assert [(problem.kind, problem.subject) for problem in scrubbed(hub).problems] == [("mpack-missing", pack_id)]
    with hub.session() as session:
        session.execute(delete(MusehubMPackRef))
        session.execute(delete(MusehubMPackIndex))
        session.commit()
    assert [problem for problem in scrubbed(hub).problems if problem.subject == pack_id] == []


def test_a_blob_that_is_nowhere_is_missing_although_another_pack_waits(hub: HubEnvironment) -> None:
    hub.create_repo()
    history = History()
    first = history.commit({"a.txt": b"one"})
    hub.caller("alice").push("alice/songs", history.pack(), first)
    with hub.session() as session:
        session.execute(delete(MusehubMPackIndex))
        session.execute(delete(MusehubObject))
        session.commit()
    second = history.commit({"a.txt": b"one", "b.txt": b"two"}, [first])
    without_queue = hub.make_app(MUSEHUB_REDIS_URL="redis://127.0.0.1:1")
    Caller(without_queue, "alice").push("alice/songs", history.pack(have=[first]), second)
    missing = [problem.subject for problem in scrubbed(hub).problems if problem.kind == "blob-missing"]
    assert missing == [ids.blob_id(b"one")]


def test_an_index_row_that_another_pack_made_good_is_not_missing(hub: HubEnvironment) -> None:
    packs = []
    for slug in ("songs", "poems"):
        hub.create_repo(f"alice/{slug}")
        history = History()
        head = history.commit({"shared.txt": b"in both", "own.txt": slug.encode()}, message=slug)
        packs.append(history.pack())
        hub.caller("alice").push(f"alice/{slug}", packs[-1], head)
    with hub.session() as session:
        # As garbage collection does it where nobody held the blob for a while.
        session.execute(
            delete(MusehubMPackIndex).where(
                MusehubMPackIndex.mpack_id == ids.blob_id(packs[0]),
                MusehubMPackIndex.entity_id == ids.blob_id(b"in both"),
            )
        )
        session.commit()
    assert scrubbed(hub).problems == []
