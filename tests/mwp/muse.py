"""The released `muse` command's side of the wire, as recorded from it: the same requests, in the same order and form.

It shares no code with the plugin. One connection per request, as urllib makes them.
"""

from __future__ import annotations

import hashlib
import http.client
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack

BATCH = 400
AT_ONCE = 4
PRESIGNED_FROM = 64 * 1024
ROUND = 64
MAX_ANSWER = 64 * 1024 * 1024
DEFAULTS: dict[str, Any] = {
    "author": "",
    "metadata": {},
    "structured_delta": None,
    "sem_ver_bump": "none",
    "breaking_changes": [],
    "agent_id": "",
    "model_id": "",
    "toolchain_id": "",
    "prompt_hash": "",
    "signature": "",
    "signer_key_id": "",
    "format_version": 5,
    "reviewed_by": [],
    "test_runs": 0,
}


def sha256(data: bytes) -> str:
    """Return the bare hex id of some bytes."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The decoded body, msgpack as the command decodes it."""
        assert self.headers["content-type"] == "application/x-msgpack", self.data[:400]
        decoded: dict[str, Any] = msgpack.unpackb(self.data, raw=False)
        return decoded


class Refused(Exception):
    """The command would stop here and show the answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.data[:400].decode())
        self.answer = answer


@dataclass
class Remote:
    """A remote URL, and what was asked of it.

    Args:
        url: `http://host/owner/slug`.
        token: the bearer token; None sends none.

    Attributes:
        asked: paths below the URL, in their order.
    """

    url: str
    token: str | None = None
    asked: list[str] = field(default_factory=list)

    def ask(self, path: str, body: Any = None, *, data: bytes | None = None) -> Answer:
        """Send one request on a connection of its own, and return the answer, whatever it is."""
        parts = urlsplit(self.url)
        headers = {
            "Accept-Encoding": "identity",
            "Host": parts.netloc,
            "User-Agent": "Python-urllib/3.13",
            "Accept": "application/x-msgpack, application/json",
            "Connection": "close",
        }
        sent = data
        if body is not None:
            sent = msgpack.packb(body, use_bin_type=True)
        if sent is not None:
            headers["Content-Type"] = "application/x-msgpack"
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        self.asked.append(path)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        try:
            connection.request("GET" if sent is None else "POST", f"{parts.path}/{path}", sent, headers)
            response = connection.getresponse()
            read = response.read(MAX_ANSWER + 1)
            assert len(read) <= MAX_ANSWER
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, read)
        finally:
            connection.close()

    def get(self, path: str, body: Any = None) -> dict[str, Any]:
        """Send one request and return the decoded answer.

        Raises:
            Refused: the status is not 200.
        """
        answer = self.ask(path, body)
        if answer.status != 200:
            raise Refused(answer)
        return answer.body


class Copy:
    """A working copy, as far as the wire goes: commits, snapshots and blobs by bare id, and branches."""

    def __init__(self, name: str = "local") -> None:
        self.repo_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
        self.commits: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        self.heads: dict[str, str] = {}
        self._clock = 0

    def commit(
        self,
        files: dict[str, bytes],
        parents: Sequence[str] | None = None,
        *,
        branch: str = "main",
        message: str = "A commit",
        **fields: Any,
    ) -> str:
        """Make a commit on a branch and return its id; without `parents` it follows the branch's head."""
        if parents is None:
            parents = [self.heads[branch]] if branch in self.heads else []
        manifest = {path: sha256(content) for path, content in files.items()}
        self.objects.update((sha256(content), content) for content in files.values())
        entries = sorted(f"{path}\0{object_id}" for path, object_id in manifest.items())
        snapshot_id = sha256("\0".join(entries).encode())
        self.snapshots[snapshot_id] = manifest
        self._clock += 1
        committed_at = f"2026-03-01T12:{self._clock // 60:02}:{self._clock % 60:02}.000001+00:00"
        joined = "\0".join(["\0".join(sorted(parents)), snapshot_id, message, committed_at])
        commit_id = sha256(joined.encode())
        self.commits[commit_id] = {
            "commit_id": commit_id,
            "repo_id": self.repo_id,
            "branch": branch,
            "snapshot_id": snapshot_id,
            "message": message,
            "committed_at": committed_at,
            "parent_commit_id": parents[0] if parents else None,
            "parent2_commit_id": parents[1] if len(parents) > 1 else None,
            **DEFAULTS,
            **fields,
        }
        self.heads[branch] = commit_id
        return commit_id

    def parents(self, commit_id: str) -> list[str]:
        """Return a commit's parents."""
        commit = self.commits[commit_id]
        return [parent for parent in (commit["parent_commit_id"], commit["parent2_commit_id"]) if parent]

    def walk(self, tip: str, stop: Iterable[str]) -> list[str]:
        """Return the commits from the tip back, children first, not past those of `stop`."""
        seen = set(stop)
        order = []
        queue = [tip]
        while queue:
            commit_id = queue.pop(0)
            if commit_id not in seen and commit_id in self.commits:
                seen.add(commit_id)
                order.append(commit_id)
                queue.extend(self.parents(commit_id))
        return order

    def push(self, remote: Remote, branch: str = "main", *, force: bool = False) -> dict[str, Any] | None:
        """Push a branch as `muse push` does; None where the remote has it.

        Raises:
            Refused: a request that the command cannot do without was refused.
        """
        heads = remote.get("refs")["branch_heads"]
        if heads.get(branch) == self.heads[branch]:
            return None
        sent = self.walk(self.heads[branch], heads.values())
        snapshots = {self.commits[commit_id]["snapshot_id"] for commit_id in sent}
        needed = sorted({object_id for snapshot_id in snapshots for object_id in self.snapshots[snapshot_id].values()})
        missing = remote.get("filter-objects", {"object_ids": needed})["missing"]
        if any(len(self.objects[object_id]) > PRESIGNED_FROM for object_id in missing):
            answer = remote.get("presign", {"object_ids": missing, "direction": "put"})
            assert answer == {"presigned": {}, "inline": missing}
        batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda batch: self._send(remote, batch), batches))
        bundle = {
            "commits": [self.commits[commit_id] for commit_id in sent],
            "snapshots": [
                {
                    "snapshot_id": snapshot_id,
                    "manifest": self.snapshots[snapshot_id],
                    "created_at": "2026-03-01T12:00:00.000001+00:00",
                }
                for snapshot_id in snapshots
            ],
            "objects": [],
        }
        return remote.get("push", {"bundle": bundle, "branch": branch, "force": force})

    def _send(self, remote: Remote, object_ids: Sequence[str]) -> None:
        objects = [{"object_id": object_id, "content": self.objects[object_id]} for object_id in object_ids]
        answer = remote.get("push/objects", {"objects": objects})
        assert answer == {"stored": len(objects), "skipped": 0}

    @classmethod
    def clone(cls, remote: Remote) -> Copy:
        """Clone as `muse clone` does: never with a token."""
        anonymous = Remote(remote.url, None, remote.asked)
        refs = anonymous.get("refs")
        copy = cls()
        copy.repo_id = refs["repo_id"]
        copy.apply(anonymous.get("fetch", {"want": list(refs["branch_heads"].values()), "have": []}))
        copy.heads = dict(refs["branch_heads"])
        return copy

    def fetch(self, remote: Remote, branch: str = "main") -> dict[str, Any] | None:
        """Fetch a branch as `muse fetch` does; None where its head is known."""
        head = remote.get("refs")["branch_heads"][branch]
        if head in self.commits:
            return None
        answer = remote.get("fetch", {"want": [head], "have": list(self.commits)})
        self.apply(answer)
        return answer

    def pull(self, remote: Remote, branch: str = "main") -> dict[str, Any]:
        """Pull a branch as `muse pull` does, and put the head there."""
        head = remote.get("refs")["branch_heads"][branch]
        local = list(self.commits)
        have = local
        for start in range(0, len(local), ROUND):
            batch = local[start : start + ROUND]
            answer = remote.get("negotiate", {"want": [head], "have": batch})
            have = answer["ack"] or local
            if answer["ready"]:
                break
        answer = remote.get("fetch", {"want": [head], "have": have})
        self.apply(answer)
        self.heads[branch] = head
        return answer

    def apply(self, answer: dict[str, Any]) -> None:
        """Take what a fetch brought, checking the ids that the command checks."""
        for sent in answer["objects"]:
            assert isinstance(sent["content"], bytes)
            assert sha256(sent["content"]) == sent["object_id"]
            self.objects[sent["object_id"]] = sent["content"]
        for snapshot in answer["snapshots"]:
            self.snapshots[snapshot["snapshot_id"]] = snapshot["manifest"]
        for commit in answer["commits"]:
            self.commits[commit["commit_id"]] = commit

    def files(self, branch: str = "main") -> dict[str, bytes]:
        """Return the tree at a branch's head."""
        manifest = self.snapshots[self.commits[self.heads[branch]]["snapshot_id"]]
        return {path: self.objects[object_id] for path, object_id in manifest.items()}
