"""Commits as the released `muse` command has them on the wire, and as the plugin keeps them.

The command names two parents in fields of their own, and every commit has all of its fields. What its id does not
cover (signature, agent, metadata, the summary of changes, ...) is carried unchanged, per repo, like the further fields
of any commit. Two things are not: `repo_id`, which names the repo on the sender's disk and is answered with the id
of the repo here, and an empty `author`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from musehub_plugin import ids
from musehub_plugin.errors import HubError, Invalid
from musehub_plugin.musecommit import DEFAULTS, LEADING_FIELDS, PARENT_FIELDS

_TRANSLATED: Final = frozenset(LEADING_FIELDS)
_OURS: Final = frozenset({"parent_ids"})


class NeedsMusehub(HubError):
    """What was asked for has no form that the released command can hold."""

    status = HTTPStatus.NOT_ACCEPTABLE
    code = "needs-musehub"


def record_from_sent(sent: Mapping[str, Any], where: str, *, pusher: str) -> dict[str, Any]:
    """Return the plugin's record of a commit that the command sent; its id is not checked here.

    An empty author becomes the name of who pushes, unless the commit is signed, since what a signature covers is not
    known here, or its id covers the author.

    Args:
        sent: the commit's map.
        where: what it is called in an error.
        pusher: the pusher's handle; empty where there is none.

    Raises:
        Invalid: a field is missing or of the wrong type; the detail names it.
    """
    clash = _OURS & sent.keys()
    if clash:
        raise Invalid(f"{where}: {min(clash)} is no field of a commit.")
    parent_ids = [_id(sent, name, where) for name in PARENT_FIELDS if sent.get(name) is not None]
    record: dict[str, Any] = {
        "commit_id": _id(sent, "commit_id", where),
        "parent_ids": parent_ids,
        "snapshot_id": _id(sent, "snapshot_id", where),
        "branch": _text(sent, "branch", where, ""),
        "message": _text(sent, "message", where),
        "author": _text(sent, "author", where, ""),
        "committed_at": _text(sent, "committed_at", where),
    }
    for name, value in sent.items():
        if name not in _TRANSLATED:
            record[name] = value
    if not record["author"] and not sent.get("signature") and _is_dated(record):
        record["author"] = pusher
    return record


def sent_from_record(record: Mapping[str, Any], repo_id: str) -> dict[str, Any]:
    """Return the command's form of a commit of a repo.

    Args:
        record: the commit as the plugin keeps it.
        repo_id: the repo's id here.

    Raises:
        NeedsMusehub: the commit has more than two parents.
    """
    parents = [ids.to_hex(parent) for parent in record["parent_ids"]]
    if len(parents) > len(PARENT_FIELDS):
        raise NeedsMusehub(
            f"Commit {ids.to_hex(record['commit_id'])} has {len(parents)} parents, muse holds two: use musehub."
        )
    sent: dict[str, Any] = {
        "commit_id": ids.to_hex(record["commit_id"]),
        "repo_id": repo_id,
        "branch": record["branch"],
        "snapshot_id": ids.to_hex(record["snapshot_id"]),
        "message": record["message"],
        "committed_at": record["committed_at"],
        "parent_commit_id": parents[0] if parents else None,
        "parent2_commit_id": parents[1] if len(parents) > 1 else None,
        "author": record["author"],
        **DEFAULTS,
    }
    for name, value in record.items():
        if name not in _TRANSLATED and name not in _OURS:
            sent[name] = value
    return sent


def _is_dated(record: Mapping[str, Any]) -> bool:
    """Say whether the commit's id covers its date, and so not its author."""
    dated = ids.commit_id(record["parent_ids"], record["snapshot_id"], record["message"], record["committed_at"])
    return bool(dated == record["commit_id"])


def _id(sent: Mapping[str, Any], name: str, where: str) -> str:
    value = sent.get(name)
    if not ids.is_hex(value):
        raise Invalid(f"{where}: {name} must be 64 lowercase hex digits.")
    return f"{ids.PREFIX}{value}"


def _text(sent: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = sent.get(name, default)
    if not isinstance(value, str):
        raise Invalid(f"{where}: {name} must be a string.")
    return value
