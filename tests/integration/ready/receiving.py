"""A client that takes whatever capabilities bring: several packs, packs in the answer, thin packs.

It is written against the protocol's page, and looks at every byte.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from musehub_plugin import ids
from musehub_plugin.mpack import MPackReader, parse_wire_mpack, verify
from tests.exchange import Caller

ALL_CAPABILITIES = (
    (),
    ("inline",),
    ("inline", "thin"),
    ("thin",),
    ("mpacks",),
    ("inline", "mpacks", "thin"),
)


@dataclass(frozen=True)
class Received:
    """What one fetch brought.

    Attributes:
        answer: the answer's members.
        packs: the bytes of its packs, in order.
        commits: ids of what the packs hold, once each.
        snapshots: likewise.
        blobs: likewise.
    """

    answer: dict[str, Any]
    packs: Sequence[bytes]
    commits: set[str]
    snapshots: set[str]
    blobs: set[str]

    @property
    def entities(self) -> tuple[set[str], set[str], set[str]]:
        """All of the ids, as `tests.dags.History.delta` has them."""
        return self.commits, self.snapshots, self.blobs


class Receiver:
    """A store of one client of one repo, from which thin packs are read.

    Args:
        caller: who asks.
        repo: `owner/slug`.
    """

    def __init__(self, caller: Caller, repo: str) -> None:
        self.caller = caller
        self.repo = repo
        self.manifests: dict[str, dict[str, str]] = {}
        self.blobs: dict[str, bytes] = {}

    def manifest(self, snapshot_id: str) -> dict[str, str] | None:
        """Return what a thin pack may lean on."""
        return self.manifests.get(snapshot_id)

    def blob(self, object_id: str, max_size: int) -> bytes | None:
        """Likewise."""
        content = self.blobs.get(object_id)
        return None if content is None or len(content) > max_size else content

    def fetch(self, want: Sequence[str], have: Sequence[str] = (), capabilities: Sequence[str] = ()) -> Received:
        """Fetch, verify every byte, take it in; nothing may come twice, and the counts must be right."""
        response = self.caller.fetch(self.repo, want, have, capabilities)
        assert response.status_code == 200, response.get_data(as_text=True)
        answer: dict[str, Any] = response.get_json()
        packs = self._packs(answer, capabilities)
        assert answer["size_bytes"] == sum(map(len, packs))
        found: tuple[list[str], list[str], list[str]] = ([], [], [])
        for data in packs:
            self._take(data, found, thin="thin" in capabilities)
        counts = [answer[f"{name}_count"] for name in ("commit", "snapshot", "blob", "object")]
        assert counts == [*map(len, found), len(found[2])]
        entities = [set(each) for each in found]
        # A commit of a later pack may have a snapshot that a commit of an earlier one has: each pack is a delta.
        checked = (0, 2) if len(packs) > 1 else (0, 1, 2)
        assert [len(entities[kind]) for kind in checked] == [len(found[kind]) for kind in checked]
        return Received(answer, packs, *entities)

    def _packs(self, answer: dict[str, Any], capabilities: Sequence[str]) -> list[bytes]:
        if "mpacks" in answer:
            assert "mpacks" in capabilities
            assert (answer["mpack_url"], answer["mpack_id"]) == (None, None)
            assert len(answer["mpacks"]) > 1
            entries = answer["mpacks"]
        elif answer["mpack_id"] is None:
            return []
        else:
            entries = [{"id": answer["mpack_id"], "url": answer["mpack_url"], "size_bytes": answer["size_bytes"]}]
            if "mpack" in answer:
                entries[0]["mpack"] = answer["mpack"]
        return [self._pack(entry, capabilities) for entry in entries]

    def _pack(self, entry: dict[str, Any], capabilities: Sequence[str]) -> bytes:
        if "mpack" in entry:
            assert "inline" in capabilities
            assert entry.get("url") is None
            data = base64.b64decode(entry["mpack"], validate=True)
        else:
            data = self.caller.download(entry["url"])
        assert ids.blob_id(data) == entry["id"]
        assert len(data) == entry["size_bytes"]
        return data

    def _take(self, data: bytes, found: tuple[list[str], list[str], list[str]], *, thin: bool) -> None:
        reader = MPackReader(io.BytesIO(data), bases=self)
        assert set(reader.needs) <= ({"thin"} if thin else set())
        verify(reader)
        pack = parse_wire_mpack(data, bases=self)
        found[0].extend(commit["commit_id"] for commit in pack["commits"])
        found[1].extend(snapshot["snapshot_id"] for snapshot in pack["snapshots"])
        found[2].extend(blob["object_id"] for blob in pack["blobs"])
        self.manifests.update((each["snapshot_id"], each["manifest"]) for each in pack["snapshots"])
        self.blobs.update((each["object_id"], each["content"]) for each in pack["blobs"])
