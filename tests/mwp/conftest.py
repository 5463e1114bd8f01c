"""A hub behind a socket, and remotes of it for the released `muse` command."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from werkzeug.serving import make_server

from tests.environment import HubEnvironment
from tests.mwp.muse import Remote

NewRemote = Callable[..., Remote]


@pytest.fixture
def origin(hub: HubEnvironment) -> Iterator[str]:
    """The address of the hub, served on a loopback port."""
    server = make_server("127.0.0.1", 0, hub.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def new_remote(hub: HubEnvironment, origin: str) -> NewRemote:
    """Make a remote of a repo, as a user sees it; the repo is made where `new` says so."""

    def make(repo: str = "alice/songs", user: str | None = "alice", *, new: bool = False, **options: str) -> Remote:
        if new:
            hub.create_repo(repo, **options)
        return Remote(f"{origin}/mwp/{repo}", user)

    return make


@pytest.fixture
def remote(new_remote: NewRemote) -> Remote:
    """Alice's public repo, empty, as its owner sees it."""
    return new_remote(new=True)
