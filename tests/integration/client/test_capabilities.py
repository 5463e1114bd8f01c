"""What a hub may offer beyond the plain protocol: several mpacks for one fetch, in the answer itself, and thin ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from musehub_plugin.client import HubTransport, HubUnreachable, Workdir, clone, fetch, pull, verify
from tests.integration.client.breaking import breaking_proxy
from tests.integration.client.offering import Offering, offered
from tests.integration.client.test_round_trip import add_commit, commits_of, contents_of

# What does not compress: each mpack is about as long.
SIZE = 100_000


@pytest.fixture
def origin(tmp_path: Path) -> Workdir:
    """Three commits, each with a file of its own beside those before."""
    workdir = Workdir.create(tmp_path / "origin")
    files = {}
    for number in range(3):
        files[f"{number}"] = Random(number).randbytes(SIZE)
        add_commit(workdir, files)
    return workdir


@pytest.fixture
def hub(origin: Workdir) -> Iterator[Offering]:
    """A hub that offers each commit in a pack of its own."""
    commits = sorted(commits_of(origin).items(), key=lambda item: item[1]["committed_at"])
    with offered(Offering(origin, [commit_id for commit_id, _ in commits])) as offering:
        yield offering


def transport(url: str) -> HubTransport:
    """Return a connection that waits for nothing."""
    return HubTransport(url, timeout=120.0, wait_budget=20.0, sleep=lambda seconds: None)


def same(one: Workdir, other: Workdir) -> bool:
    """Say whether two working copies hold the same commits, manifests and blobs."""
    return commits_of(one) == commits_of(other) and contents_of(one) == contents_of(other)


@pytest.mark.parametrize("bare", [False, True], ids=["loose", "bare"])
def test_several_mpacks_are_applied_in_their_order(hub: Offering, origin: Workdir, tmp_path: Path, bare: bool) -> None:
    cloned = clone(transport(hub.url), tmp_path / "copy", bare=bare)
    assert same(cloned.workdir, origin)
    assert (cloned.fetched.new_commits, len(list(cloned.workdir.packs))) == (3, 3 if bare else 0)
    assert cloned.fetched.received_bytes == sum(map(len, hub.packs.values()))
    assert verify(cloned.workdir).problems == []
    assert not list((cloned.workdir.muse / "tmp").iterdir())


def test_only_what_the_hub_offers_is_asked_for(hub: Offering, tmp_path: Path) -> None:
    hub.capabilities = ("inline", "brotli")
    clone(transport(hub.url), tmp_path / "copy")
    assert [asked["capabilities"] for asked in hub.asked] == [["inline"]]


def test_a_hub_that_offers_nothing_is_asked_as_ever(hub: Offering, tmp_path: Path) -> None:
    hub.capabilities = ()
    clone(transport(hub.url), tmp_path / "copy")
    assert [sorted(asked) for asked in hub.asked] == [["have", "want"]]


@pytest.mark.parametrize("bare", [False, True], ids=["loose", "bare"])
def test_a_fetch_of_several_mpacks_that_broke_off_brings_none_of_them_twice(
    hub: Offering, origin: Workdir, tmp_path: Path, bare: bool
) -> None:
    with breaking_proxy(hub.origin) as network:
        there = transport(f"{network.origin}/ada/engine")
        network.faults = ["", "cut 50000", *["cut 0"] * 4]
        with pytest.raises(HubUnreachable, match="run the same command again"):
            clone(there, tmp_path / "copy", bare=bare)
        network.ranges.clear()
        copy = clone(there, tmp_path / "copy", bare=bare).workdir
        assert network.ranges == ["bytes=50000-", None]
    assert same(copy, origin)


def test_a_url_that_expires_between_two_mpacks_is_replaced(hub: Offering, origin: Workdir, tmp_path: Path) -> None:
    with breaking_proxy(hub.origin) as network:
        network.faults = ["", "status 403"]
        copy = clone(transport(f"{network.origin}/ada/engine"), tmp_path / "copy").workdir
        assert (len(network.ranges), len(hub.asked)) == (4, 2)
    assert same(copy, origin)


@pytest.mark.parametrize("as_json", [False, True], ids=["msgpack", "json"])
@pytest.mark.parametrize("bare", [False, True], ids=["loose", "bare"])
def test_an_mpack_may_come_in_the_answer(
    hub: Offering, origin: Workdir, tmp_path: Path, bare: bool, as_json: bool
) -> None:
    hub.capabilities, hub.inline_bytes, hub.as_json = ("inline",), 1 << 20, as_json
    with breaking_proxy(hub.origin) as network:
        there = transport(f"{network.origin}/ada/engine")
        copy = clone(there, tmp_path / "copy", bare=bare).workdir
        assert same(copy, origin)
        add_commit(origin, {"0": b"new"})
        hub.stages = [*hub.stages, str(origin.branch_head("main"))]
        pull(copy, there)
        assert network.ranges == []
    assert same(copy, origin)


def test_some_of_several_mpacks_may_come_in_the_answer(hub: Offering, origin: Workdir, tmp_path: Path) -> None:
    add_commit(origin, {"0": b"small"})
    hub.stages, hub.inline_bytes = [*hub.stages, str(origin.branch_head("main"))], 1_000
    with breaking_proxy(hub.origin) as network:
        copy = clone(transport(f"{network.origin}/ada/engine"), tmp_path / "copy").workdir
        assert len(network.ranges) == 3
    assert same(copy, origin)


def test_an_mpack_in_the_answer_that_is_another_one_is_refused(hub: Offering, tmp_path: Path) -> None:
    hub.inline_bytes, hub.spoiled = 1 << 20, True
    with pytest.raises(HubUnreachable, match="something else"):
        clone(transport(hub.url), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.fixture
def thin_hub(hub: Offering, origin: Workdir) -> Offering:
    """A hub that offers thin mpacks alone."""
    hub.capabilities = ("thin",)
    return hub


def edit(hub: Offering, origin: Workdir) -> None:
    """Change a few bytes of a file at the hub, and add one."""
    content = origin.read_blob(origin.read_snapshot(f"sha256:{head_of(origin)['snapshot_id']}")["2"])
    before = {f"{number}": Random(number).randbytes(SIZE) for number in range(3)}
    add_commit(
        origin, {**before, "2": content[: SIZE // 2] + b"edited" + content[SIZE // 2 :], "new": b"", "more": b"m"}
    )
    add_commit(origin, {**before, "2": b"", "more": b"m"})
    hub.stages = [*hub.stages, str(origin.branch_head("main"))]


def head_of(workdir: Workdir) -> dict[str, object]:
    """Return the commit of the branch main."""
    return workdir.read_commit(str(workdir.branch_head("main")))


@pytest.mark.parametrize("bare", [False, True], ids=["loose", "bare"])
def test_a_thin_mpack_starts_from_what_is_here(thin_hub: Offering, origin: Workdir, tmp_path: Path, bare: bool) -> None:
    copy = clone(transport(thin_hub.url), tmp_path / "copy", bare=bare).workdir
    edit(thin_hub, origin)
    pulled = pull(copy, transport(thin_hub.url))
    assert [asked.get("capabilities") for asked in thin_hub.asked] == [None, ["thin"]]
    assert (pulled.fetched.new_commits, pulled.fetched.new_snapshots, pulled.fetched.new_blobs) == (2, 2, 3)
    assert pulled.fetched.received_bytes < 1_000
    assert same(copy, origin)


def test_a_bare_clone_keeps_a_whole_mpack_in_place_of_a_thin_one(
    thin_hub: Offering, origin: Workdir, tmp_path: Path
) -> None:
    copy = clone(transport(thin_hub.url), tmp_path / "copy", bare=True).workdir
    edit(thin_hub, origin)
    fetch(copy, transport(thin_hub.url))
    assert len(list(copy.packs)) == 2
    assert all(pack.reader().needs == () for pack in copy.packs)
    assert verify(copy).problems == []
    assert not list((copy.muse / "tmp").iterdir())


@pytest.mark.parametrize("bare", [False, True], ids=["loose", "bare"])
def test_where_a_thin_mpack_starts_from_something_damaged_a_whole_one_is_fetched(
    thin_hub: Offering, origin: Workdir, tmp_path: Path, bare: bool
) -> None:
    copy = clone(transport(thin_hub.url), tmp_path / "copy", bare=bare).workdir
    edit(thin_hub, origin)
    thin_hub.other_base = True
    fetch(copy, transport(thin_hub.url))
    assert [asked.get("capabilities") for asked in thin_hub.asked] == [None, ["thin"], None]
    assert copy.has_commit(str(origin.branch_head("main")))
    assert verify(copy).problems == []


def test_a_repair_brings_every_mpack_again_and_keeps_no_other(hub: Offering, origin: Workdir, tmp_path: Path) -> None:
    copy = clone(transport(hub.url), tmp_path / "copy", bare=True).workdir
    damaged = next(iter(copy.packs)).path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert verify(copy).problems
    hub.capabilities = ()
    fetch(copy, transport(hub.url), repair=True)
    assert verify(copy).problems == []
    assert len(list(copy.packs)) == 1
    assert same(copy, origin)
