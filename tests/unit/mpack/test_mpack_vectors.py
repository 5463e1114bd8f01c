"""The published packs and the worked example of the specification stay true."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from musehub_plugin import ids
from musehub_plugin.mpack import MPackError, MPackReader, build_wire_mpack, parse_wire_mpack, verify
from tests.unit.mpack.holding import Held

VECTORS = Path(__file__).parents[2] / "vectors" / "mpack"
SPECIFICATION = Path(__file__).parents[3] / "docs" / "mpack-format.md"
DESCRIBED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(VECTORS.glob("*.json"))}


def with_bytes(value: Any) -> Any:
    """Return a JSON value with its base64 parts as bytes."""
    if isinstance(value, dict):
        if value.keys() == {"$base64"}:
            return base64.b64decode(value["$base64"])
        return {key: with_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    return value


def holds(name: str) -> Held | None:
    """Return what the receiver of a thin pack holds."""
    about = with_bytes(DESCRIBED[name].get("holds"))
    if about is None:
        return None
    manifests = {snapshot["snapshot_id"]: snapshot["manifest"] for snapshot in about["snapshots"]}
    return Held(manifests, {blob["object_id"]: blob["content"] for blob in about["blobs"]})


def test_every_vector_is_described() -> None:
    assert {path.stem for path in VECTORS.glob("*.mpack")} == DESCRIBED.keys()


@pytest.mark.parametrize("name", [name for name, about in DESCRIBED.items() if "reads" in about])
def test_a_vector_reads_as_described(name: str) -> None:
    expected = with_bytes(DESCRIBED[name]["reads"])
    found = parse_wire_mpack((VECTORS / f"{name}.mpack").read_bytes(), bases=holds(name))
    if "blob_ids" in expected:
        assert [ids.blob_id(blob["content"]) for blob in found["blobs"]] == expected["blob_ids"]
    else:
        assert found == expected


@pytest.mark.parametrize("name", [name for name, about in DESCRIBED.items() if "refused" in about])
def test_a_vector_that_must_be_refused_is(name: str) -> None:
    with pytest.raises(MPackError):
        parse_wire_mpack((VECTORS / f"{name}.mpack").read_bytes(), bases=holds(name))


@pytest.mark.parametrize("name", [name for name in DESCRIBED if name.startswith("thin-")])
def test_a_thin_vector_is_refused_where_nothing_is_held(name: str) -> None:
    with pytest.raises(MPackError, match="needs 'thin'"):
        parse_wire_mpack((VECTORS / f"{name}.mpack").read_bytes())


@pytest.mark.parametrize("name", ["empty", "hello", "empty-things"])
def test_a_vector_that_needs_no_compression_is_still_written_the_same(name: str) -> None:
    expected = with_bytes(DESCRIBED[name]["reads"])
    data = (VECTORS / f"{name}.mpack").read_bytes()
    assert all(frame.codec == 0 for frame in MPackReader(io.BytesIO(data)).frames)
    assert build_wire_mpack(**expected) == data


def example_of_the_specification() -> bytes:
    """Return the bytes that the specification shows, from the first columns of its hex block."""
    block = re.search(r"```hex\n(.*?)```", SPECIFICATION.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = [re.match(r"(?:[0-9a-f]{2}(?: |$))*", line[:49]) for line in block[1].splitlines()]
    return bytes.fromhex("".join(line[0] for line in lines if line))


def test_the_example_of_the_specification_is_what_is_written() -> None:
    content = b"hello\n"
    manifest = {"a.txt": ids.blob_id(content)}
    date = "2026-01-02T03:04:05+00:00"
    commit = {
        "commit_id": ids.commit_id([], ids.snapshot_id(manifest), "Say hello", date),
        "snapshot_id": ids.snapshot_id(manifest),
        "branch": "main",
        "message": "Say hello",
        "author": "Ada <ada@example.org>",
        "committed_at": date,
    }
    written = build_wire_mpack(
        commits=[commit],
        snapshots=[{"snapshot_id": ids.snapshot_id(manifest), "manifest": manifest}],
        blobs=[{"object_id": ids.blob_id(content), "content": content}],
    )
    assert example_of_the_specification() == written


def test_the_ids_that_the_specification_names_are_those_of_its_example() -> None:
    reader = MPackReader(io.BytesIO(example_of_the_specification()))
    verify(reader)
    found = [next(reader.blobs()).object_id, *reader.snapshot_ids(), *(c["commit_id"] for c in reader.commits())]
    text = SPECIFICATION.read_text(encoding="utf-8")
    assert re.findall(r"sha256:[0-9a-f]{64}", text) == found
