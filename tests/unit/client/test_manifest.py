"""A manifest that is changed bit by bit is the one that would have been written from scratch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musehub_plugin import ids
from musehub_plugin.client import Workdir, entities, verify
from musehub_plugin.client.manifest import ManifestRows
from musehub_plugin.client.widerows import WideRows, read_wide
from musehub_plugin.mpack import SnapshotDelta, pages
from musehub_plugin.mpack.wide import WideManifest

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


@given(st.dictionaries(paths, objects, max_size=6), changes, st.booleans())
def test_wide_rows_are_those_of_memory(start: dict[str, str], steps: list[tuple[str, str | None]], full: bool) -> None:
    rows, expected = WideRows(ManifestRows(start), None), ManifestRows({} if full else start)
    removed = [path for path, object_id in steps if object_id is None]
    changed = {path: object_id for path, object_id in steps if object_id is not None}
    for path in removed:
        expected.remove(path)
    for path, object_id in changed.items():
        expected.set(path, object_id)
    list(rows.pieces(ids.fake_id("1"), "before"))
    rows.follow(SnapshotDelta(0, "", full, removed, changed, 0, id_is_stored=False))
    snapshot_id = expected.snapshot_id()
    assert (rows.snapshot_id(), len(rows), list(rows)) == (snapshot_id, len(expected), list(expected))
    assert b"".join(rows.pieces(snapshot_id, "now")) == expected.render(snapshot_id, "now")


@pytest.fixture
def wide_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """The file of a wide snapshot, and its manifest."""
    monkeypatch.setattr(pages, "_PAGE_BYTES", 400)
    manifest = {f"é/{number}": ids.fake_id(str(number)) for number in range(50)}
    rows = WideRows(ManifestRows(manifest), tmp_path)
    path = tmp_path / "snapshot"
    path.write_bytes(b"".join(rows.pieces(rows.snapshot_id(), "now")))
    return path, manifest


def test_a_wide_snapshot_is_read_back(wide_file: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    path, manifest = wide_file
    found = read_wide(path, tmp_path)
    assert found is not None
    assert (dict(found), found.snapshot_id()) == (manifest, ids.snapshot_id(manifest))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{\n", "{ \n"),
        ('  "manifest": {\n', '  "manifest" : {\n'),
        ('"\n  }', '"'),
        (",\n    ", "\n    "),
        ('/7": "', '/7": ["'),
        ('/7": "', '/7": "g'),
        ("\n}\n", "\n"),
        ('    "', '    "\\u0000'),
        ('    "', '    "\\ud800'),
    ],
)
def test_a_file_of_another_form_is_left_to_who_reads_it_whole(
    wide_file: tuple[Path, dict[str, str]], tmp_path: Path, old: str, new: str
) -> None:
    path, _ = wide_file
    path.write_text(path.read_text().replace(old, new, 1))
    assert read_wide(path, tmp_path) is None


def test_a_wide_snapshot_is_stored_verified_and_found_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "_WIDE_FILE", 100)
    workdir = Workdir.create(tmp_path)
    object_id, _ = workdir.write_blob(b"content")
    manifest = dict.fromkeys(["a", "b", "c"], object_id)
    rows = WideRows(ManifestRows(manifest), workdir.temp_folder)
    assert workdir.write_snapshot(rows, rows.snapshot_id(), "now")
    assert not workdir.write_snapshot(rows, rows.snapshot_id(), "now")
    found = workdir.read_snapshot(rows.snapshot_id())
    assert isinstance(found, WideManifest)
    assert (dict(found), verify(workdir).problems) == (manifest, [])
    path = workdir.muse / "snapshots" / f"{ids.to_hex(rows.snapshot_id())}.json"
    path.write_text(path.read_text().replace('"b"', '"d"'))
    [problem] = verify(workdir).problems
    assert problem.startswith(f"snapshot {rows.snapshot_id()} hashes to sha256:")
