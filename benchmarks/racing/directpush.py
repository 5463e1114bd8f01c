"""Pushes packs over the protocol alone: histories that are too long for a working copy, and many small pushes."""

from __future__ import annotations

import hashlib
import time
from io import BufferedReader, BytesIO
from pathlib import Path
from random import Random
from typing import Any

import urllib3

from benchmarks.pack_size import read_history, write_pack
from benchmarks.racing.histories import History
from musehub_plugin import ids, testing

_HEADERS = {"Authorization": "Bearer bench", "Accept": "application/json"}
_FILES, _CHANGED, _FILE_BYTES = 200, 3, 2_000


def push_directly(history: History, folder: Path, port: int, repo: str) -> tuple[float, float, dict[str, str]]:
    """Push a history as one mpack.

    Args:
        history: the history.
        folder: where the pack is written.
        port: the hub's, on loopback.
        repo: `owner/slug`, which must be there.

    Returns:
        Seconds to pack, seconds until the push was acknowledged, and the id of each git commit.

    Raises:
        RuntimeError: the hub refused it.
    """
    begun = time.monotonic()
    path = folder / "history.mpack"
    with path.open("wb") as out:
        commit_ids = write_pack(history.source, commits := read_history(history.source), out)
    packed = time.monotonic()
    Pusher(port, repo).push_file(path, commit_ids[commits[-1].name], history.branch)
    path.unlink()
    return packed - begun, time.monotonic() - packed, commit_ids


def push_small(port: int, repo: str, count: int) -> list[float]:
    """Push commits one by one, each with three changed files of two hundred; return the seconds that each took.

    Raises:
        RuntimeError: the hub refused one.
    """
    chance, pusher, history = Random(0), Pusher(port, repo), testing.History()
    files: dict[str, bytes | str] = {f"src/{n % 20}/{n}.txt": chance.randbytes(_FILE_BYTES) for n in range(_FILES)}
    head = history.commit(files)
    pusher.push(history.pack(), head, "main")
    seconds = []
    for _ in range(count):
        for path in chance.sample(sorted(files), _CHANGED):
            files[path] = chance.randbytes(_FILE_BYTES)
        before, head = head, history.commit(files, [head])
        pack = history.pack(want=[head], have=[before])
        begun = time.monotonic()
        pusher.push(pack, head, "main")
        seconds.append(time.monotonic() - begun)
    return seconds


class Pusher:
    """Who pushes to a repo on loopback.

    Args:
        port: the hub's.
        repo: `owner/slug`, which must be there.
    """

    def __init__(self, port: int, repo: str) -> None:
        # Unpacking a hundred thousand commits takes its time.
        self._http = urllib3.PoolManager(retries=False, timeout=3_600)
        self._base = f"http://127.0.0.1:{port}/{repo}/push"

    def push(self, data: bytes, head: str, branch: str) -> None:
        """Presign, upload, unpack."""
        self._push(BytesIO(data), len(data), head, branch)

    def push_file(self, path: Path, head: str, branch: str) -> None:
        """Do the same with a pack that is in a file."""
        with path.open("rb") as file:
            self._push(file, path.stat().st_size, head, branch)

    def _push(self, file: BytesIO | BufferedReader, size: int, head: str, branch: str) -> None:
        mpack_id = ids.from_digest(hashlib.file_digest(file, "sha256").digest())
        file.seek(0)
        ticket = self._post("presign", {"mpack_id": mpack_id, "size_bytes": size})
        headers = {**ticket["headers"], "Content-Length": str(size)}
        uploaded = self._http.request(ticket["method"], ticket["upload_url"], body=file, headers=headers)
        if uploaded.status != 200:
            raise RuntimeError(f"storage refused an upload: {uploaded.status}")
        body = {"mpack_id": mpack_id, "branch": branch, "head_commit_id": head, "expected_head": None, "force": False}
        self._post("unpack-mpack", body)

    def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.request("POST", f"{self._base}/{what}", json=body, headers=_HEADERS)
        if answer.status != 200:
            raise RuntimeError(f"the hub refused a push: {answer.data[:500]!r}")
        found: dict[str, Any] = answer.json()
        return found
