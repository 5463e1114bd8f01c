"""A muse client over real sockets, which believes nothing: whatever it fetches is hashed down to the last blob."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from musehub_plugin import ids
from musehub_plugin.mpack import parse_wire_mpack
from musehub_plugin.testing import History
from tests.faults.control import wait_until


@dataclass(frozen=True)
class Answer:
    """An answer of the hub.

    Attributes:
        status: the HTTP status; 0 where the connection ended without one.
        body: the JSON members.
        headers: by name.
        seconds: how long it took.
    """

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]
    seconds: float

    @property
    def code(self) -> str:
        """The problem's code, empty in an answer that is none."""
        return str(self.body.get("code", ""))

    def assert_try_again(self, code: str = "") -> None:
        """Assert that this is a 503 with a `Retry-After` of at least a second, with that code if one is given."""
        assert self.status == 503, self
        assert int(self.headers["Retry-After"]) >= 1
        assert code in {"", self.code}


class Muse:
    """Somebody who talks to a hub.

    Args:
        origin: scheme, host and port.
        user: their user id.
    """

    def __init__(self, origin: str, user: str = "alice") -> None:
        self.origin = origin
        self._headers = {"Authorization": f"Bearer {user}", "Accept": "application/json"}
        self._http = urllib3.PoolManager(maxsize=4, retries=False, timeout=120)

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request; a connection that ends without an answer is one with status 0."""
        data = None if body is None else json.dumps(body)
        headers = {**self._headers, "Content-Type": "application/json"}
        before = time.monotonic()
        try:
            got = self._http.request(method, self.origin + path, body=data, headers=headers)
        except urllib3.exceptions.HTTPError:
            return Answer(0, {}, {}, time.monotonic() - before)
        members = json.loads(got.data) if got.data else {}
        return Answer(got.status, members, dict(got.headers), time.monotonic() - before)

    def lab(self, path: str) -> Answer:
        """Have the web process do what an operator or a host does."""
        return self.request("POST", f"/lab/{path}", {})

    def refs(self, repo: str) -> dict[str, str]:
        """Return the branches."""
        answer = self.request("GET", f"/{repo}/refs")
        assert answer.status == 200, answer
        heads: dict[str, str] = answer.body["branch_heads"]
        return heads

    def fetch(self, repo: str, want: Iterable[str], have: Iterable[str] = ()) -> Answer:
        """Ask for what `want` reaches and `have` does not."""
        return self.request("POST", f"/{repo}/fetch", {"want": list(want), "have": list(have)})

    def presign(self, repo: str, pack: bytes) -> Answer:
        """Ask for leave to upload a pack."""
        body = {"mpack_id": ids.blob_id(pack), "size_bytes": len(pack)}
        return self.request("POST", f"/{repo}/push/presign", body)

    def upload(self, repo: str, pack: bytes) -> Answer:
        """Ask for leave and, where the hub does not hold the pack, upload it; return the answer to the former."""
        ticket = self.presign(repo, pack)
        if ticket.status == 200 and not ticket.body["uploaded"]:
            got = self._http.request(
                ticket.body["method"], ticket.body["upload_url"], body=pack, headers=ticket.body["headers"]
            )
            assert got.status == 200, got.status
        return ticket

    def unpack(self, repo: str, pack: bytes, head: str, *, branch: str = "main", force: bool = False) -> Answer:
        """Have an uploaded pack unpacked."""
        body = {
            "mpack_id": ids.blob_id(pack),
            "branch": branch,
            "head_commit_id": head,
            "expected_head": None,
            "force": force,
        }
        return self.request("POST", f"/{repo}/push/unpack-mpack", body)

    def push(self, repo: str, pack: bytes, head: str, *, branch: str = "main", force: bool = False) -> Answer:
        """Presign, upload, unpack; return the answer that settled it."""
        ticket = self.upload(repo, pack)
        if ticket.status != 200:
            return ticket
        return self.unpack(repo, pack, head, branch=branch, force=force)

    def download(self, answer: Answer) -> dict[str, list[dict[str, Any]]]:
        """Return what a fetch was answered with, once every byte of it is verified."""
        assert answer.status == 200, answer
        got = self._http.request("GET", answer.body["mpack_url"])
        assert got.status == 200, got.status
        assert ids.blob_id(got.data) == answer.body["mpack_id"]
        pack = parse_wire_mpack(got.data)
        for blob in pack["blobs"]:
            assert ids.blob_id(blob["content"]) == blob["object_id"]
        for snapshot in pack["snapshots"]:
            assert ids.snapshot_id(snapshot["manifest"]) == snapshot["snapshot_id"]
        for commit in pack["commits"]:
            hashed = ids.commit_id(
                commit["parent_ids"], commit["snapshot_id"], commit["message"], commit["committed_at"]
            )
            assert hashed == commit["commit_id"]
        return pack

    def assert_complete(self, answer: Answer, history: History, want: Sequence[str]) -> None:
        """Assert that a fetch of `want` from nothing brought exactly what the history says, every byte of it."""
        pack = self.download(answer)
        commits = {commit["commit_id"] for commit in pack["commits"]}
        assert commits == history.reachable(want)
        manifests = {item["snapshot_id"]: item["manifest"] for item in pack["snapshots"]}
        snapshots = {history.commits[commit_id]["snapshot_id"] for commit_id in commits}
        assert manifests == {snapshot_id: history.snapshots[snapshot_id] for snapshot_id in snapshots}
        objects = {object_id for manifest in manifests.values() for object_id in manifest.values()}
        contents = {blob["object_id"]: blob["content"] for blob in pack["blobs"]}
        assert contents == {object_id: history.blobs[object_id] for object_id in objects}

    def assert_fetchable(self, repo: str, history: History, heads: Mapping[str, str]) -> None:
        """Assert that the repo has exactly these branches, and that all of them can be cloned once they are indexed.

        Raises:
            AssertionError: it has not, or it does not within the deadline.
        """
        assert self.refs(repo) == dict(heads)
        answers: list[Answer] = []

        def is_answered() -> bool:
            answers[:] = [self.fetch(repo, heads.values())]
            return answers[0].code != "not-indexed"

        wait_until(is_answered, f"the index of {repo}")
        self.assert_complete(answers[0], history, list(heads.values()))
