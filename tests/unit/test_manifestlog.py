"""A run of manifests against plain copies of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from musehub_plugin import ids
from musehub_plugin.manifestlog import Difference, ManifestLog, difference
from tests.effort import effort

PATHS = ("a", "b", "c/d", "e")
OBJECTS = tuple(ids.fake_id(f"object {number}") for number in range(4))
manifests = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(OBJECTS))


def applied(before: Mapping[str, str], change: Difference) -> dict[str, str]:
    """Return a manifest after a change, which must name what it removes and change what it changes."""
    assert set(change.removed) <= before.keys()
    assert all(before.get(path) != object_id for path, object_id in change.changed.items())
    return {path: item for path, item in before.items() if path not in change.removed} | change.changed


@given(manifests, manifests)
def test_a_difference_is_what_makes_one_manifest_of_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    assert applied(before, difference(before, after)) == after


class Log(RuleBasedStateMachine):
    """Whatever is passed in whatever way, every manifest in reach is the one that was passed."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: dict[str, dict[str, str]] = {}
        self.last: dict[str, str] = {}
        self.last_id = ""

    @initialize(kept=st.sampled_from((0, 1, 3, 10, 1000)))
    def begin(self, kept: int) -> None:
        self.log = ManifestLog(kept)

    def note(self, manifest: dict[str, str]) -> None:
        self.last, self.last_id = manifest, ids.snapshot_id(manifest)
        self.passed[self.last_id] = manifest

    @rule(manifest=manifests)
    def pass_whole(self, manifest: dict[str, str]) -> None:
        change = self.log.pass_whole(ids.snapshot_id(manifest), manifest)
        assert applied(self.last, change) == manifest
        self.note(manifest)

    @rule(manifest=manifests)
    def pass_change(self, manifest: dict[str, str]) -> None:
        change = difference(self.last, manifest)
        self.log.pass_change(ids.snapshot_id(manifest), change.removed, change.changed)
        self.note(manifest)

    @precondition(lambda self: self.passed)
    @rule(manifest=manifests, data=st.data())
    def pass_from(self, manifest: dict[str, str], data: st.DataObject) -> None:
        base_id = data.draw(st.sampled_from([each for each in self.passed if self.log.reaches(each)]))
        change = difference(self.passed[base_id], manifest)
        found = self.log.pass_from(ids.snapshot_id(manifest), base_id, change.removed, change.changed)
        assert applied(self.last, found) == manifest
        self.note(manifest)

    @invariant()
    def every_manifest_in_reach_is_the_one_that_was_passed(self) -> None:
        """The differences to and from it are right, and the last one is always in reach."""
        if not self.passed:
            return
        assert self.log.manifest == self.last
        assert self.log.reaches(self.last_id)
        assert self.log.is_last(self.last_id)
        for snapshot_id, manifest in self.passed.items():
            if self.log.reaches(snapshot_id):
                assert applied(manifest, self.log.difference_from(snapshot_id)) == self.last
                assert applied(self.last, self.log.difference_to(snapshot_id)) == manifest


Log.TestCase.settings = effort(60, stateful_step_count=25)
test_a_log_goes_back_to_whatever_is_in_reach: Any = Log.TestCase


def test_what_is_remembered_is_bounded() -> None:
    log = ManifestLog(kept_changes=10)
    passed = [{"a": OBJECTS[number % 2], "b": ids.fake_id(str(number))} for number in range(50)]
    for manifest in passed:
        log.pass_whole(ids.snapshot_id(manifest), manifest)
    reached = [log.reaches(ids.snapshot_id(manifest)) for manifest in passed]
    assert reached == [False] * 44 + [True] * 6


def test_with_room_for_all_of_them_every_manifest_stays_in_reach() -> None:
    log = ManifestLog(kept_changes=100)
    passed = [{"b": ids.fake_id(str(number))} for number in range(50)]
    for manifest in passed:
        log.pass_whole(ids.snapshot_id(manifest), manifest)
    assert all(log.reaches(ids.snapshot_id(manifest)) for manifest in passed)
