"""A manifest that is changed bit by bit is the one that would have been written from scratch."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.client.manifest import ManifestRows

paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
objects = st.integers(0, 5).map(lambda number: ids.fake_id(str(number)))
changes = st.lists(st.tuples(paths, st.none() | objects), max_size=12)


@given(st.dictionaries(paths, objects, max_size=6), changes)
def test_changes_lead_to_the_manifest_of_a_dictionary(
    start: dict[str, str], steps: list[tuple[str, str | None]]
) -> None:
    rows = ManifestRows(start)
    expected = dict(start)
    for path, object_id in steps:
        if object_id is None:
            rows.remove(path)
            expected.pop(path, None)
        else:
            rows.set(path, object_id)
            expected[path] = object_id
    assert rows.snapshot_id() == ids.snapshot_id(expected)
    written = {
        "snapshot_id": ids.to_hex(ids.snapshot_id(expected)),
        "manifest": {path: ids.to_hex(expected[path]) for path in sorted(expected)},
        "created_at": "now",
    }
    assert rows.render(rows.snapshot_id(), "now").decode() == json.dumps(written, indent=2) + "\n"


def test_a_copy_is_changed_on_its_own() -> None:
    rows = ManifestRows({"a": ids.fake_id("1")})
    twin = rows.copy()
    twin.set("b", ids.fake_id("2"))
    twin.remove("a")
    assert (list(rows), list(twin)) == (["a"], ["b"])
