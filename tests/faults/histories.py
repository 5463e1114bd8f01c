"""Histories for the fault tests, and the steps that they are killed at."""

from __future__ import annotations

import re
from pathlib import Path

import musehub_plugin
from musehub_plugin.testing import History


def several_blobs(seed: str) -> tuple[History, str]:
    """Return a history of two commits and six blobs, which are indexed in several batches, and its head."""
    history = History()
    first = history.commit({f"{seed}/{n}.txt": f"{seed} {n}".encode() for n in range(5)})
    return history, history.commit({f"{seed}/new.txt": f"{seed} new".encode()}, [first])


def one_blob(seed: str) -> tuple[History, str]:
    """Return a history of one commit and one blob, and its head."""
    history = History()
    return history, history.commit({"a.txt": seed.encode()})


def steps(of: str) -> list[str]:
    """Return the names of all steps of a use case, from the code, so that a new one is not forgotten."""
    source = "".join(path.read_text() for path in sorted(Path(musehub_plugin.__file__).parent.rglob("*.py")))
    found = dict.fromkeys(name for name in re.findall(r'reached\("([a-z.-]+)"\)', source) if name.startswith(f"{of}."))
    assert found, f"no steps of {of}"
    return list(found)
