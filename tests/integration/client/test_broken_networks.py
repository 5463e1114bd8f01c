"""Downloads over a network that breaks: they go on where they were, ask for a new URL, and never believe a byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from musehub_plugin.client import (
    HubRefused,
    HubTransport,
    HubUnreachable,
    Workdir,
    WorkdirError,
    clone,
    fetch,
    push,
    verify,
)
from tests.integration.client.breaking import Breaking, breaking_proxy
from tests.integration.client.conftest import LiveHub
from tests.integration.client.test_round_trip import add_commit

# What does not compress: the mpack is about as long.
CONTENT = Random("content").randbytes(300_000)


@pytest.fixture
def origin(live_hub: LiveHub, tmp_path: Path) -> Workdir:
    """A working copy whose history is on the hub, as ada/engine."""
    workdir = Workdir.create(tmp_path / "origin")
    add_commit(workdir, {"big": CONTENT})
    push(workdir, live_hub.transport(live_hub.add_repo("engine")))
    return workdir


@pytest.fixture
def network(live_hub: LiveHub, origin: Workdir) -> Iterator[Breaking]:
    """The proxy before the hub."""
    with breaking_proxy(live_hub.origin) as network:
        yield network


def transport(network: Breaking, *, timeout: float = 120.0) -> HubTransport:
    """Return a connection that waits for nothing."""
    url = f"{network.origin}/ada/engine"
    return HubTransport(url, token="ada", timeout=timeout, wait_budget=20.0, sleep=lambda seconds: None)


def test_what_was_cut_off_goes_on_by_range(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", "cut 100000"]
    copy = clone(transport(network), tmp_path / "copy").workdir
    assert (copy.root / "big").read_bytes() == CONTENT
    assert network.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert not network.tokens


def test_a_network_that_breaks_again_and_again_gets_there_as_long_as_something_comes(
    network: Breaking, tmp_path: Path
) -> None:
    network.faults = ["cut 20000"] * 14
    clone(transport(network), tmp_path / "copy")
    assert network.ranges == [None, *(f"bytes={20_000 * number}-" for number in range(1, 15))]


def test_a_download_that_stalls_goes_on(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["stall 100000"]
    # Longer than a busy machine takes to answer, shorter than the silence.
    clone(transport(network, timeout=4.0), tmp_path / "copy")
    assert network.ranges == [None, "bytes=100000-"]


def test_storage_without_ranges_starts_over(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", "whole"]
    copy = clone(transport(network), tmp_path / "copy").workdir
    assert (copy.root / "big").read_bytes() == CONTENT


def test_storage_that_is_busy_is_asked_again_for_the_rest(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", "status 503", "status 503"]
    clone(transport(network), tmp_path / "copy")
    assert network.ranges == [None, *["bytes=100000-"] * 3]


def test_a_url_that_expires_in_the_middle_is_replaced_and_the_rest_fetched(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", "status 403"]
    copy = clone(transport(network), tmp_path / "copy").workdir
    assert (copy.root / "big").read_bytes() == CONTENT
    assert network.ranges == [None, "bytes=100000-", "bytes=100000-"]


def test_urls_that_are_refused_always_are_given_up(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["status 403"] * 9
    with pytest.raises(HubRefused, match="expired"):
        clone(transport(network), tmp_path / "copy")
    assert len(network.ranges) == 2
    assert not (tmp_path / "copy").exists()


def test_a_bit_that_flipped_on_the_way_is_noticed_and_all_is_fetched_again(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", "flip"]
    copy = clone(transport(network), tmp_path / "copy").workdir
    assert (copy.root / "big").read_bytes() == CONTENT
    assert network.ranges == [None, "bytes=100000-", None]


def test_a_clone_that_gave_up_keeps_what_came_and_goes_on_later(network: Breaking, tmp_path: Path) -> None:
    network.faults = ["cut 100000", *["cut 0"] * 4]
    with pytest.raises(HubUnreachable, match="run the same command again"):
        clone(transport(network), tmp_path / "copy")
    assert (network.faults, len(network.ranges)) == ([], 5)
    copy = clone(transport(network), tmp_path / "copy").workdir
    assert network.ranges[-1] == "bytes=100000-"
    assert (copy.root / "big").read_bytes() == CONTENT
    assert verify(copy).problems == []


def test_a_clone_that_broke_off_is_not_taken_for_one_of_another_repo(
    live_hub: LiveHub, network: Breaking, tmp_path: Path
) -> None:
    network.faults = ["cut 100000", *["cut 0"] * 4]
    with pytest.raises(HubUnreachable):
        clone(transport(network), tmp_path / "copy")
    with pytest.raises(WorkdirError, match="broke off"):
        clone(live_hub.transport(live_hub.add_repo("other")), tmp_path / "copy")


def test_a_fetch_goes_on_where_the_last_one_gave_up(
    live_hub: LiveHub, origin: Workdir, network: Breaking, tmp_path: Path
) -> None:
    copy = clone(transport(network), tmp_path / "copy").workdir
    add_commit(origin, {"big": CONTENT, "more": Random("more").randbytes(400_000)})
    push(origin, live_hub.transport(f"{live_hub.origin}/ada/engine"))
    network.faults = ["cut 100000", *["cut 0"] * 4]
    with pytest.raises(HubUnreachable):
        fetch(copy, transport(network))
    assert verify(copy).problems == []
    assert fetch(copy, transport(network)).new_commits == 1
    assert network.ranges[-1] == "bytes=100000-"
    assert list((copy.muse / "tmp").iterdir()) == []
