"""Packs a git history and pushes it without a working copy in between: for histories that are too long for one."""

from __future__ import annotations

import time
from pathlib import Path

import urllib3

from benchmarks.pack_size import read_history, write_pack
from benchmarks.racing.histories import History
from musehub_plugin import ids

_HEADERS = {"Authorization": "Bearer bench", "Accept": "application/json"}


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
    data = path.read_bytes()
    mpack_id = ids.blob_id(data)
    # Unpacking a hundred thousand commits takes its time.
    http = urllib3.PoolManager(retries=False, timeout=3_600)
    base = f"http://127.0.0.1:{port}/{repo}/push"
    body = {"mpack_id": mpack_id, "size_bytes": len(data)}
    ticket = http.request("POST", f"{base}/presign", json=body, headers=_HEADERS).json()
    uploaded = http.request(ticket["method"], ticket["upload_url"], body=data, headers=ticket["headers"])
    if uploaded.status != 200:
        raise RuntimeError(f"storage refused the upload: {uploaded.status}")
    body = {"mpack_id": mpack_id, "branch": history.branch, "head_commit_id": commit_ids[commits[-1].name]}
    unpacked = http.request(
        "POST", f"{base}/unpack-mpack", json={**body, "expected_head": None, "force": False}, headers=_HEADERS
    )
    if unpacked.status != 200:
        raise RuntimeError(f"the hub refused the push: {unpacked.data[:500]!r}")
    path.unlink()
    return packed - begun, time.monotonic() - packed, commit_ids
