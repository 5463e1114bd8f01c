"""An upload that somebody replaces by the same URL while it is unpacked."""

from __future__ import annotations

import io
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask

from musehub_plugin.ids import blob_id
from musehub_plugin.signals import step
from musehub_plugin.storage import MemoryStorage
from musehub_plugin.testing.apps import hub_of
from musehub_plugin.testing.factories import History, create_repo
from tests.exchange import Caller

REPO = "alice/songs"


def test_s67_an_upload_replaced_after_it_was_verified_is_not_what_is_stored(
    musehub_make_app: Callable[..., Flask],
) -> None:
    storage = MemoryStorage()
    app = musehub_make_app(MUSEHUB_STORAGE=storage)
    with app.app_context():
        create_repo(hub_of(app).sqlalchemy.session)
    caller = Caller(app, "alice")
    history = History()
    head = history.commit({"a.txt": b"verified"})
    pack = history.pack()
    ticket = caller.presign(REPO, pack).get_json()
    caller.upload(ticket, pack)
    key = urlsplit(ticket["upload_url"]).path.rpartition("/")[2]

    def replace(_: object, name: str) -> None:
        if name == "unpack.verified":
            storage.receive_upload(key, io.BytesIO(b"something else"), size=None, digest=None)

    mpack_id = blob_id(pack)
    with step.connected_to(replace):
        assert caller.unpack(REPO, mpack_id, head).status_code == 200
    assert storage.get_mpack(mpack_id) == pack
