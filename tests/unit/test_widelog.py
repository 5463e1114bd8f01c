"""A run of wide manifests, held against what dicts say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids, widelog
from musehub_plugin.manifestlog import ManifestLog, difference
from musehub_plugin.store import widemanifests
from musehub_plugin.store.manifests import Chain, pack_change
from musehub_plugin.widelog import WideDifference, WideLog

manifests = st.dictionaries(st.text("ab/é", min_size=1, max_size=4), st.sampled_from([ids.fake_id(n) for n in "123"]))


def as_plain(change: WideDifference) -> tuple[set[str], dict[str, str]]:
    return set(change.removed), dict(change.changed)


def expected(before: dict[str, str], after: dict[str, str]) -> tuple[set[str], dict[str, str]]:
    removed, changed = difference(before, after)
    return set(removed), changed


@given(st.lists(manifests, min_size=1, max_size=8), st.data())
def test_manifests_that_are_in_reach_differ_as_dicts_do(run: list[dict[str, str]], data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patched:
        # As much as this is in a file, and so few stay.
        patched.setattr(widelog, "PIECE", 2)
        patched.setattr(widelog, "_KEPT_MANIFESTS", 3)
        log = WideLog(ManifestLog())
        before: dict[str, str] = {}
        for number, manifest in enumerate(run):
            if data.draw(st.booleans()):
                log.pass_whole(str(number), manifest)
            else:
                log.pass_change(str(number), *difference(before, manifest))
            before = manifest
            assert dict(log.manifest) == manifest
            assert log.is_last(str(number))
            for place, earlier in enumerate(run[: number + 1]):
                assert log.reaches(str(place)) == (place > number - 3)
                if log.reaches(str(place)):
                    assert as_plain(log.difference_from(str(place))) == expected(earlier, manifest)
                    assert as_plain(log.difference_to(str(place))) == expected(manifest, earlier)


@given(st.lists(manifests, min_size=1, max_size=6, unique_by=str), manifests)
def test_manifests_that_were_not_wide_are_in_reach(run: list[dict[str, str]], wide: dict[str, str]) -> None:
    narrow = ManifestLog()
    for number, manifest in enumerate(run):
        narrow.pass_whole(str(number), manifest)
    log = WideLog(narrow)
    assert log.is_last(str(len(run) - 1))
    log.pass_whole("wide", wide)
    for number, manifest in enumerate(run):
        assert as_plain(log.difference_from(str(number))) == expected(manifest, wide)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 2_047, 2_048, 70_000])
def test_what_is_written_by_way_of_a_file_is_what_is_packed_in_memory(count: int) -> None:
    manifest = {f"{number:05}": ids.fake_id(str(number)) for number in range(count)}
    wide = WideLog(ManifestLog()).as_wide(manifest)
    made = widemanifests.new_wide_snapshot("s", None, [], {}, wide)
    assert made.spooled is not None
    assert made.spooled.read(0, made.spooled.size) == pack_change(difference({}, manifest))
    removed = sorted(manifest)
    made = widemanifests.new_wide_snapshot("s", ("base", Chain(0, -(10**9))), removed, wide, wide)
    assert made.spooled is not None
    assert made.spooled.read(0, made.spooled.size) == pack_change(difference(manifest, {})._replace(changed=manifest))
