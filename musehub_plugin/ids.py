"""Content addresses: `sha256:` and 64 lowercase hex digits.

The rules are the contract's section 1. Everything that names a blob, a snapshot, a commit or an mpack goes through
this module, so that there is one answer to "is this an id" and "what is the id of that".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

PREFIX = "sha256:"
_PREFIX_LENGTH = len(PREFIX)
ID_LENGTH = _PREFIX_LENGTH + 64

# \Z by way of fullmatch: `$` would accept a trailing newline, and \d or int(x, 16) would accept Unicode digits.
_ID = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")


def is_id(value: object) -> bool:
    """Say whether `value` is a `str` of exactly the form `sha256:` + 64 lowercase hex digits."""
    return isinstance(value, str) and len(value) == ID_LENGTH and _ID.fullmatch(value) is not None


def is_hex(value: object) -> bool:
    """Say whether `value` is an id without its prefix, the form that the public muse client keeps on disk."""
    return isinstance(value, str) and len(value) == 64 and _HEX.fullmatch(value) is not None


def to_hex(identifier: str) -> str:
    """Return the 64 hex digits of an id."""
    return identifier[len(PREFIX) :]


def to_digest(identifier: str) -> bytes:
    """Return the 32 bytes that an id stands for.

    Raises:
        ValueError: `identifier` is no id.
    """
    # Half the time of matching the pattern; `fromhex` alone would take spaces and capitals too.
    try:
        digest = bytes.fromhex(identifier[_PREFIX_LENGTH:]) if isinstance(identifier, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != 32 or PREFIX + digest.hex() != identifier:
        raise ValueError(f"not an id: {identifier!r:.100}")
    return digest


def from_digest(digest: bytes) -> str:
    """Return the id of 32 bytes of SHA-256."""
    return PREFIX + digest.hex()


def blob_id(content: bytes) -> str:
    """Return the id of a file's bytes; the id of an mpack is the `blob_id` of the whole file."""
    return PREFIX + hashlib.sha256(content).hexdigest()


def snapshot_id(manifest: Mapping[str, str]) -> str:
    """Return the id of a manifest `{path: object_id}`."""
    entries = sorted(f"{path}\0{object_id[len(PREFIX) :]}" for path, object_id in manifest.items())
    return PREFIX + hashlib.sha256("\0".join(entries).encode()).hexdigest()


def commit_id(parent_ids: Iterable[str], snapshot_id: str, message: str, committed_at: str) -> str:
    """Return the id of a commit.

    Args:
        parent_ids: ids of the parents, in any order: the hash sorts them.
        snapshot_id: id of the commit's snapshot.
        message: the message, exactly.
        committed_at: the date as text, exactly as it was written; `muse commit-tree` puts the author here.
    """
    return from_digest(commit_digest(parent_ids, snapshot_id, message, committed_at))


def commit_digest(parent_ids: Iterable[str], snapshot_id: str, message: str, committed_at: str) -> bytes:
    """Return the 32 bytes that the id of a commit stands for; arguments as `commit_id`."""
    parents = "\0".join(sorted([parent[_PREFIX_LENGTH:] for parent in parent_ids]))
    text = f"{parents}\0{snapshot_id[_PREFIX_LENGTH:]}\0{message}\0{committed_at}"
    return hashlib.sha256(text.encode()).digest()


def fake_id(seed: str) -> str:
    """Return a well-formed id derived from `seed`, for tests: nothing is known to have it."""
    return PREFIX + hashlib.sha256(f"musehub-fake-id\0{seed}".encode()).hexdigest()
