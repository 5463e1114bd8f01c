"""A commit in its three forms: the JSON file of a working copy, the map on the wire, and what both hash to.

The file is the public muse client's: bare hex ids, the first two parents in keys of their own, every known
key present. The wire form has prefixed ids, `parent_ids`, and only those further fields that say something.
Whatever a hub sends beyond the known keys stays in the file and goes back out with the next push.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from musehub_plugin import ids
from musehub_plugin.musecommit import DEFAULTS, LEADING_FIELDS

# A file has two places for parents; a commit with more keeps the whole list here, or its id could not be
# checked.
_ALL_PARENTS = "parent_ids"
_WIRE: Final = ("commit_id", "parent_ids", "snapshot_id", "branch", "message", "author", "committed_at")
_WIRE_OR_FILE: Final = frozenset(LEADING_FIELDS) | frozenset(_WIRE)

_BINARY = "$bytes"
_PAIRS = "$pairs"


def record_from_wire(commit: Mapping[str, Any], *, repo_id: str) -> dict[str, Any]:
    """Return the commit file's map for a commit from an mpack.

    Args:
        commit: a commit as `musehub_plugin.mpack` gives it.
        repo_id: the working copy's own repo id, written where the commit names none.
    """
    parents = [ids.to_hex(parent) for parent in commit["parent_ids"]]
    sent_repo_id = commit.get("repo_id")
    record: dict[str, Any] = {
        "commit_id": ids.to_hex(commit["commit_id"]),
        "repo_id": sent_repo_id if isinstance(sent_repo_id, str) else repo_id,
        "branch": commit["branch"],
        "snapshot_id": ids.to_hex(commit["snapshot_id"]),
        "message": commit["message"],
        "committed_at": commit["committed_at"],
        "parent_commit_id": parents[0] if parents else None,
        "parent2_commit_id": parents[1] if len(parents) > 1 else None,
        "author": commit["author"],
    }
    for key, default in DEFAULTS.items():
        record[key] = _to_json(commit[key]) if key in commit else default
    if len(parents) > 2:
        record[_ALL_PARENTS] = parents
    for key, value in commit.items():
        if key not in record and key not in _WIRE_OR_FILE:
            record[key] = _to_json(value)
    return record


def wire_from_record(record: Mapping[str, Any], *, repo_id: str) -> dict[str, Any]:
    """Return the wire form of a commit file's map: the inverse of `record_from_wire`.

    Fields that hold what the public client writes when it knows nothing are left out, as is the working
    copy's own repo id: they would cost bytes in every pack and come back the same.

    Args:
        record: the map of a commit file that `check_record` accepts.
        repo_id: the working copy's own repo id.
    """
    commit: dict[str, Any] = {
        "commit_id": ids.PREFIX + record["commit_id"],
        "parent_ids": record_parents(record),
        "snapshot_id": ids.PREFIX + record["snapshot_id"],
        "branch": record.get("branch") or "",
        "message": record["message"],
        "author": record.get("author") or "",
        "committed_at": record["committed_at"],
    }
    if record.get("repo_id") not in {repo_id, None}:
        commit["repo_id"] = record["repo_id"]
    for key, value in record.items():
        if key in _WIRE_OR_FILE or _is_default(key, value):
            continue
        commit[key] = _from_json(value)
    return commit


def record_parents(record: Mapping[str, Any]) -> list[str]:
    """Return the ids of a commit file's parents, in their order."""
    listed = record.get(_ALL_PARENTS)
    hexes = listed if listed else [record.get("parent_commit_id"), record.get("parent2_commit_id")]
    return [ids.PREFIX + parent for parent in hexes if parent]


def new_record(
    *,
    commit_id: str,
    repo_id: str,
    branch: str,
    snapshot_id: str,
    message: str,
    committed_at: str,
    parent_ids: list[str],
    author: str,
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """Return the map of a commit file for a commit that is made here."""
    return record_from_wire(
        {
            "commit_id": commit_id,
            "parent_ids": parent_ids,
            "snapshot_id": snapshot_id,
            "branch": branch,
            "message": message,
            "author": author,
            "committed_at": committed_at,
            "metadata": dict(metadata),
        },
        repo_id=repo_id,
    )


def check_record(record: object, expected_id: str) -> str | None:
    """Return what is wrong with a commit file's map, or None.

    Args:
        record: what the file holds.
        expected_id: the commit's id, as the file's name says it.
    """
    if not isinstance(record, dict):
        return "is no JSON object"
    if record.get("commit_id") != ids.to_hex(expected_id):
        return "names another commit_id than its file name"
    if not ids.is_hex(record.get("snapshot_id")):
        return "has no snapshot_id of 64 hex digits"
    for key in ("message", "committed_at"):
        if not isinstance(record.get(key), str):
            return f"has no text in {key}"
    for key in ("branch", "author"):
        if not isinstance(record.get(key, ""), str | None):
            return f"has no text in {key}"
    listed = record.get(_ALL_PARENTS, [])
    if not isinstance(listed, list):
        return f"has no list in {_ALL_PARENTS}"
    for parent in (record.get("parent_commit_id"), record.get("parent2_commit_id"), *listed):
        if parent and not ids.is_hex(parent):
            return "has a parent that is no 64 hex digits"
    return None


def commit_hashes_to(commit: Mapping[str, Any]) -> bool:
    """Say whether a wire commit hashes to its id, by its date or (`muse commit-tree`) by its author."""
    parents, snapshot, message = commit["parent_ids"], commit["snapshot_id"], commit["message"]
    return any(
        ids.commit_id(parents, snapshot, message, last) == commit["commit_id"]
        for last in (commit["committed_at"], commit["author"])
    )


def render(record: Mapping[str, Any]) -> bytes:
    """Return a record's file: JSON indented by two, ASCII, a newline at the end."""
    # json.dumps with an indent is pure Python and ten times as slow; most values are one token.
    lines = []
    for key, value in record.items():
        if isinstance(value, str):
            text = encode_basestring_ascii(value)
        elif value and isinstance(value, dict | list):
            text = json.dumps(value, indent=2).replace("\n", "\n  ")
        else:
            text = json.dumps(value)
        lines.append(f"  {encode_basestring_ascii(key)}: {text}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _is_default(key: str, value: object) -> bool:
    return key in DEFAULTS and type(value) is type(DEFAULTS[key]) and value == DEFAULTS[key]


def _to_json(value: Any) -> Any:
    """Return a msgpack value in terms of JSON: bytes and keys that are no text are wrapped."""
    if isinstance(value, bytes):
        return {_BINARY: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        wrapped = len(value) == 1 and {_BINARY, _PAIRS} & value.keys()
        if not wrapped and all(isinstance(key, str) for key in value):
            return {key: _to_json(item) for key, item in value.items()}
        return {_PAIRS: [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if len(value) == 1:
            if isinstance(value.get(_BINARY), str):
                return base64.b64decode(value[_BINARY])
            if isinstance(value.get(_PAIRS), list):
                return {_from_json(key): _from_json(item) for key, item in value[_PAIRS]}
        return {key: _from_json(item) for key, item in value.items()}
    return value
